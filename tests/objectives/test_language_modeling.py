"""Language modelling: every token of every text, in windows where it is long, and transformers' own loss."""

import pytest
import torch

from tunewright.core.errors import BaseModelError
from tunewright.data.rendering import Refusal, Rendered, Renderer, Rendering
from tunewright.data.rows import ChatRow, Message, PromptRow, Row, TextRow
from tunewright.engine.engine import Engine
from tunewright.engine.network import use_layout
from tunewright.engine.probe import probe
from tunewright.objectives.language_modeling import LanguageModeling
from tunewright.objectives.sft import SFT
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny

CHAT = ChatRow(
    messages=(Message(role="user", content="a"), Message(role="assistant", content="b"), Message(role="user", content="c"))
)
ROWS: tuple[Row, ...] = (
    TextRow(text="one two"),
    TextRow(text="four five six"),
    PromptRow(prompt="spell ab", completion="a b"),
    PromptRow(prompt="a prompt alone", completion=""),
    CHAT,
)


class TestLanguageModeling(ObjectiveContract):
    objective = LanguageModeling()
    families = ("llama", "gemma2", "gpt2")
    rows = ROWS
    useless = (TextRow(text=" ", where="f:1"), TextRow(text="a b", weight=0.0, where="f:2"))


def planted(row: Row, most: int | None = None, objective: LanguageModeling | SFT | None = None, **settings) -> list[Rendered]:
    model = tiny("llama")
    renderer = Renderer(model.tokenizer, model.kind, most or model.context, Rendering(**settings))
    found = (objective or LanguageModeling()).plant([row], renderer)
    assert not any(isinstance(one, Refusal) for one in found)
    return [one for one in found if isinstance(one, Rendered)]


@pytest.mark.parametrize("row", ROWS)
def test_all_but_the_first_token_is_learned(row: Row):
    (found,) = planted(row)
    (segment,) = found.tree.segments
    assert segment.targets == (0.0, *[1.0] * (len(segment.tokens) - 1))


@pytest.mark.parametrize("row", ROWS[:2])
def test_a_text_is_the_tree_that_sft_makes_of_it(row: Row):
    assert planted(row) == planted(row, objective=SFT())


@pytest.mark.parametrize("row", [ROWS[2], CHAT])
def test_a_prompt_is_the_tree_that_sft_makes_of_it_when_it_learns_all(row: Row):
    assert [one.tree for one in planted(row)] == [one.tree for one in planted(row, objective=SFT(), train_on="all")]


@pytest.mark.parametrize("row", [TextRow(text="x yz " * 60), PromptRow(prompt="what " * 30, completion="that " * 30)])
def test_nothing_of_a_long_text_is_lost(row: Row):
    (whole,) = planted(row)
    windows = planted(row, 50)
    assert len(windows) > 1
    assert all(one.tree.size <= 50 and one.truncated == 0 for one in windows)
    learned = [
        token
        for one in windows
        for token, weight in zip(one.tree.segments[0].tokens, one.tree.segments[0].targets, strict=True)
        if weight
    ]
    assert learned == list(whole.tree.segments[0].tokens[1:])


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_the_loss_is_that_of_transformers(family: str):
    model = tiny(family)
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    trees = [one.tree for one in LanguageModeling().plant(ROWS, renderer) if isinstance(one, Rendered)]
    engine = Engine(model, probed=probe(model))
    with torch.no_grad():
        total, count = LanguageModeling().loss(engine, engine.collate(trees))
        use_layout(model, "padded")
        theirs = 0.0
        for tree in trees:
            tokens = torch.tensor([tree.segments[0].tokens])
            theirs += float(model.network(input_ids=tokens, labels=tokens).loss) * (tree.size - 1)
    assert float(count) == sum(tree.size - 1 for tree in trees)
    assert float(total) == pytest.approx(theirs, rel=1e-5)


def test_rows_are_measured_by_the_loss_of_all_their_windows():
    model = tiny("llama")
    engine = Engine(model, probed=probe(model))
    renderer = Renderer(model.tokenizer, model.kind, 40)
    rows = [TextRow(text="round and round " * 8), TextRow(text=" "), TextRow(text="short")]
    with engine.evaluating():
        long, empty, short = LanguageModeling().readings(engine, renderer, rows)
        scores_N, _ = engine.score([one.tree for one in LanguageModeling().plant(rows[:1], renderer) if isinstance(one, Rendered)])
    assert (long.text, long.tokens) == (None, len("round and round " * 8))
    assert long.loss == pytest.approx(-float(scores_N.mean()), rel=1e-5)
    assert (empty.loss, empty.tokens) == (None, 0)
    assert short.loss is not None
    assert not short.scores


@pytest.mark.parametrize(("kind", "other"), [("encoder", "masked_language_modeling"), ("encoder_decoder", "span_corruption")])
def test_other_bases_are_told_what_they_learn_text_by(kind: str, other: str):
    with pytest.raises(BaseModelError, match=f"'language_modeling' is for decoders.*objective: {other}"):
        LanguageModeling().decided(kind, ROWS)
    with pytest.raises(BaseModelError, match=f"cannot learn plain text.*objective: {other}"):
        SFT().decided(kind, ROWS)
