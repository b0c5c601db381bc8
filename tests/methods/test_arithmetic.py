"""Arithmetic on weights against the formulas, with exact ends."""

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.methods import Tuning
from tunewright.methods._arithmetic import Sum, between
from tunewright.methods.full import Full
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import outputs, toy_engine, toy_trees, train


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_between_is_exact_at_both_ends(kind: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    start, end = (torch.randn(50, generator=draw).to(kind) for _ in range(2))
    assert torch.equal(between(start, end, 0.0), start)
    assert torch.equal(between(start, end, 1.0), end)
    half = between(start, end, 0.25)
    assert half.dtype == kind
    torch.testing.assert_close(half.double(), 0.75 * start.double() + 0.25 * end.double(), rtol=8e-3, atol=1e-3)


def named(network) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in network.named_parameters()}


def test_a_sum_of_changes_is_the_formula() -> None:
    base = {name: torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) for seed, name in enumerate("abc")}
    one = {**base, "a": base["a"] + 1.0}
    two = {**base, "a": base["a"] * 2, "b": base["b"] - 0.5}
    total = Sum(base)
    total.add(one, 0.5)
    total.add(two, -1.0)
    into = {name: torch.zeros(3, 4) for name in base}
    total.put(into)
    torch.testing.assert_close(into["a"], base["a"] + 0.5 * 1.0 - 1.0 * base["a"])
    torch.testing.assert_close(into["b"], base["b"] + 0.5)
    assert torch.equal(into["c"], base["c"])
    assert total.changed() == 2


def test_a_task_that_is_added_and_taken_away_is_the_base() -> None:
    base, tuned = tiny("llama"), tiny("llama")
    train(toy_engine(tuned, Full().attach(tuned, 0)), toy_trees(tuned), 3)
    total = Sum(named(base.network))
    total.add(named(tuned.network), 1.0)
    total.add(named(tuned.network), -1.0)
    wanted = outputs(base, toy_trees(base))
    assert not torch.equal(outputs(tuned, toy_trees(base)), wanted)
    total.put(named(tuned.network))
    assert torch.equal(outputs(tuned, toy_trees(base)), wanted)


@pytest.mark.parametrize(
    ("tuned", "name"), [({"a": torch.zeros(2)}, "'b'"), ({"a": torch.zeros(3), "b": torch.zeros(2)}, "'a'"), ({}, "'a'")]
)
def test_weights_of_another_base_are_not_added(tuned: dict[str, torch.Tensor], name: str) -> None:
    total = Sum({"a": torch.zeros(2), "b": torch.zeros(2)})
    with pytest.raises(BaseModelError, match=f"mine: is no tuning of this base: {name} is not the same weight"):
        total.add(tuned, 1.0, "mine")
    assert total.changed() == 0


def test_what_has_no_size_says_so() -> None:
    class Prompt(Tuning):
        parameters = disabled = merge = save = load = None  # type: ignore[assignment]

    with pytest.raises(ConfigurationError, match="Prompt is no change whose size can be set"):
        Prompt().interpolate(0.5)


def test_a_full_tuning_goes_towards_the_base_and_is_off_within_itself() -> None:
    model, trees = tiny("gpt2"), toy_trees(tiny("gpt2"))
    base, start = outputs(model, trees), {name: value.clone() for name, value in named(model.network).items()}
    tuning = Full().attach(model, 0)
    train(toy_engine(model, tuning), trees, 3)
    tuned = {name: value.clone() for name, value in named(model.network).items()}
    with tuning.disabled(), tuning.disabled():
        assert torch.equal(outputs(model, trees), base)
    tuning.interpolate(0.25)
    for name, value in named(model.network).items():
        torch.testing.assert_close(value, start[name] + 0.25 * (tuned[name] - start[name]))
    tuning.interpolate(0.0)
    assert torch.equal(outputs(model, trees), base)
