"""What is left open is decided, always with a reason, and never over what was given."""

import pytest

from tunewright.core.errors import ConfigurationError
from tunewright.methods.full import Full
from tunewright.methods.head import Head
from tunewright.methods.lora import LoRA
from tunewright.methods.selective import Selective
from tunewright.objectives.dpo import DPO
from tunewright.training.settings import Training
from tunewright.training.settle import settle, total_steps


@pytest.mark.parametrize(
    ("rows", "batch", "epochs"), [(1, 8, 10), (199, 8, 10), (200, 16, 6), (1_000, 16, 4), (5_000, 32, 2), (20_000, 32, 1)]
)
def test_batches_and_epochs_follow_the_rows(rows: int, batch: int, epochs: int):
    found = settle(Training(), LoRA(), rows=rows, parameters=100_000_000)
    assert found.training.batch_size == batch
    assert found.training.epochs == epochs
    assert f"{rows} training rows" in found.reasons["training.batch_size"]
    assert "early stopping" in found.reasons["training.epochs"]
    assert 10 <= total_steps(found.training, rows) <= 1500


@pytest.mark.parametrize(
    ("parameters", "method", "rate"),
    [
        (100_000_000, LoRA(), 1e-3),
        (100_000_000, Full(), 5e-5),
        (100_000_000, Head(), 9e-3),
        (800_000_000, LoRA(), 5e-4),
        (10**12, LoRA(), 2.5e-4),
        (1, LoRA(), 4e-3),
        (12_500_000, LoRA(), 2e-3),
        (12_500_000, Full(), 2e-4),  # by the power 2/3 below 100 million, and by 1/3 above
        (800_000_000, Full(), 2.5e-5),
        (12_500_000, Selective(), 4e-4),
        (1, Full(), 8e-4),
    ],
)
def test_the_rate_follows_method_and_size(parameters: int, method, rate: float):
    found = settle(Training(), method, rows=100, parameters=parameters)
    assert found.training.learning_rate == pytest.approx(rate)
    assert type(method).__name__ in found.reasons["training.learning_rate"]


def test_an_objective_on_pairs_takes_smaller_steps_unless_a_rate_is_given():
    found = settle(Training(), LoRA(), rows=100, parameters=100_000_000, pace=DPO().pace)
    assert found.training.learning_rate == pytest.approx(0.1 * LoRA.default_learning_rate)
    assert "times 0.1 for the objective" in found.reasons["training.learning_rate"]
    given = settle(Training(learning_rate=3e-4), LoRA(), rows=100, parameters=100_000_000, pace=DPO().pace)
    assert given.training.learning_rate == 3e-4


@pytest.mark.parametrize("method", [Full(), LoRA(), Head()])
def test_a_new_head_learns_at_a_rate_of_its_own_whatever_the_method(method):
    found = settle(Training(), method, rows=100, parameters=100_000_000, new_head=True)
    assert found.training.head_learning_rate == Head.default_learning_rate
    assert found.training.learning_rate == pytest.approx(method.default_learning_rate * method.rate_under_new_head)
    assert ("under a new head" in found.reasons["training.learning_rate"]) == (method.rate_under_new_head != 1)
    assert "a new head" in found.reasons["training.head_learning_rate"]
    assert settle(Training(), method, rows=100, parameters=100_000_000).training.head_learning_rate is None


def test_a_rate_that_is_given_for_the_body_leaves_the_head_its_own_unless_nothing_else_is_trained():
    given = Training(learning_rate=1e-5)
    assert settle(given, Full(), rows=9, parameters=800_000_000, new_head=True).training.head_learning_rate == 4.5e-3
    assert settle(given, Head(), rows=9, parameters=800_000_000, new_head=True).training.head_learning_rate == 1e-5
    both = Training(learning_rate=1e-5, head_learning_rate=2e-5)
    found = settle(both, Full(), rows=9, parameters=1, new_head=True)
    assert found.training.head_learning_rate == 2e-5
    assert "training.head_learning_rate" not in found.reasons


def test_a_rate_for_a_head_that_is_not_there_is_refused():
    with pytest.raises(ConfigurationError, match=r"training.head_learning_rate: there is no new head"):
        settle(Training(head_learning_rate=1e-3), LoRA(), rows=9, parameters=1)


def test_what_was_given_stays_and_needs_no_reason():
    given = Training(learning_rate=0.01, batch_size=3, epochs=2.5)
    found = settle(given, LoRA(rank=5), rows=1000, parameters=1)
    assert found.training == given
    assert found.method == LoRA(rank=5)
    assert found.reasons == {}
    again = settle(*settle(Training(), LoRA(), rows=50, parameters=10**8)[:2], rows=9999, parameters=1)
    assert again.reasons == {}  # settled settings settle nothing more: a resumed run keeps its own


@pytest.mark.parametrize(
    ("settings", "rows", "steps"),
    [
        ({"epochs": 2, "batch_size": 4}, 10, 6),
        ({"epochs": 0.1, "batch_size": 4}, 10, 1),
        ({"epochs": 1.5, "batch_size": 4}, 10, 5),
        ({"max_steps": 7, "batch_size": 4}, 10, 7),
        ({"epochs": 100, "max_steps": 7, "batch_size": 4}, 10, 7),
        ({"epochs": 1, "max_steps": 7, "batch_size": 4}, 10, 3),
        ({"epochs": 3, "batch_size": 100}, 1, 3),
    ],
)
def test_steps_of_the_whole_run(settings: dict, rows: int, steps: int):
    assert total_steps(Training(**settings), rows) == steps


def test_steps_alone_are_enough():
    found = settle(Training(max_steps=5), LoRA(), rows=10, parameters=1)
    assert found.training.epochs is None
    assert "training.epochs" not in found.reasons
