"""Masked language modelling: the published shares, whole words, other masks each epoch, and transformers' own loss."""

import random
from collections import Counter

import pytest
import torch

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.data.forest import Tree
from tunewright.data.rendering import Refusal, Rendered, Renderer
from tunewright.data.rows import LabelRow, NumberRow, PromptRow, Row, TextRow
from tunewright.engine.engine import Engine
from tunewright.engine.network import use_layout
from tunewright.engine.probe import probe
from tunewright.models import Model
from tunewright.objectives._corruption import Corrupted
from tunewright.objectives.masked_language_modeling import MaskedLanguageModeling
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import ENCODERS, tiny

from .parity import assert_same_gradients

MASK = 4
TEXTS = ("The cat sat on the mat, and slept.", "Long ago there lived a king who had three sons.", "ab", "x y z " * 12)
ROWS: tuple[Row, ...] = (
    *(TextRow(text=text) for text in TEXTS),
    LabelRow(text="a text with a label", label="good"),
    PromptRow(prompt="what is it", completion="a sentence"),
)


class TestMaskedLanguageModeling(ObjectiveContract):
    objective = MaskedLanguageModeling(share=0.3)
    families = ("bert", "roberta", "modernbert")
    rows = ROWS
    useless = (TextRow(text=" ", where="f:1"), TextRow(text="a b", weight=0.0, where="f:2"), NumberRow(text="x", values=(1.0,)))


def planted(model: Model, rows: tuple[Row, ...], most: int | None = None, **settings) -> list[Tree]:
    renderer = Renderer(model.tokenizer, model.kind, most or model.context)
    found = build(MaskedLanguageModeling, settings).plant(rows, renderer)
    assert not any(isinstance(one, Refusal) for one in found)
    return [one.tree for one in found if isinstance(one, Rendered)]


def original(tree: Tree) -> list[int]:
    (segment,) = tree.segments
    return [tag if tag >= 0 else token for token, tag in zip(segment.tokens, segment.tags, strict=True)]


@pytest.mark.parametrize("whole_words", [False, True])
def test_shares_are_the_published_ones(whole_words: bool):
    draw = random.Random(0)
    text = " ".join("".join(draw.choices("abcdefghij", k=draw.randint(1, 5))) for _ in range(100))
    (tree,) = planted(tiny("bert"), (TextRow(text=text),), whole_words=whole_words)
    found: Counter[str] = Counter()
    for seed in range(200):
        (segment,) = tree.redrawn(seed).segments
        for token, tag in zip(segment.tokens, segment.tags, strict=True):
            found["mask" if token == MASK else "stays" if token == tag else "other" if tag >= 0 else "not asked"] += 1
        assert {token >= 5 or token == MASK for token in segment.tokens[1:-1]} == {True}
    asked = found["mask"] + found["other"] + found["stays"]
    assert asked / (200 * len(text)) == pytest.approx(0.15, abs=0.005)
    # Of about 6,000 draws each share lies within three standard deviations.
    for kind, share in (("mask", 0.8), ("other", 0.1), ("stays", 0.1)):
        assert found[kind] / asked == pytest.approx(share, abs=3 * (share * (1 - share) / asked) ** 0.5 + 0.001)


def test_exactly_the_share_is_asked_for_and_at_least_one_token():
    for tree, text in zip(planted(tiny("bert"), ROWS[:4]), TEXTS, strict=True):
        assert sum(tag >= 0 for tag in tree.segments[0].tags) == max(1, round(0.15 * len(text)))


def test_a_word_is_hidden_whole_or_not_at_all():
    text = "antelope bee cat. dog's elephant fox gnu"
    (tree,) = planted(tiny("bert"), (TextRow(text=text),), whole_words=True, share=0.3, masked=1, replaced=0)
    words = ["antelope", "bee", "cat", "dog", "elephant", "fox", "gnu"]
    hidden: Counter[str] = Counter()
    for seed in range(40):
        (segment,) = tree.redrawn(seed).segments
        shown = tiny("bert").tokenizer.decode(segment.tokens[1:-1]).replace("<mask>", "#")
        assert len(shown) == len(text)
        for word in words:
            place = text.index(word)
            part = shown[place : place + len(word)]
            assert part in (word, "#" * len(word))
            hidden[word] += part != word
    assert all(hidden[word] for word in words)


def test_epochs_hide_other_words_and_measuring_always_the_same():
    model = tiny("bert")
    (tree,) = planted(model, ROWS[1:2])
    assert isinstance(tree, Corrupted)
    assert tree.varies
    assert tree.segments == planted(model, ROWS[1:2])[0].segments
    draws = [tree.redrawn(seed) for seed in (1, 2, 1)]
    assert draws[0] == draws[2] != draws[1]
    assert {tuple(original(one)) for one in (tree, *draws)} == {tuple(original(tree))}
    assert {one.size for one in draws} == {tree.size}
    assert draws[0].redrawn(2) == draws[1]  # a draw is no function of the one before


