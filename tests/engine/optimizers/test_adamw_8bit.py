"""8-bit moments: torchao's where it is installed; what is asked of it, and what is said without it, everywhere."""

import sys
import types
from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from torch.nn import Parameter

from tunewright.core.errors import MissingExtraError
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.settings import AdamW

SETTINGS = AdamW(name="adamw_8bit", weight_decay=0.1, learning_rate_ratio=4)


def parameters() -> dict[str, Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"large.weight": (64, 128), "q.lora_B.weight": (64, 64), "vector": (5,), "idle": (2, 2)}
    return {name: Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def give_gradients(values: dict[str, Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for name, value in values.items():
        value.grad = None if name == "idle" else torch.randn(value.shape, generator=generator)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(MissingExtraError, match=r"training.optimizer.name: .*'torchao'.*pip install 'tunewright\[torchao\]'"):
        Optimizer(SETTINGS, parameters())


class StandIn(torch.optim.AdamW):
    """torch's AdamW with torchao's signature: its rates are tensors, and its moments can be made to fail."""

    failing = False

    def __init__(self, groups: list, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__([{**group, "lr": torch.tensor(lr)} for group in groups], betas=betas, eps=eps)

    def step(self) -> None:
        if self.failing:
            raise TorchDynamoException("no compiler\nand a page of what follows")
        super().step()

    def _new_buffer(self, parameter: Parameter, signed: bool) -> torch.Tensor:
        return torch.zeros_like(parameter)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StandIn]]:
    package, module = types.ModuleType("torchao"), types.ModuleType("torchao.optim")
    module.AdamW8bit = StandIn
    monkeypatch.setitem(sys.modules, "torchao", package)
    monkeypatch.setitem(sys.modules, "torchao.optim", module)
    yield StandIn
    StandIn.failing = False


def test_rates_decay_and_state_are_handed_over(stand_in: type[StandIn]):
    ours, theirs = parameters(), parameters()
    optimizer, plain = Optimizer(SETTINGS, ours), Optimizer(SETTINGS.model_copy(update={"name": "adamw"}), theirs)
    for step in range(3):
        for values, one in ((ours, optimizer), (theirs, plain)):
            give_gradients(values, step)
            assert len(one.gradients()) <= 3
            one.update(0.01 * (step + 1))
            assert all(value.grad is None for value in values.values())
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-5)
    state = {name: value.clone() for name, value in optimizer.state().items()}
    assert set(state) == set(plain.state())
    again = Optimizer(SETTINGS, ours)
    again.restore(state)
    assert all(torch.equal(value, again.state()[name]) for name, value in state.items())


def test_a_failing_compiler_is_explained(stand_in: type[StandIn]):
    ours = parameters()
    optimizer = Optimizer(SETTINGS, ours)
    give_gradients(ours, 0)
    stand_in.failing = True
    with pytest.raises(MissingExtraError, match=r"torch.compile failed here: no compiler. Install a C\+\+ compiler"):
        optimizer.update(0.1)


def test_torchao_itself():
    pytest.importorskip("torchao.optim", reason="torchao is an optional package")
    ours, theirs = parameters(), parameters()
    optimizer, plain = Optimizer(SETTINGS, ours), Optimizer(SETTINGS.model_copy(update={"name": "adamw"}), theirs)
    before = {name: value.detach().clone() for name, value in ours.items()}
    with torch.compiler.set_stance("force_eager"):  # compiling it takes half a minute
        for step in range(4):
            for values, one in ((ours, optimizer), (theirs, plain)):
                give_gradients(values, step)
                one.update(0.01)
        for name in ours:
            moved, apart = (theirs[name] - before[name]).detach(), (ours[name] - theirs[name]).detach()
            assert float(apart.norm()) <= 0.05 * float(moved.norm())
        assert torch.equal(ours["idle"], before["idle"])
        state = {name: value.clone() for name, value in optimizer.state().items()}
        assert state["exp_avg.codes/large.weight"].dtype == torch.uint8
        assert state["exp_avg/vector"].dtype == torch.float32
        assert not any("idle" in name for name in state)
        assert sum(value.nbytes for name, value in state.items() if name.endswith("/large.weight")) < 2.1 * 64 * 128
        again = {name: Parameter(value.detach().clone()) for name, value in ours.items()}
        other = Optimizer(SETTINGS, again)
        other.restore(state)
        for values, one in ((ours, optimizer), (again, other)):
            give_gradients(values, 9)
            one.update(0.01)
    assert all(torch.equal(ours[name], again[name]) for name in ours)
