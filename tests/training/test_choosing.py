"""What the machine decides, why, and that the estimate speaks of what will run."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.data.forest import Tree
from tunewright.engine import int8
from tunewright.engine.engine import Engine
from tunewright.engine.int8 import Int8Linear
from tunewright.engine.placement import Placement
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees
from tunewright.training import choosing
from tunewright.training.choosing import Chooser, Chosen, threads_for
from tunewright.training.estimate import Estimate
from tunewright.training.loop import ALONE, Plan
from tunewright.training.settings import Training

CPU = torch.device("cpu")
SETTLED: dict[str, Any] = {"learning_rate": 0.01, "epochs": 1.0, "batch_size": 8}


def bench(method: LoRA | Full | None = None, rows: int = 16, **training: Any) -> tuple[Engine, Training, Plan]:
    model = tiny("llama")
    engine = toy_engine(model, (method or LoRA(rank=2)).attach(model, 0))
    settings = Training(**SETTLED | training)
    trees: list[Tree] = toy_trees(model, rows)
    return engine, settings, Plan(trees, 8, settings.token_budget, 0, 4)


def decide(engine: Engine, settings: Training, plan: Plan) -> tuple[Chosen, Estimate]:
    return Chooser(engine, toy_loss, ALONE).decide(settings, plan, {"method.rank": "given"})


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[int]]:
    """Makes a machine on which passes of so many tokens fit (recomputed: so many times more); returns the sizes tried."""

    def crowd(fitting: int, gain: int) -> list[int]:
        real, tried = choosing.estimate, []

        def estimate(*args: Any) -> Estimate:
            budget = args[3].tokens
            tried.append(budget)
            allowed = fitting * (gain if args[5] is not None else 1)
            found = real(*args)
            return replace(found, activations=budget * 1000, peak=budget * 1000, available=allowed * 1000)

        monkeypatch.setattr(choosing, "estimate", estimate)
        return tried

    return crowd


def recomputed(engine: Engine) -> bool:
    return all("forward" in vars(block) for block in engine.model.blocks)


def test_a_narrow_base_on_an_empty_machine_stays_as_it_is():
    engine, settings, plan = bench()
    chosen, guess = decide(engine, settings, plan)
    assert chosen.reasons.keys() == {"method.rank", "training.precision"}
    assert "width 32" in chosen.reasons["training.precision"]
    assert (chosen.training.precision, chosen.training.checkpointing, chosen.training.compile) == ("float32", False, "off")
    assert chosen.training.token_budget == plan.token_budget
    assert not recomputed(engine)
    assert all(parameter.grad is None for parameter in engine.parameters.values())
    assert guess.tokens_per_second == pytest.approx(guess.tokens / guess.seconds)
    assert "tokens a second" in guess.speed()


def test_what_was_given_is_done_and_has_no_reason():
    engine, settings, plan = bench(precision="bfloat16", checkpointing=True, compile="off")
    chosen, _ = decide(engine, settings, plan)
    assert chosen.reasons.keys() == {"method.rank"}
    assert chosen.training == settings
    assert engine.precision == "bfloat16"
    assert recomputed(engine)


def test_smaller_passes_are_tried_before_recomputing(crowded: Callable[..., list[int]]):
    engine, settings, plan = bench(rows=320)
    plan, settings = replace(plan, batch_size=320), settings
    tried = crowded(900, 1)
    chosen, guess = decide(engine, settings, plan)
    assert chosen.training.token_budget == chosen.plan.token_budget
    assert 512 <= chosen.plan.token_budget <= 900
    assert chosen.reasons["training.token_budget"].startswith(f"{chosen.plan.token_budget}: passes of 2048 tokens")
    assert len(tried) == 2
    assert tried[0] > 900 >= tried[1]
    assert guess.peak <= guess.available
    assert chosen.training.checkpointing is False


@pytest.mark.parametrize(("given", "gain"), [({}, 100), ({"token_budget": 2048}, 100)])
def test_activations_are_recomputed_where_nothing_else_helps(crowded: Callable[..., list[int]], given: dict[str, int], gain: int):
    engine, settings, plan = bench(**given)
    crowded(10, gain)
    chosen, guess = decide(engine, settings, plan)
    assert chosen.training.checkpointing is True
    assert chosen.training.token_budget == 2048
    assert "training.token_budget" not in chosen.reasons
    assert chosen.reasons["training.checkpointing"].startswith("true: ")
    assert recomputed(engine)
    assert guess.peak <= guess.available


def test_what_is_forbidden_is_not_done(crowded: Callable[..., list[int]]):
    engine, settings, plan = bench(token_budget=2048, checkpointing=False)
    crowded(10, 100)
    chosen, guess = decide(engine, settings, plan)
    assert chosen.training.checkpointing is False
    assert not recomputed(engine)
    assert guess.peak > guess.available  # the caller refuses it


@pytest.mark.parametrize(("speedup", "wanted"), [(3.0, "bfloat16"), (1.1, "float32")])
def test_precision_is_that_of_a_measured_step(speedup: float, wanted: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tunewright.engine.precision.NARROW", 1)
    monkeypatch.setattr(choosing, "measured_speedup", lambda width: 4.0)
    monkeypatch.setattr(Chooser, "_step_speedup", lambda self, plan: speedup)
    monkeypatch.setattr(choosing, "remembered", lambda of, measure: measure())
    engine, settings, plan = bench()
    chosen, _ = decide(engine, settings, plan)
    assert chosen.training.precision == engine.precision == wanted
    assert f"{speedup:.2f}x" in chosen.reasons["training.precision"]


def test_a_step_is_really_timed_and_leaves_nothing_behind():
    engine, _, plan = bench()
    before = {name: value.clone() for name, value in engine.model.network.state_dict().items()}
    assert 0.05 < Chooser(engine, toy_loss, ALONE)._step_speedup(plan) < 20
    assert engine.precision == "float32"
    assert all(torch.equal(value, before[name]) for name, value in engine.model.network.state_dict().items())
    assert all(parameter.grad is None for parameter in engine.parameters.values())


def test_the_first_process_decides_for_all():
    class Led(Placement):
        def tell(self, value: Any) -> Any:
            return ["bfloat16", "the first one says so"] if isinstance(value, list) else value

    engine, settings, plan = bench()
    chosen, _ = Chooser(engine, toy_loss, Led()).decide(settings, plan, {})
    assert chosen.training.precision == "bfloat16"
    assert chosen.reasons["training.precision"] == "the first one says so"


def test_an_int8_base_is_made_checked_and_explained(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(int8, "has_vnni", lambda: True)
    monkeypatch.setattr(choosing, "quantise", lambda *args: int8.quantise(*args, smallest=1))
    engine, settings, plan = bench(base_precision="int8")
    whole = sum(parameter.numel() for parameter in engine.model.network.parameters())
    chosen, guess = decide(engine, settings, plan)
    assert "cosine 0.99" in chosen.reasons["training.base_precision"]
    assert sum(isinstance(module, Int8Linear) for module in engine.model.network.modules()) == 14
    assert guess.parameters == whole


@pytest.mark.parametrize(("method", "vnni", "words"), [(Full(), True, "none of the 0 frozen"), (LoRA(rank=2), False, "no VNNI")])
def test_an_int8_base_that_does_not_serve_is_refused(method, vnni: bool, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(int8, "has_vnni", lambda: vnni)
    with pytest.raises(ConfigurationError, match=words):
        decide(*bench(method, base_precision="int8"))


def test_compiling_that_fails_is_given_up_with_its_reason(monkeypatch: pytest.MonkeyPatch):
    taken_off = []

    class Broken:
        def __init__(self, model: object) -> None:
            self.model = model

        def remove(self) -> None:
            taken_off.append(self)

    def fail(self: Chooser, batch: object) -> float:
        raise RuntimeError("no compiler was found\nand more")

    monkeypatch.setattr(choosing, "Compiled", Broken)
    monkeypatch.setattr(choosing, "worth_compiling", lambda *args: (True, "on"))
    monkeypatch.setattr(Chooser, "_seconds", fail)
    engine, settings, plan = bench()
    chosen, _ = decide(engine, settings, plan)
    assert chosen.training.compile == "off"
    assert len(taken_off) == 1
    engine, settings, plan = bench(compile="on")
    chosen, _ = decide(engine, settings, plan)
    assert chosen.training.compile == "on"  # asked for, so that a failure is the user's to see
    assert len(taken_off) == 1


def test_threads_are_set_and_explained(monkeypatch: pytest.MonkeyPatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(choosing, "choose_threads", lambda width, most: (1, f"1: width {width}"))
    try:
        assert threads_for(None, 640, CPU, ALONE) == {"threads": "1: width 640"}
        assert torch.get_num_threads() == 1
        assert threads_for(3, 640, CPU, ALONE) == {}
        assert threads_for(None, 640, torch.device("cuda"), ALONE) == {}
    finally:
        torch.set_num_threads(before)
