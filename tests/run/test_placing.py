"""Where weights stand when there are several processes: what is chosen, what is refused, what it saves."""

from __future__ import annotations

import pytest

from tunewright.core.errors import ConfigurationError
from tunewright.core.surroundings import Process
from tunewright.engine.placement import Placement
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.run.placing import _divided, idle, place
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_trees
from tunewright.training.estimate import Estimate
from tunewright.training.loop import Plan

TWO = Placement(Process(0, 2))


def guess(peak: int = 900) -> Estimate:
    memory = {"held": 200, "training": 400, "activations": 300, "peak": peak, "available": 1000}
    return Estimate(parameters=50, trainable=50, **memory, tokens=1, steps=1, seconds=1.0)


@pytest.mark.parametrize("method", [LoRA(rank=2), Full()])
@pytest.mark.parametrize("asked", ["auto", "replicate"])
def test_what_fits_is_replicated(method, asked: str):
    model = tiny("llama")
    tuning = method.attach(model, 0)
    placement, found, why = place(asked, TWO, toy_engine(model, tuning), tuning, guess())
    assert placement is TWO
    assert found == guess()
    assert why.startswith("replicate: ")


def test_one_process_has_no_choice():
    model = tiny("llama")
    tuning = Full().attach(model, 0)
    alone = Placement()
    assert place("shard", alone, toy_engine(model, tuning), tuning, guess()) == (alone, guess(), "")


def test_an_adapter_is_not_divided():
    model = tiny("llama")
    tuning = LoRA(rank=2).attach(model, 0)
    engine = toy_engine(model, tuning)
    with pytest.raises(ConfigurationError, match="placement: only weights of the base are divided over processes, not adapters"):
        place("shard", TWO, engine, tuning, guess())
    assert place("auto", TWO, engine, tuning, guess(2000))[0] is TWO
    with pytest.raises(ValueError, match="LoRATuning is not divided"):
        tuning.moved(engine.parameters)


def test_dividing_saves_weights_and_what_training_adds():
    found = _divided(guess(), 2)
    assert found.training == 200
    assert found.peak == 900 - 200 - 4 * 50 // 2
    assert found.activations == 300


@pytest.mark.parametrize(("budget", "warned"), [(1000, True), (16, False)])
def test_processes_without_work_are_warned_of(budget: int, warned: bool):
    plan = Plan(toy_trees(tiny("llama"), 8), 4, budget, 0, 4)
    found = idle(plan, TWO)
    assert bool(found) == warned
    assert idle(plan, Placement()) == []
    if found:
        tokens = int(found[0].split("token_budget: ")[1].split("`")[0])
        assert len(Plan(plan.trees, 4, tokens, 0, 4).micro_batches(0)) >= 2