def test_what_is_measured_depends_on_the_row_alone():
    model = tiny("bert")
    alone = planted(model, (ROWS[1],))[0].segments[0]
    behind = planted(model, (ROWS[0], ROWS[1]))[1].segments[0]
    assert (alone.tokens, alone.tags) == (behind.tokens, behind.tags)


def test_long_texts_become_windows_that_hold_everything():
    text = "one two three " * 20
    trees = planted(tiny("bert"), (TextRow(text=text), ROWS[0]), 64)
    assert len(trees) == 6
    assert all(tree.size <= 64 for tree in trees)
    assert [segment.row for tree in trees for segment in tree.segments] == [0] * 5 + [1]
    decode = tiny("bert").tokenizer.decode
    assert "".join(decode(original(tree)[1:-1]) for tree in trees[:5]) == text


@pytest.mark.parametrize("family", ENCODERS)
def test_loss_and_gradients_are_those_of_transformers(family: str):
    ours, theirs = tiny(family, own_head=True), tiny(family, own_head=True)
    trees = planted(ours, ROWS)
    engine = Engine(ours, dict(ours.network.named_parameters()), probe(ours))
    assert engine.layout == "forest"
    total, count = MaskedLanguageModeling().loss(engine, engine.collate(trees))
    (total / count).backward()
    use_layout(theirs, "padded")
    wide = max(tree.size for tree in trees)
    tokens, mask = torch.zeros((2, len(trees), wide), dtype=torch.long)
    labels = torch.full_like(tokens, -100)
    for number, tree in enumerate(trees):
        (segment,) = tree.segments
        tokens[number, : tree.size], mask[number, : tree.size] = torch.tensor(segment.tokens), 1
        labels[number, : tree.size] = torch.tensor([tag if tag >= 0 else -100 for tag in segment.tags])
    loss = theirs.network(input_ids=tokens, attention_mask=mask, labels=labels).loss
    loss.backward()
    assert float(total.detach() / count) == pytest.approx(float(loss.detach()), rel=1e-5)
    assert_same_gradients({"network": (ours.network, theirs.network)}, fewest=15)


def test_rows_weigh_what_they_say():
    model = tiny("bert", own_head=True)
    engine = Engine(model, probed=probe(model))
    one, half = (
        MaskedLanguageModeling().loss(engine, engine.collate(planted(model, (TextRow(text=TEXTS[0], weight=weight),))))
        for weight in (1.0, 0.5)
    )
    assert float(half.count) == 0.5 * float(one.count)


def test_measured_are_loss_and_accuracy_at_hidden_words():
    model = tiny("bert", own_head=True)
    engine = Engine(model, probed=probe(model))
    renderer = Renderer(model.tokenizer, model.kind, 40)
    rows = [TextRow(text="round and round " * 8), TextRow(text=" "), *ROWS[:2]]
    objective = MaskedLanguageModeling()
    with engine.evaluating():
        readings = objective.readings(engine, renderer, rows)
        total, count = objective.loss(engine, engine.collate(planted(model, (rows[0],), 40)))
    assert readings[0].loss == pytest.approx(float(total / count), rel=1e-5)
    assert readings[0].tokens == int(count)
    assert readings[1].loss is None
    assert all(0 <= reading.scores["masked_accuracy"] <= 1 for reading in (readings[0], *readings[2:]))
    with torch.no_grad():  # a head that knows one answer only: what is hidden is found where it is that
        model.network.get_output_embeddings().bias.zero_()[planted(model, (rows[0],), 40)[0].segments[0].tags[-2]] = 0
        model.network.get_output_embeddings().bias[ord("r") - ord("!") + 5] = 1e4
    with engine.evaluating():
        (found,) = objective.readings(engine, renderer, rows[:1])
    tags = [tag for tree in planted(model, (rows[0],), 40) for tag in tree.segments[0].tags if tag >= 0]
    assert found.scores["masked_accuracy"] == pytest.approx(tags.count(ord("r") - ord("!") + 5) / len(tags))


def test_what_cannot_be_is_refused():
    with pytest.raises(BaseModelError, match="'masked_language_modeling' is for encoders, and the base is a decoder"):
        MaskedLanguageModeling().decided("decoder", ROWS)
    with pytest.raises(BaseModelError, match="loaded without a head for hidden words"):
        MaskedLanguageModeling().make_head(tiny("bert"), (), 0)
    with pytest.raises(ConfigurationError, match="more than all tokens"):
        build(MaskedLanguageModeling, {"masked": 0.8, "replaced": 0.3})
    model = tiny("bert")
    model.tokenizer.mask_token = None
    with pytest.raises(BaseModelError, match="no mask token"):
        planted(model, ROWS)
