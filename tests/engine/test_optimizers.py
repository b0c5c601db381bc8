"""AdamW is torch's, and its state goes through plain tensors."""

import pytest
import torch
from torch.nn import Parameter

from tunewright.engine.optimizers import Optimizer
from tunewright.engine.settings import AdamW


def parameters() -> dict[str, Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: Parameter(torch.randn(shape, generator=generator))
        for name, shape in (("matrix", (4, 3)), ("vector", (5,)), ("idle", (2, 2)))
    }


def give_gradients(values: dict[str, Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for name, value in values.items():
        value.grad = None if name == "idle" else torch.randn(value.shape, generator=generator)


@pytest.mark.parametrize("settings", [AdamW(), AdamW(beta1=0.8, beta2=0.99, epsilon=1e-6, weight_decay=0.1)])
def test_updates_are_those_of_torch(settings: AdamW):
    ours, theirs = parameters(), parameters()
    optimizer = Optimizer(settings, ours)
    groups = [
        {"params": [theirs["matrix"], theirs["idle"]], "weight_decay": settings.weight_decay},
        {"params": [theirs["vector"]], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), eps=settings.epsilon)
    for step in range(5):
        for values in (ours, theirs):
            give_gradients(values, step)
        optimizer.update(0.01 * (step + 1))
        for group in reference.param_groups:
            group["lr"] = 0.01 * (step + 1)
        reference.step()
        assert all(value.grad is None for value in ours.values())
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-7, rtol=1e-6)


def test_state_goes_through_tensors():
    ours = parameters()
    optimizer = Optimizer(AdamW(), ours)
    assert optimizer.state() == {}
    give_gradients(ours, 0)
    optimizer.update(0.1)
    state = {name: value.clone() for name, value in optimizer.state().items()}
    assert set(state) == {f"{kind}/{name}" for kind in ("step", "exp_avg", "exp_avg_sq") for name in ("matrix", "vector")}
    again = {name: Parameter(value.detach().clone()) for name, value in ours.items()}
    other = Optimizer(AdamW(), again)
    other.restore(state)
    for values, one in ((ours, optimizer), (again, other)):
        give_gradients(values, 1)
        one.update(0.1)
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    assert all(torch.equal(optimizer.state()[name], other.state()[name]) for name in state)
    other.restore({})
    assert other.state() == {}


def test_a_restored_state_is_a_copy():
    ours = parameters()
    optimizer = Optimizer(AdamW(), ours)
    give_gradients(ours, 0)
    optimizer.update(0.1)
    state = {name: value.clone() for name, value in optimizer.state().items()}
    kept = {name: value.clone() for name, value in state.items()}
    optimizer.restore(state)
    give_gradients(ours, 1)
    optimizer.update(0.1)
    assert all(torch.equal(state[name], kept[name]) for name in state)
