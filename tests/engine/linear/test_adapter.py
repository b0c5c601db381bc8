import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunewright.engine.int8 import Int8Linear
from tunewright.engine.linear import Adapter, LoRAAdapter, holds_numbers
from tunewright.engine.linear.adapter import weight_of


def rough(adapter: LoRAAdapter) -> LoRAAdapter:
    with torch.no_grad():
        adapter.B_OR.normal_(generator=torch.Generator().manual_seed(3))
    return adapter


@pytest.mark.parametrize("host", [nn.Linear(6, 4), Conv1D(4, 6)], ids=["linear", "conv1d"])
def test_what_merging_adds_is_what_the_adapter_computes(host: nn.Module):
    adapter = rough(LoRAAdapter(host, 2, 1.5, 0.0, 0))
    x = torch.randn(5, 6)
    before = host(x)
    with torch.no_grad():
        host.weight += adapter.change()
    torch.testing.assert_close(host(x), before + adapter(x))


def test_it_is_drawn_from_its_seed_and_starts_as_no_change():
    host = nn.Linear(6, 4)
    one, same, other = (LoRAAdapter(host, 2, 1.0, 0.0, seed) for seed in (1, 1, 2))
    assert torch.equal(one.A_RI, same.A_RI)
    assert not torch.equal(one.A_RI, other.A_RI)
    assert not one.change().any()


def test_dropout_is_of_training_alone():
    adapter = rough(LoRAAdapter(nn.Linear(64, 4), 2, 1.0, 0.5, 0))
    x = torch.randn(5, 64)
    assert adapter.wet
    assert not torch.equal(adapter(x), adapter(x))
    adapter.eval()
    assert not adapter.wet
    assert torch.equal(adapter(x), adapter(x))


def test_masters_stay_float32_and_where_they_lie():
    adapter = LoRAAdapter(nn.Linear(6, 4), 2, 1.0, 0.0, 0)
    buffer = torch.zeros(2 * 6)
    adapter.A_RI.data = buffer.view(2, 6)
    nn.Sequential(adapter).to(torch.bfloat16).half().float()
    assert adapter.B_OR.dtype == torch.float32
    assert adapter.A_RI.data_ptr() == buffer.data_ptr()


def test_only_linear_layers_can_have_one():
    with pytest.raises(TypeError, match="not on Embedding"):
        LoRAAdapter(nn.Embedding(3, 3), 2, 1.0, 0.0, 0)


@pytest.mark.parametrize("host", [nn.Linear(6, 4), Conv1D(4, 6), nn.Linear(6, 4, bias=False)], ids=["linear", "conv1d", "no bias"])
def test_a_magnitude_is_the_norm_of_the_changed_row(host: nn.Module):
    adapter = LoRAAdapter(host, 2, 1.5, 0.0, 0)
    adapter.weigh()
    torch.testing.assert_close(adapter.gain(), torch.ones(4))
    rough(adapter)
    W_OI = adapter.laid(host.weight)
    norms_O = (W_OI + 1.5 * adapter.B_OR @ adapter.A_RI).norm(dim=1)
    torch.testing.assert_close(adapter.gain(), adapter.magnitude_O / norms_O)
    with torch.no_grad():
        adapter.magnitude_O.mul_(torch.tensor([1.0, 2.0, 0.5, -1.0]))
    merged_OI = W_OI + adapter.laid(adapter.change())
    torch.testing.assert_close(merged_OI.norm(dim=1), adapter.magnitude_O.abs())
    x = torch.randn(5, 6)
    y = host(x)
    bias = 0 if host.bias is None else host.bias
    torch.testing.assert_close(y + adapter.beside(x, y), x @ merged_OI.T + bias, rtol=1e-5, atol=1e-5)


def test_no_gradient_flows_through_the_norm():
    host = nn.Linear(6, 4)
    adapter = rough(LoRAAdapter(host, 2, 1.5, 0.0, 0))
    adapter.weigh()
    adapter.gain().sum().backward()
    assert adapter.A_RI.grad is None
    assert host.weight.grad is None
    torch.testing.assert_close(adapter.magnitude_O.grad, 1 / adapter.magnitude_O.detach())


def test_a_row_of_nothing_gives_nothing_that_is_not_a_number():
    host = nn.Linear(6, 4)
    nn.init.zeros_(host.weight)
    adapter = LoRAAdapter(host, 2, 1.5, 0.0, 0)
    adapter.weigh()
    x = torch.randn(5, 6)
    (host(x) + adapter.beside(x, host(x))).pow(2).sum().backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in adapter.parameters() if parameter.grad is not None)


class Packed(torch.Tensor):
    """Stands in for a weight of torchao: a tensor that knows how to become numbers."""

    def dequantize(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor) * 2


def test_weights_are_read_however_they_are_held():
    layer = nn.Linear(6, 4)
    assert weight_of(layer).data_ptr() == layer.weight.data_ptr()
    assert holds_numbers(layer)
    eight = Int8Linear(layer)
    torch.testing.assert_close(weight_of(eight), layer.weight.detach(), rtol=0, atol=0.01)
    assert not holds_numbers(eight)
    other = nn.Linear(6, 4)
    other._parameters["weight"] = nn.Parameter(layer.weight.detach().as_subclass(Packed), requires_grad=False)
    torch.testing.assert_close(weight_of(other), layer.weight.detach() * 2)
    assert not holds_numbers(other)
    whole = nn.Linear(6, 4)
    whole._parameters["weight"] = nn.Parameter(torch.zeros(12, 1, dtype=torch.uint8), requires_grad=False)
    assert not holds_numbers(whole)


def test_a_change_without_matrices_of_its_own_cannot_be_set():
    class Bare(Adapter):
        """Nothing but a host."""

    bare = Bare(nn.Linear(6, 4), 1.0)
    with pytest.raises(ValueError, match="the size of Bare cannot be set"):
        bare.resize(2.0)
    with pytest.raises(ValueError, match="the matrices of Bare cannot be set"):
        bare.put(torch.zeros(1, 6), torch.zeros(4, 1))
    assert bare.mergeable
    assert bare.gain() is None
