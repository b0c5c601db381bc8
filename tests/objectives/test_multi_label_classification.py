"""Multi-label classification: the contract, parity with transformers, thresholds, and what it says to a row."""

import json

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from tunewright.core.errors import ConfigurationError
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import LabelsRow, TextRow
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.metrics import Metric
from tunewright.metrics.multi_label_macro_f1 import MultiLabelMacroF1
from tunewright.metrics.multi_label_micro_f1 import MultiLabelMicroF1
from tunewright.models import Model
from tunewright.models.heads.multi_label import MultiLabelHead
from tunewright.objectives import Objective
from tunewright.objectives.multi_label_classification import MultiLabelClassification, best_threshold
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import WIDTH, tiny

from .parity import assert_same_gradients, body_of, own_gradients

LABELS = ("cold", "green", "old")
ROWS = (
    LabelsRow(text="an old fir", labels=("old", "green")),
    LabelsRow(text="snow", labels=("cold",)),
    LabelsRow(text="sand", labels=()),
    LabelsRow(text="a green leaf in a frozen lake", labels=("green", "cold")),
)


class TestMultiLabelClassification(ObjectiveContract):
    objective = MultiLabelClassification(labels=LABELS)
    rows = ROWS
    useless = (TextRow(text="no labels", where="a.jsonl:1"),)
    families = ("llama", "gpt2", "bert")

    def resolved(self, model: Model) -> Objective:
        return self.objective.decided(model.kind, self.rows)

    def labels(self) -> tuple[str, ...]:
        return LABELS


def ready(family: str = "bert", **settings) -> tuple[Engine, MultiLabelClassification, Renderer]:
    model = tiny(family)
    objective = MultiLabelClassification(**settings).decided(model.kind, ROWS)
    head = objective.make_head(model, objective.label_names(), 0)
    return Engine(model, probed=probe(model), head=head), objective, Renderer(model.tokenizer, model.kind, model.context)


def test_loss_and_gradients_are_those_of_transformers():
    """`BertForSequenceClassification(problem_type="multi_label_classification")` with the same weights, on rows padded together."""
    reference = BertForSequenceClassification(body_of("bert", num_labels=3, problem_type="multi_label_classification")).eval()
    model = tiny("bert")
    reference.bert.load_state_dict(model.network.state_dict(), strict=False)
    head = MultiLabelHead(WIDTH, LABELS, torch.Generator().manual_seed(0), pooling="first", hidden=WIDTH)
    reference.bert.pooler.dense.load_state_dict(head.dense.state_dict())
    reference.classifier.load_state_dict(head.output.state_dict())
    objective = MultiLabelClassification(labels=LABELS, pooling="first").decided("encoder", ROWS)
    trees = [item.tree for item in objective.plant(ROWS, Renderer(model.tokenizer, model.kind, model.context))]
    loss = own_gradients(Engine(model, probed=probe(model), head=head), objective, trees)
    wanted = torch.tensor([[float(label in row.labels) for label in LABELS] for row in ROWS])
    theirs = reference(**model.tokenizer([row.text for row in ROWS], padding=True, return_tensors="pt"), labels=wanted).loss
    theirs.backward()
    assert loss == pytest.approx(float(theirs.detach()), rel=1e-5)
    pairs = {"output": (head.output, reference.classifier), "dense": (head.dense, reference.bert.pooler.dense)}
    assert_same_gradients(pairs | {"body": (model.network, reference.bert)}, 12)


def test_labels_are_found_or_must_cover():
    assert MultiLabelClassification().decided("encoder", ROWS).labels == LABELS
    with pytest.raises(ConfigurationError, match=r"the label 'green' of .* is not among the labels"):
        MultiLabelClassification(labels=("old", "cold")).decided("encoder", ROWS)
    with pytest.raises(ConfigurationError, match="not offered on an encoder-decoder"):
        MultiLabelClassification().decided("encoder_decoder", ROWS)
    made = MultiLabelClassification().decided("encoder", [LabelsRow(text="x", labels=())])
    with pytest.raises(ConfigurationError, match="one label or more"):
        made.make_head(tiny("bert"), made.label_names(), 0)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_what_it_says_to_a_row(family: str):
    """The head's own numbers: sigmoid of the logits, labels from 0.5 on, the mean cross-entropy of all three decisions."""
    engine, objective, renderer = ready(family)
    with engine.evaluating():
        readings = objective.readings(engine, renderer, [*ROWS, TextRow(text="x")])
        trees = [item.tree for item in objective.plant(ROWS, renderer) if not isinstance(item, Refusal)]
        chances = torch.cat([engine.label_logits(engine.collate([tree])) for tree in trees]).sigmoid()
    assert readings[-1].text == ""
    for row, reading, own in zip(ROWS, readings, chances.tolist(), strict=False):
        assert json.loads(reading.text) == [label for label, chance in zip(LABELS, own, strict=True) if chance >= 0.5]
        assert list(reading.details["probabilities"].values()) == pytest.approx(own, abs=1e-5)
        held = [chance if label in row.labels else 1 - chance for label, chance in zip(LABELS, own, strict=True)]
        assert reading.loss == pytest.approx(-sum(np.log(held)) / 3, rel=1e-4)


def test_the_best_threshold_by_hand():
    """Probabilities .9 .6 .4 .2 with labels 1 0 1 0: giving the first three has F1 4/5, above 2/3, 1/2 and 2/3; so .3 it is."""
    assert best_threshold(np.array([0.4, 0.9, 0.2, 0.6]), np.array([True, True, False, False])) == pytest.approx(0.3)
    assert best_threshold(np.array([0.1, 0.2]), np.array([False, False])) == 0.5
    assert best_threshold(np.array([0.7, 0.7, 0.7]), np.array([True, False, True])) == pytest.approx(0.35)


@pytest.mark.parametrize(("threshold", "metric"), [("validation", MultiLabelMicroF1()), ("validation_each", MultiLabelMacroF1())])
def test_thresholds_chosen_on_validation_are_never_worse_there(threshold: str, metric: Metric):
    engine, objective, renderer = ready("bert", threshold=threshold)
    assert isinstance(engine.head, MultiLabelHead)
    rows = [LabelsRow(text=f"{'snow' if n % 2 else 'fir'} {n}", labels=("cold",) if n % 3 else ("green", "old")) for n in range(24)]
    wanted = [row.target_text() for row in rows]
    with engine.evaluating():
        before = metric.measure([one.text for one in objective.readings(engine, renderer, rows)], wanted)
        objective.calibrate(engine, renderer, rows)
        after = metric.measure([one.text for one in objective.readings(engine, renderer, rows)], wanted)
    assert engine.head.thresholds != (0.5, 0.5, 0.5)
    assert (len(set(engine.head.thresholds)) == 1) == (threshold == "validation")
    assert after > before
    fixed, plain, _ = ready("bert", threshold=0.3)
    plain.calibrate(fixed, renderer, rows)
    assert isinstance(fixed.head, MultiLabelHead)
    assert fixed.head.thresholds == (0.3, 0.3, 0.3)


def test_the_guess_is_the_most_frequent_set():
    guess = MultiLabelClassification().guess([*ROWS, LabelsRow(text="ice", labels=("cold",))])
    assert guess.answer(ROWS[0]) == '["cold"]'
