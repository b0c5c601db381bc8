"""The estimate: numbers of the right size from real passes, and a refusal that says what would fit."""

import inspect
from dataclasses import replace

import pytest

from tunewright.core.errors import DoesNotFitError
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees
from tunewright.training import estimate as room
from tunewright.training.estimate import Estimate, Work, refuse_if_too_large


def guess(method=None, count: int = 8, family: str = "llama") -> Estimate:
    model = tiny(family)
    engine = toy_engine(model, (method or LoRA(rank=4)).attach(model, 0))
    small, largest = engine.collate(toy_trees(model, 1)), engine.collate(toy_trees(model, count))
    found = room.estimate(engine, toy_loss, small, largest, Work(10, 1000))
    assert all(parameter.grad is None for parameter in engine.parameters.values())
    assert engine.accumulated.count == 0
    return found


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_numbers_are_sane(family: str):
    found = guess(family=family)
    model = tiny(family)
    size = sum(parameter.numel() for parameter in model.network.parameters())
    extra = LoRA(rank=4).attach(model, 0).count()
    assert found.trainable == extra + (2 * model.width + 2 if family == "bert" else 0)
    assert found.parameters >= size + extra
    assert found.training == 16 * found.trainable
    assert 0 < found.activations < 50_000_000
    assert found.held <= found.peak < found.available
    assert 0 < found.seconds < 600
    assert (found.steps, found.tokens) == (10, 1000)
    assert found.as_dict()["peak"] == found.peak
    assert "10 steps, 1" in found.sentence()
    refuse_if_too_large(found, 2048)


def test_more_rows_keep_more_and_less_is_trained_than_held():
    assert guess(count=32).activations > 2 * guess(count=8).activations
    assert guess(Full()).training > guess().training
    assert "trained" in guess().sentence()


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        (
            {"available": 2_000, "held": 1_000, "training": 500, "activations": 1_000, "peak": 2_500},
            r"token_budget: \d+` would fit",
        ),
        (
            {"available": 1_200, "held": 1_000, "training": 500, "activations": 100, "peak": 1_600},
            "Use a smaller base, `method: lora`",
        ),
    ],
)
def test_what_cannot_fit_is_refused_with_what_would(changes: dict, hint: str):
    with pytest.raises(DoesNotFitError, match=hint) as found:
        refuse_if_too_large(replace(guess(), **changes), 2048)
    assert "this machine can give" in str(found.value)
    assert found.value.exit_code == 2


def test_the_hinted_budget_is_smaller():
    with pytest.raises(DoesNotFitError) as found:
        refuse_if_too_large(replace(guess(), available=2_000, held=1_000, training=500, activations=1_000, peak=2_500), 2048)
    assert "`training.token_budget: 1024` would fit" in str(found.value)
    assert "checkpointing" in inspect.getsource(refuse_if_too_large)
