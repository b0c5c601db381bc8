"""Regression: the contract, parity with transformers, scales, Huber's loss by hand."""

import pytest
import torch
from transformers import BertForSequenceClassification

from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import LabelRow, NumberRow, Row
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.models import Model
from tunewright.models.heads.regression import RegressionHead
from tunewright.objectives import Objective
from tunewright.objectives.regression import Regression
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import WIDTH, tiny

from .parity import assert_same_gradients, body_of, own_gradients

ROWS = tuple(
    NumberRow(text=text, values=(value, -value)) for text, value in (("a", 1.0), ("a fir", 3.0), ("an old fir", 5.0), ("x", 3.0))
)
NAMED = ("number 1", "number 2")


class TestRegression(ObjectiveContract):
    objective = Regression()
    rows = ROWS
    useless = (LabelRow(text="x", label="y", where="a:1"), NumberRow(text="one target", values=(1.0,), where="a:2"))
    families = ("llama", "gpt2", "bert")

    def resolved(self, model: Model) -> Objective:
        return self.objective.decided(model.kind, self.rows)

    def labels(self) -> tuple[str, ...]:
        return NAMED


class TestHuber(TestRegression):
    objective = Regression(error="huber", delta=0.5)
    families = ("bert",)


def test_loss_and_gradients_are_those_of_transformers():
    """`BertForSequenceClassification(problem_type="regression")`: the same numbers where mean is 0 and deviation 1."""
    reference = BertForSequenceClassification(body_of("bert", num_labels=2, problem_type="regression")).eval()
    model = tiny("bert")
    reference.bert.load_state_dict(model.network.state_dict(), strict=False)
    head = RegressionHead(WIDTH, NAMED, torch.Generator().manual_seed(0), pooling="first", hidden=WIDTH)
    reference.bert.pooler.dense.load_state_dict(head.dense.state_dict())
    reference.classifier.load_state_dict(head.output.state_dict())
    objective = Regression(pooling="first", means=(0.0, 0.0), deviations=(1.0, 1.0)).decided("encoder", ROWS)
    trees = [item.tree for item in objective.plant(ROWS, Renderer(model.tokenizer, model.kind, model.context))]
    loss = own_gradients(Engine(model, probed=probe(model), head=head), objective, trees)
    inputs = model.tokenizer([row.text for row in ROWS], padding=True, return_tensors="pt")
    theirs = reference(**inputs, labels=torch.tensor([row.values for row in ROWS])).loss
    theirs.backward()
    assert loss == pytest.approx(float(theirs.detach()), rel=1e-5)
    pairs = {"output": (head.output, reference.classifier), "dense": (head.dense, reference.bert.pooler.dense)}
    assert_same_gradients(pairs | {"body": (model.network, reference.bert)}, 12)


def test_the_scale_is_that_of_the_training_rows():
    """1, 3, 5, 3: mean 3, and the mean square of -2, 0, 2, 0 is 2."""
    found = Regression().decided("decoder", ROWS)
    assert (found.targets, found.pooling) == (NAMED, "last")
    assert found.means == pytest.approx((3.0, -3.0))
    assert found.deviations == pytest.approx((2**0.5, 2**0.5))
    again = found.decided("decoder", ROWS[:1])  # a resumed run does not measure again
    assert (again.means, again.deviations) == (found.means, found.deviations)
    rows = [NumberRow(text=text, values=(value, 2 * value), names=("price", "size")) for text, value in (("x", 1), ("z", 4))]
    named = Regression().decided("encoder", rows)
    assert named.targets == ("price", "size")


def test_nothing_to_predict_is_an_error():
    flat: list[Row] = [NumberRow(text=text, values=(7.0,), where="a.csv:2") for text in "abc"]
    with pytest.raises(DataError, match="every training row has the same number"):
        Regression().decided("encoder", flat)
    with pytest.raises(ConfigurationError, match="not offered on an encoder-decoder"):
        Regression().decided("encoder_decoder", ROWS)


@pytest.mark.parametrize(("error", "wanted"), [("squared", 4.0), ("huber", 0.5 * (2 - 0.25))])
def test_an_error_of_two_deviations_by_hand(error: str, wanted: float):
    """Squared: 2^2. Huber with delta 1/2: delta (|e| - delta / 2) = 0.5 (2 - 0.25)."""
    model = tiny("bert")
    objective = Regression(error=error, delta=0.5, targets=("y",), means=(10.0,), deviations=(3.0,)).decided("encoder", [])
    head = objective.make_head(model, ("y",), 0)
    torch.nn.init.zeros_(head.output.weight)  # it answers the mean, 10
    engine, renderer = Engine(model, probed=probe(model), head=head), Renderer(model.tokenizer, model.kind, model.context)
    row = NumberRow(text="far", values=(16.0,))
    trees = [item.tree for item in objective.plant([row], renderer) if not isinstance(item, Refusal)]
    total, count = objective.loss(engine, engine.collate(trees))
    assert float(total.detach()) == pytest.approx(wanted)
    assert float(count) == 1
    with engine.evaluating():
        (reading,) = objective.readings(engine, renderer, [row])
    assert (reading.text, reading.details) == ("10", {"numbers": {"y": 10.0}})
    assert reading.loss == pytest.approx(wanted)
    assert objective.guess([row]).answer(row) == "10"
    assert objective.readings(engine, renderer, [objective.asked("any text")])[0].loss is None
