import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunewright.engine.linear import LoRAAdapter


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
