"""Embeddings and convolutions that carry changes: whose tokens, what stands around them, what merging adds."""

import pytest
import torch
from torch import nn

from tunewright.engine.around import Around
from tunewright.engine.linear import Change, ConvolutionAdapter, EmbeddingAdapter, load_on, take_off
from tunewright.models.lanes import Lane, Lanes


class Net(nn.Module):
    """An embedding and a convolution, and blocks enough for a network."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6, padding_idx=0)
        self.conv = nn.Conv1d(6, 4, 3, padding=1)
        self.layers = nn.ModuleList([nn.Identity()])
        self.requires_grad_(False)


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    monkeypatch.setattr("tunewright.engine.linear.carrying.families", lambda *_: ())
    torch.manual_seed(0)
    return Net()


def rough(adapter: Change, seed: int = 1) -> Change:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return adapter


def loaded(net: Net, lanes: Lanes, path: str, dora: bool = False, seed: int = 1) -> int:
    host, slot = net.get_submodule(path), lanes.open()
    adapter = EmbeddingAdapter(host, 2, 1.5, seed) if path == "words" else ConvolutionAdapter(host, 2, 1.5, 0.0, seed)
    if dora:
        adapter.weigh()
    load_on(net, lanes, slot, {path: rough(adapter, seed)})
    return slot


INPUTS = {"words": torch.arange(1, 13).view(2, 6), "conv": torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(2))}


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("path", ["words", "conv"])
def test_what_merging_adds_is_what_is_computed_and_leaving_leaves_nothing(net: Net, path: str, dora: bool):
    lanes, host, x = Lanes(), net.get_submodule(path), INPUTS[path]
    before = host(x)
    slot = loaded(net, lanes, path, dora)
    changed = host(x)
    assert not torch.allclose(changed, before, atol=1e-2)
    adapter = getattr(host, f"lora_{slot}")
    adapter.enabled = False
    assert torch.equal(host(x), before)
    added = adapter.change()
    take_off(net, slot, [path])
    assert torch.equal(host(x), before)
    assert not host._forward_hooks
    assert dict(host.named_children()) == {}
    with torch.no_grad():
        host.weight += added
    torch.testing.assert_close(host(x), changed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", ["words", "conv"])
def test_each_tuning_changes_its_own(net: Net, path: str):
    lanes, host, x = Lanes(), net.get_submodule(path), INPUTS[path]
    length = 6 if path == "words" else 5
    plain, alone = host(x), []
    for seed in (1, 2):
        other = Lanes()
        slot = loaded(net, other, path, seed=seed)
        alone.append(host(x))
        take_off(net, slot, [path])
    for seed in (1, 2):
        loaded(net, lanes, path, seed=seed)
    with lanes.during([Lane(1, 0, length), Lane(0, length, 2 * length)]):
        found = host(x)
    torch.testing.assert_close(found, torch.stack([alone[1][0], alone[0][1]]))
    with lanes.during([Lane(0, 0, 3)]):
        assert torch.equal(host(x), alone[0])  # one tuning owns everything
    with lanes.during([Lane(7, 0, length), Lane(0, length, 2 * length)]):
        torch.testing.assert_close(host(x), torch.stack([plain[0], alone[0][1]]))
    with pytest.raises(ValueError, match="2 tunings stand on one layer, and no lanes say whose tokens these are"):
        host(x)
    with lanes.during([Lane(0, 0, length), Lane(1, length, length + 2)]), pytest.raises(ValueError, match="the lanes end at token"):
        host(x)
    with torch.no_grad():
        for parameter in host.lora_1.parameters():
            parameter.fill_(float("nan"))
    with lanes.during([Lane(0, 0, length), Lane(1, length, 2 * length)]):
        assert torch.isfinite(host(x)[0]).all()


def test_a_row_of_a_convolution_is_not_shared(net: Net):
    lanes = Lanes()
    for seed in (1, 2):
        loaded(net, lanes, "conv", seed=seed)
    with lanes.during([Lane(0, 0, 3), Lane(1, 3, 10)]), pytest.raises(ValueError, match="a row belongs to several tunings here"):
        net.conv(INPUTS["conv"])


def test_virtual_tokens_are_left_as_they_are(net: Net):
    """Something else gives the output at negative ids, whether it came before or after."""
    lanes, ids = Lanes(), torch.tensor([[-2, -1, 3, 4]])
    vectors = torch.randn(2, 6)

    def virtual(plain):
        def forward(x: torch.Tensor) -> torch.Tensor:
            y = plain(x.clamp_min(0))
            return torch.where(x[..., None] < 0, vectors[x.clamp_max(-1)], y)

        return forward

    lanes.begins[0] = (-2, -1)
    first = Around(net.words, virtual)
    slot = loaded(net, lanes, "words")
    found = net.words(ids)
    assert torch.equal(found[0, :2], vectors[[-2, -1]])
    first.remove()
    second = Around(net.words, virtual)
    assert torch.equal(net.words(ids), found)
    take_off(net, slot, ["words"])
    assert torch.equal(net.words(ids)[0, 2:], net.words.weight[[3, 4]])
    second.remove()


def test_gradients_reach_both_matrices_and_none_the_base(net: Net):
    lanes = Lanes()
    loaded(net, lanes, "words", dora=True)
    loaded(net, lanes, "conv", dora=True, seed=2)
    net.conv(net.words(INPUTS["words"]).mT).pow(2).sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (".lora_" in name), name


def test_an_embeddings_own_scale_scales_the_change_too():
    class Scaled(nn.Embedding):
        embed_scale = 3.0

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 3.0

    net = Net()
    net.words = Scaled(20, 6)
    adapter = rough(EmbeddingAdapter(net.words, 2, 1.5, 0))
    adapter.join(Lanes(), 0)
    x = INPUTS["words"]
    torch.testing.assert_close(net.words(x), 3 * (net.words.weight + adapter.change())[x], rtol=1e-5, atol=1e-5)
    adapter.leave()
