"""AdamW is torch's, bit for bit, and its state goes through plain tensors."""

import pytest
import torch
from torch.nn import Parameter

from tunewright.engine import flat
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.settings import AdamW

SETTINGS = [AdamW(), AdamW(beta1=0.8, beta2=0.99, epsilon=1e-6, weight_decay=0.1)]
SHAPES = {
    "matrix": (4, 12),
    "large": (9, 48),
    "odd": (7, 5),  # never in a buffer
    "vector": (16,),
    "idle": (2, 8),
    "block.lora_A.weight": (2, 24),
    "block.lora_B.weight": (24, 2),
}


def parameters(names: tuple[str, ...] = tuple(SHAPES), seed: int = 0) -> dict[str, Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {name: Parameter(torch.randn(SHAPES[name], generator=generator)) for name in names}


def give_gradients(values: dict[str, Parameter], step: int, without: tuple[str, ...] = ("idle",)) -> None:
    generator = torch.Generator().manual_seed(step)
    for name, value in values.items():
        gradient = torch.randn(value.shape, generator=generator)
        value.grad = None if name in without else gradient


def reference(settings: AdamW, values: dict[str, Parameter], ratio: float = 1.0) -> torch.optim.AdamW:
    """torch's own, on separate tensors; a group's `share` is what its rate is multiplied by."""
    groups = []
    for name, value in values.items():
        decay = settings.weight_decay if value.ndim > 1 else 0.0
        groups.append({"params": [value], "weight_decay": decay, "share": ratio if "lora_B" in name else 1.0})
    return torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), eps=settings.epsilon, fused=True)


def step_of(adamw: torch.optim.AdamW, rate: float) -> None:
    for group in adamw.param_groups:
        group["lr"] = rate * group["share"]
    adamw.step()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("largest", [0, 50, flat.LARGEST], ids=["alone", "mixed", "together"])
def test_updates_are_those_of_torch(settings: AdamW, largest: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flat, "LARGEST", largest)
    ours, theirs = parameters(), parameters()
    optimizer, adamw = Optimizer(settings, ours), reference(settings, theirs)
    for step in range(5):
        for values in (ours, theirs):
            give_gradients(values, step)
        optimizer.update(0.01 * (step + 1))
        step_of(adamw, 0.01 * (step + 1))
        assert all(value.grad is None for value in ours.values())
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    state = optimizer.state()
    assert {name: state[f"exp_avg_sq/{name}"].shape for name in ours if name != "idle"} == {
        name: adamw.state[one]["exp_avg_sq"].shape for name, one in theirs.items() if name != "idle"
    }
    for name, one in theirs.items():
        for kind, value in adamw.state[one].items():
            assert torch.equal(state[f"{kind}/{name}"], value)


def test_what_gets_no_gradient_is_left_alone():
    """Each step leaves out another one: no decay, no moments, no count for it, as in torch."""
    settings = SETTINGS[1]
    ours, theirs = parameters(), parameters()
    optimizer, adamw = Optimizer(settings, ours), reference(settings, theirs)
    for step, without in enumerate((("matrix",), (), ("large", "vector"), ("block.lora_A.weight", "idle"), ())):
        for values in (ours, theirs):
            give_gradients(values, step, without)
        held = ours[without[0]].detach().clone() if without else None
        optimizer.update(0.05)
        step_of(adamw, 0.05)
        assert held is None or torch.equal(ours[without[0]], held)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [int(optimizer.state()[f"step/{name}"]) for name in SHAPES] == [4, 4, 5, 4, 4, 4, 5]


def test_learning_rate_ratio_is_that_of_parameter_groups():
    settings = AdamW(learning_rate_ratio=16, weight_decay=0.1)
    ours, theirs = parameters(), parameters()
    optimizer, adamw = Optimizer(settings, ours), reference(settings, theirs, 16)
    for step in range(4):
        for values in (ours, theirs):
            give_gradients(values, step)
        optimizer.update(1e-2)
        step_of(adamw, 1e-2)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    plain = parameters()
    one = Optimizer(AdamW(weight_decay=0.1), plain)
    for step in range(4):
        give_gradients(plain, step)
        one.update(1e-2)
    assert [name for name in ours if not torch.equal(ours[name], plain[name])] == ["block.lora_B.weight"]


