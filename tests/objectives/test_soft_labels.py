"""Classification with probabilities as targets: the loss by hand, beside certain labels, with a head and with label words."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from tunewright.core.errors import ConfigurationError
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import LabelRow, Row, SoftLabelRow
from tunewright.engine.loss import Loss
from tunewright.models import Model
from tunewright.objectives import Objective
from tunewright.objectives.classification import Classification, most_probable
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine

LABELS = ("ant", "cat", "dog")


def soft(text: str, *shares: float) -> SoftLabelRow:
    distribution = dict(zip(LABELS, shares, strict=True))
    return SoftLabelRow(text=text, label=max(distribution, key=lambda label: distribution[label]), distribution=distribution)


ROWS = (
    soft("bow wow", 0.02, 0.02, 0.96),
    soft("meow", 0.0, 0.97, 0.03),
    LabelRow(text="tik", label="ant"),
    soft("woof woof", 0.0, 0.0, 1.0),
    soft("purr", 0.01, 0.98, 0.01),
)


class OnDistributions(ObjectiveContract):
    rows = ROWS

    def labels(self) -> tuple[str, ...]:
        return LABELS

    def resolved(self, model: Model) -> Objective:
        return self.objective.resolve(model.kind)


class TestHeadOnDistributions(OnDistributions):
    objective = Classification(head="new", labels=LABELS)
    families = ("bert",)


class TestLabelWordsOnDistributions(OnDistributions):
    objective = Classification(labels=LABELS)
    families = ("llama", "t5")


def lost(family: str, rows: list[Row], **settings: str) -> tuple[Loss, torch.Tensor | None]:
    """The loss of some rows together, and the logits of a head."""
    model = tiny(family)
    objective = Classification(labels=LABELS, **settings).resolve(model.kind)
    planted = objective.plant(rows, Renderer(model.tokenizer, model.kind, model.context))
    assert not any(isinstance(item, Refusal) for item in planted)
    engine = toy_engine(model)
    engine.first.head = objective.make_head(model, LABELS, 0)
    if engine.first.head is not None:
        engine.first.head.eval()
    batch = engine.collate([item.tree for item in planted])
    return objective.loss(engine, batch), engine.label_logits(batch) if objective.with_head else None


def test_the_loss_of_a_head_is_the_cross_entropy_with_the_distribution():
    loss, logits_SC = lost("bert", list(ROWS), head="new")
    wanted_SC = torch.tensor([[*row.distribution.values()] if isinstance(row, SoftLabelRow) else [1.0, 0, 0] for row in ROWS])
    torch.testing.assert_close(loss.total, cross_entropy(logits_SC, wanted_SC, reduction="sum"))
    assert float(loss.count) == len(ROWS)


def test_certain_labels_have_the_same_bits_as_ever():
    rows: list[Row] = [LabelRow(text=row.text, label=row.label) for row in ROWS]
    loss, logits_SC = lost("bert", rows, head="new")
    assert logits_SC is not None
    places_S = torch.tensor([LABELS.index(row.label) for row in ROWS])
    assert torch.equal(loss.total, cross_entropy(logits_SC, places_S, reduction="sum"))


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_label_words_are_learned_as_much_as_they_are_probable(family: str):
    """sum over labels of p(label) * (loss of the row with that label), and the same of the counts."""
    row = soft("bow wow", 0.1, 0.3, 0.6)
    alone = [lost(family, [LabelRow(text=row.text, label=label)])[0] for label in LABELS]
    loss, _ = lost(family, [row])
    shares = list(row.distribution.values())
    total = sum(share * one.total.item() for share, one in zip(shares, alone, strict=True))
    count = sum(share * one.count.item() for share, one in zip(shares, alone, strict=True))
    assert (loss.total.item(), loss.count.item()) == pytest.approx((total, count), rel=1e-5)


def test_the_text_is_read_once_and_impossible_labels_not_at_all():
    model = tiny("llama")
    (item,) = (
        Classification(labels=LABELS).resolve("decoder").plant([ROWS[1]], Renderer(model.tokenizer, model.kind, model.context))
    )
    assert not isinstance(item, Refusal)
    root, *options = item.tree.segments
    assert not any(root.targets)
    assert [{round(weight, 9) for weight in option.targets} for option in options] == [{0.97}, {0.03}]


def test_the_loss_that_is_measured_is_the_one_that_is_learned():
    logits_C = torch.tensor([0.5, -1.0, 2.0])
    found = most_probable(log_softmax(logits_C, dim=0), LABELS, soft("x", 0.1, 0.3, 0.6))
    assert found.text == "dog"
    assert found.loss == pytest.approx(float(cross_entropy(logits_C, torch.tensor([0.1, 0.3, 0.6]))))
    assert most_probable(log_softmax(logits_C, dim=0), ("ant", "cat", "cow"), soft("x", 0.1, 0.3, 0.6)).loss is None
    certain = most_probable(log_softmax(logits_C, dim=0), LABELS, LabelRow(text="x", label="cat")).loss
    assert certain == -float(log_softmax(logits_C, dim=0)[1])
    assert math.isfinite(certain)


def test_labels_that_are_nowhere_the_likeliest_have_a_place():
    rows = [soft("x", 0.4, 0.0, 0.6), soft("y", 0.45, 0.0, 0.55)]
    assert Classification().decided("encoder", rows).labels == ("ant", "dog")
    with pytest.raises(ConfigurationError, match=r"objective.labels: the label 'ant'.*Allowed: cat, dog"):
        Classification(labels=("cat", "dog")).decided("encoder", rows)


@pytest.mark.parametrize(("family", "head"), [("bert", "new"), ("llama", "words")])
def test_a_label_without_a_place_is_no_target(family: str, head: str):
    model = tiny(family)
    objective = Classification(labels=("cat", "dog"), head=head).resolve(model.kind)
    (item,) = objective.plant([ROWS[0]], Renderer(model.tokenizer, model.kind, model.context))
    if head == "new":
        assert not isinstance(item, Refusal)
        assert item.tree.segments[0].values == ()
        assert item.tree.segments[0].label is None
    else:
        assert isinstance(item, Refusal)
        assert "label that is not among" in item.message


def test_a_teachers_temperature_softens_both_sides_and_its_square_keeps_the_size():
    """t^2 times the cross-entropy with logits / t, for rows with a distribution; certain rows are as ever."""
    loss, logits_SC = lost("bert", list(ROWS), head="new", temperature=2.0)
    assert logits_SC is not None
    soft_S = [place for place, row in enumerate(ROWS) if isinstance(row, SoftLabelRow)]
    wanted_SC = torch.tensor([[*row.distribution.values()] for row in ROWS if isinstance(row, SoftLabelRow)])
    certain = cross_entropy(logits_SC[2:3], torch.tensor([0]), reduction="sum")
    torch.testing.assert_close(loss.total, 4 * cross_entropy(logits_SC[soft_S] / 2, wanted_SC, reduction="sum") + certain)
    assert float(loss.count) == len(ROWS)


def test_the_loss_that_is_measured_has_the_temperature_too():
    model, objective = tiny("bert"), Classification(head="new", labels=LABELS, temperature=3.0).resolve("encoder")
    logits_C = torch.tensor([0.5, -1.0, 2.0])
    renderer, engine = Renderer(model.tokenizer, model.kind, model.context), toy_engine(model)
    reading = objective.read(engine, renderer, ROWS[0], [logits_C])
    assert reading.loss == pytest.approx(9 * cross_entropy(logits_C[None] / 3, torch.tensor([[0.02, 0.02, 0.96]])).item(), rel=1e-5)
    assert reading.confidence == pytest.approx(logits_C.softmax(0).max().item())  # the answer is as sure as without it


def test_label_words_have_no_temperature():
    with pytest.raises(ConfigurationError, match="label words are learned as texts"):
        Classification(labels=LABELS, temperature=2.0).resolve("decoder")
