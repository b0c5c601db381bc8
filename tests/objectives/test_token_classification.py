"""Token classification: the contract, parity with transformers, which piece of a word has its tag."""

import pytest
import torch
from transformers import BertForTokenClassification

from tunewright.core.errors import ConfigurationError
from tunewright.data.rendering import Refusal, Renderer, Rendering
from tunewright.data.rows import LabelRow, TagsRow
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.models import Model
from tunewright.objectives import Objective
from tunewright.objectives.token_classification import TokenClassification
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny

from .parity import assert_same_gradients, body_of, own_gradients

LABELS = ("B-X", "I-X", "O")
ROWS = (
    TagsRow(tokens=("ann", "of", "ulm"), tags=("B-X", "I-X", "I-X")),
    TagsRow(tokens=("we", "ran"), tags=("O", "O")),
    TagsRow(tokens=("ulm",), tags=("B-X",)),
    TagsRow(tokens=("so", "ann", "ran", "on"), tags=("O", "B-X", "O", "O")),
)


class TestTokenClassification(ObjectiveContract):
    objective = TokenClassification(labels=LABELS)
    rows = ROWS
    useless = (LabelRow(text="x", label="y", where="a:1"), TagsRow(tokens=("", ""), tags=("O", "O"), where="a:2"))
    families = ("llama", "gpt2", "bert")

    def resolved(self, model: Model) -> Objective:
        return self.objective.decided(model.kind, self.rows)

    def labels(self) -> tuple[str, ...]:
        return LABELS


def renderer_of(model: Model, **settings) -> Renderer:
    return Renderer(model.tokenizer, model.kind, model.context, Rendering(**settings))


def test_loss_and_gradients_are_those_of_transformers():
    """`BertForTokenClassification` with the same weights and its labels at the first piece of each word, -100 elsewhere."""
    reference = BertForTokenClassification(body_of("bert", num_labels=3)).eval()
    model = tiny("bert")
    reference.bert.load_state_dict(model.network.state_dict())
    objective = TokenClassification(labels=LABELS).decided("encoder", ROWS)
    head = objective.make_head(model, LABELS, 0)
    reference.classifier.load_state_dict(head.output.state_dict())
    trees = [item.tree for item in objective.plant(ROWS, renderer_of(model)) if not isinstance(item, Refusal)]
    loss = own_gradients(Engine(model, probed=probe(model), head=head.eval()), objective, trees)
    inputs = model.tokenizer([" ".join(row.tokens) for row in ROWS], padding=True, return_tensors="pt")
    wanted = torch.full(inputs["input_ids"].shape, -100)
    for number, row in enumerate(ROWS):
        begin = 1  # one token a byte, behind the one in front of every text
        for token, tag in zip(row.tokens, row.tags, strict=True):
            wanted[number, begin] = LABELS.index(tag)
            begin += len(token) + 1
    theirs = reference(**inputs, labels=wanted).loss
    theirs.backward()
    assert loss == pytest.approx(float(theirs.detach()), rel=1e-5)
    assert_same_gradients({"head": (head.output, reference.classifier), "body": (model.network, reference.bert)}, 12)


@pytest.mark.parametrize(("kind", "family", "tags"), [
    ("first", "bert", (-1, 0, -1, -1, -1, 1, -1, -1, 1, -1, -1, -1)),
    ("last", "llama", (-1, -1, 0, -1, -1, 1, -1, -1, -1, 1)),
])  # fmt: skip
def test_one_piece_of_a_word_has_its_tag(kind: str, family: str, tags: tuple[int, ...]):
    """`ann of ulm`, one token a letter: a decoder's first letter knows nothing of the word, so its last one is asked."""
    model = tiny(family)
    objective = TokenClassification(labels=LABELS).decided(model.kind, ROWS)
    assert objective.piece == kind
    (found,) = objective.plant(ROWS[:1], renderer_of(model))
    assert found.tree.segments[0].tags == tags


def test_words_that_were_cut_off_are_answered_as_outside():
    model = tiny("bert")
    objective = TokenClassification(labels=LABELS).decided(model.kind, ROWS)
    engine = Engine(model, probed=probe(model), head=objective.make_head(model, LABELS, 0))
    short = renderer_of(model, max_tokens=8)
    (found,) = objective.plant(ROWS[:1], short)
    assert not isinstance(found, Refusal)
    assert (found.truncated, found.tree.size) == (4, 8)
    with engine.evaluating():
        (reading,) = objective.readings(engine, short, ROWS[:1])
    assert reading.text.split()[2] == "O"
    assert reading.tokens == 2
    assert reading.details["tokens"] == ["ann", "of", "ulm"]


def test_tags_without_entities_are_measured_by_words():
    assert TokenClassification(labels=LABELS).measured()[0] == "entity_f1"
    assert TokenClassification(labels=("NOUN", "VERB")).measured() == ("token_accuracy", "token_macro_f1")


def test_the_guess_and_a_prompt():
    guess = TokenClassification().guess(ROWS)
    assert guess.answer(ROWS[0]) == "O O O"
    assert TokenClassification().asked("so ann ran") == TagsRow(tokens=("so", "ann", "ran"), tags=())
    with pytest.raises(ConfigurationError, match="no word to tag"):
        TokenClassification().asked("  ")
    with pytest.raises(ConfigurationError, match="not offered on an encoder-decoder"):
        TokenClassification().decided("encoder_decoder", ROWS)