@pytest.mark.parametrize("largest", [0, 50, flat.LARGEST])
def test_gradients_are_one_thing_by_two_names(largest: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flat, "LARGEST", largest)
    ours, theirs = parameters(), parameters()
    optimizer, adamw = Optimizer(AdamW(), ours), reference(AdamW(), theirs)
    for values in (ours, theirs):
        give_gradients(values, 0)
    gathered = optimizer.gradients()
    assert len(gathered) == {0: 6, 50: 4}.get(largest, 3)
    torch._foreach_mul_(gathered, 0.25)
    for name, one in theirs.items():
        if one.grad is not None:
            one.grad.mul_(0.25)
            assert torch.equal(ours[name].grad, one.grad)
    together = torch.nn.utils.get_total_norm(gathered)
    torch.testing.assert_close(
        together, torch.nn.utils.get_total_norm([one.grad for one in theirs.values() if one.grad is not None])
    )
    optimizer.update(0.1)
    step_of(adamw, 0.1)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("largest", [0, 50, flat.LARGEST])
def test_state_goes_through_tensors(largest: int, monkeypatch: pytest.MonkeyPatch):
    ours = parameters()
    optimizer = Optimizer(AdamW(), ours)
    assert optimizer.state() == {}
    give_gradients(ours, 0)
    optimizer.update(0.1)
    state = {name: value.clone() for name, value in optimizer.state().items()}
    assert set(state) == {f"{kind}/{name}" for kind in ("step", "exp_avg", "exp_avg_sq") for name in SHAPES if name != "idle"}
    assert all(value.dtype == torch.float32 for value in state.values())
    again = {name: Parameter(value.detach().clone()) for name, value in ours.items()}
    monkeypatch.setattr(flat, "LARGEST", largest)  # where moments stand is no part of the state
    other = Optimizer(AdamW(), again)
    other.restore(state)
    for values, one in ((ours, optimizer), (again, other)):
        give_gradients(values, 1, ())
        one.update(0.1)
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    assert all(torch.equal(value, other.state()[name]) for name, value in optimizer.state().items())
    other.restore({})
    assert other.state() == {}
    for values, one in ((ours, Optimizer(AdamW(), ours)), (again, other)):  # nothing is left of the moments either
        give_gradients(values, 2, ())
        one.update(0.1)
    assert all(torch.equal(ours[name], again[name]) for name in ours)


def test_a_state_that_torch_wrote_is_read():
    ours, theirs = parameters(), parameters()
    adamw = reference(AdamW(), theirs)
    for step in range(2):
        give_gradients(theirs, step)
        step_of(adamw, 0.1)
    optimizer = Optimizer(AdamW(), ours)
    optimizer.restore({f"{kind}/{name}": value for name, one in theirs.items() for kind, value in adamw.state[one].items()})
    with torch.no_grad():
        for name, one in ours.items():
            one.copy_(theirs[name])  # as a checkpoint is put back
    for values in (ours, theirs):
        give_gradients(values, 2)
    optimizer.update(0.1)
    step_of(adamw, 0.1)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


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


def test_two_tunings_have_nothing_in_common():
    first, second = parameters(), parameters(seed=1)
    one, two = Optimizer(AdamW(), first), Optimizer(AdamW(), second)
    before = {name: value.detach().clone() for name, value in second.items()}
    give_gradients(first, 0)
    one.update(0.1)
    assert two.state() == {}
    assert all(torch.equal(second[name], before[name]) for name in second)


def test_a_tied_head_and_a_network_learn_as_before():
    """Through a real network: a tensor used in two places, one not used at all, several backward passes before a step."""
    torch.manual_seed(0)
    networks = [torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 8)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    for network in networks:
        network[2].weight = network[0].weight
        network[1].extra = Parameter(torch.ones(2, 8))
    ours, theirs = (dict(network.named_parameters()) for network in networks)
    optimizer, adamw = Optimizer(SETTINGS[1], ours), reference(SETTINGS[1], theirs)
    x = torch.randn(3, 4, 8)
    for _ in range(3):
        for network in networks:
            for part in x:
                (network[2](network[1](network[0](part))) ** 2).sum().backward()
        optimizer.update(0.02)
        step_of(adamw, 0.02)
        adamw.zero_grad()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(*(network(x) for network in networks))
