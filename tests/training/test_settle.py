"""What is left open is decided, always with a reason, and never over what was given."""

import pytest

from tunewright.methods.full import Full
from tunewright.methods.head import Head
from tunewright.methods.lora import LoRA
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
        (100_000_000, Head(), 3e-3),
        (800_000_000, LoRA(), 5e-4),
        (10**12, LoRA(), 2.5e-4),
        (1, LoRA(), 4e-3),
    ],
)
def test_the_rate_follows_method_and_size(parameters: int, method, rate: float):
    found = settle(Training(), method, rows=100, parameters=parameters)
    assert found.training.learning_rate == pytest.approx(rate)
    assert type(method).__name__ in found.reasons["training.learning_rate"]


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
