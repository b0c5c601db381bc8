"""How a LoRA's matrices begin: what is drawn, what is decomposed, and that the layer computes the same at first."""

import peft
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunewright.engine.linear import LoRAAdapter, begin

HOSTS = {"wide": lambda: nn.Linear(12, 7), "tall": lambda: nn.Linear(7, 12), "transposed": lambda: Conv1D(9, 6)}
STARTS = ("gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora")


def begun(host: nn.Module, start: str, rank: int = 4, scale: float = 1.5, seed: int = 3) -> LoRAAdapter:
    adapter = LoRAAdapter(host, rank, scale, 0.0, seed)
    begin(adapter, start, seed)
    return adapter


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("host", HOSTS.values(), ids=list(HOSTS))
def test_every_start_changes_nothing_and_is_a_function_of_its_seed(start: str, host):
    torch.manual_seed(0)
    layer = host()
    state = torch.get_rng_state()
    one, same = begun(layer, start), begun(layer, start)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.A_RI, same.A_RI)
    assert torch.equal(one.B_OR, same.B_OR)
    assert float(one.change().abs().max()) < 1e-6
    assert not one.shifted or not one.change().any()
    x = torch.randn(3, one.inputs)
    one(x).pow(2).sum().backward()
    assert one.A_RI.grad is not None


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_decompositions_are_those_of_peft(start: str):
    torch.manual_seed(0)
    layer, copy = nn.Linear(12, 7), nn.Linear(12, 7)
    copy.load_state_dict(layer.state_dict())
    theirs = peft.get_peft_model(
        nn.Sequential(copy), peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"], init_lora_weights=start)
    )
    other = theirs.base_model.model[0]
    ours = begun(layer, start, scale=other.scaling["default"])
    torch.testing.assert_close(ours.B_OR @ ours.A_RI, other.lora_B["default"].weight @ other.lora_A["default"].weight)
    torch.testing.assert_close(layer.weight - 1.5 * ours.B_OR @ ours.A_RI, copy.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.A_RI.abs(), other.lora_A["default"].weight.abs(), rtol=1e-4, atol=1e-5)


def test_power_iterations_come_near_the_decomposition():
    torch.manual_seed(0)
    layer = nn.Linear(40, 30)
    with torch.no_grad():
        layer.weight.copy_(torch.linalg.svd(layer.weight, full_matrices=False)[0] * 0.5 ** torch.arange(30) @ torch.randn(30, 40))
    exact, quick = begun(layer, "pissa"), begun(layer, "pissa_niter_8")
    torch.testing.assert_close(quick.B_OR @ quick.A_RI, exact.B_OR @ exact.A_RI, rtol=1e-3, atol=1e-4)


def test_what_is_trained_away_from_a_shifted_start_is_the_difference_of_products():
    torch.manual_seed(0)
    adapter = begun(nn.Linear(12, 7), "pissa")
    first = adapter.B_OR @ adapter.A_RI
    with torch.no_grad():
        adapter.A_RI.add_(torch.randn_like(adapter.A_RI))
        adapter.B_OR.add_(torch.randn_like(adapter.B_OR))
    torch.testing.assert_close(adapter.change(), 1.5 * (adapter.B_OR @ adapter.A_RI - first), rtol=1e-4, atol=1e-5)
    adapter.resize(-2.0)
    torch.testing.assert_close(adapter.change(), 1.5 * (adapter.B_OR @ adapter.A_RI + 2 * first), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="what is subtracted cannot be set"):
        adapter.put(adapter.A_RI, adapter.B_OR)


def test_gaussian_and_orthogonal_are_of_their_size():
    gaussian = begun(nn.Linear(400, 30), "gaussian", rank=16)
    assert float(gaussian.A_RI.detach().std()) == pytest.approx(1 / 16, rel=0.05)
    assert not gaussian.B_OR.any()
    both = begun(nn.Linear(400, 300), "orthogonal", rank=16)
    assert float(both.A_RI.detach().std()) == pytest.approx(0.1 / 2**0.5, rel=0.05)
    assert both.B_OR.any()


@pytest.mark.parametrize(
    ("start", "rank", "message"), [("orthogonal", 3, "3 is odd"), ("pissa", 8, "more than the 7"), ("olora", 8, "more than the 7")]
)
def test_ranks_that_a_start_cannot_have(start: str, rank: int, message: str):
    with pytest.raises(ValueError, match=message):
        begun(nn.Linear(12, 7), start, rank)
