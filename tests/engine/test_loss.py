"""The chunked loss against torch's own, in value and in every gradient."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from tunewright.data.forest import Segment, Tree
from tunewright.engine import head, loss
from tunewright.engine.batch import forest
from tunewright.engine.head import LanguageHead, language_head
from tunewright.engine.loss import Learned, linear_cross_entropy, segment_sums, smoothed_cross_entropy
from tunewright.testing.tiny import DECODERS, tiny


def case(targets: int, dtype: torch.dtype = torch.float32, width: int = 6, vocabulary: int = 23):
    generator = torch.Generator().manual_seed(targets)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator).to(dtype).requires_grad_()
        for shape in ((targets, width), (vocabulary, width), (vocabulary,))
    )
    chosen = torch.randint(0, vocabulary, (targets,), generator=generator)
    weights = torch.rand(targets, generator=generator)
    weights[::4] = 0
    return hidden, weight, bias, chosen, weights


@pytest.mark.parametrize("targets", [0, 1, 15, 16, 17, 50])
@pytest.mark.parametrize("biased", [True, False])
def test_value_and_gradients_are_those_of_torch(targets: int, biased: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", 1)  # 16 targets a chunk, the least there is
    hidden, weight, bias, chosen, weights = case(targets)
    inputs = [hidden, weight, *([bias] if biased else [])]
    found = linear_cross_entropy(hidden, weight, bias if biased else None, chosen, weights)
    logits = hidden @ weight.T + (bias if biased else 0)
    wanted = (cross_entropy(logits, chosen, reduction="none") * weights).sum()
    torch.testing.assert_close(found.total, wanted)
    torch.testing.assert_close(found.count, weights.sum())
    ours, theirs = torch.autograd.grad(found.total * 1.7, inputs), torch.autograd.grad(wanted * 1.7, inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.1, 0.6])
@pytest.mark.parametrize("shape", [loss.Shape(), loss.Shape(0.5, 4.0)], ids=["plain", "capped"])
def test_smoothing_is_that_of_torch(smoothing: float, shape: loss.Shape, monkeypatch: pytest.MonkeyPatch):
    """(1 - e) -log p(y) + e mean_v -log p(v), also where the head is no plain product; without smoothing nothing changes."""
    monkeypatch.setattr(loss, "CHUNK_BYTES", 1)
    hidden, weight, bias, chosen, weights = case(50)
    wanted = cross_entropy(shape.apply(hidden @ weight.T + bias), chosen, reduction="none", label_smoothing=smoothing)
    theirs = torch.autograd.grad((wanted * weights).sum() * 1.7, [hidden, weight, bias])
    found = smoothed_cross_entropy(hidden, weight, bias, Learned(chosen, weights, smoothing), shape)
    torch.testing.assert_close(found.total, (wanted * weights).sum())
    torch.testing.assert_close(torch.autograd.grad(found.total * 1.7, [hidden, weight, bias]), theirs, atol=1e-6, rtol=1e-5)
    linear = nn.Linear(6, 23)
    linear.weight, linear.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    around = LanguageHead(nn.Sequential(linear), shape.scale, shape.cap)
    again = around.cross_entropy(hidden, chosen, weights, smoothing)
    torch.testing.assert_close(again.total, found.total)
    torch.testing.assert_close(torch.autograd.grad(again.total * 1.7, hidden)[0], theirs[0], atol=1e-6, rtol=1e-5)
    none = smoothed_cross_entropy(hidden, weight, bias, Learned(chosen, weights), shape)
    assert torch.equal(none.total, linear_cross_entropy(hidden, weight, bias, chosen, weights, shape).total)


def test_gradients_against_differences():
    hidden, weight, bias, chosen, weights = (
        part.detach().double().requires_grad_() if part.is_floating_point() else part for part in case(4, width=3, vocabulary=5)
    )
    weights = weights.detach()

    def total(*inputs):
        return (cross_entropy(torch.nn.functional.linear(*inputs), chosen, reduction="none") * weights).sum()

    ours = torch.autograd.grad(linear_cross_entropy(hidden, weight, bias, chosen, weights).total, [hidden, weight, bias])
    step = 1e-5
    for which, gradient in enumerate(ours):
        inputs = [hidden.detach().clone(), weight.detach().clone(), bias.detach().clone()]
        for place in range(gradient.numel()):
            flat = inputs[which].view(-1)
            flat[place] += step
            high = total(*inputs)
            flat[place] -= 2 * step
            low = total(*inputs)
            flat[place] += step
            assert float((high - low) / (2 * step)) == pytest.approx(float(gradient.flatten()[place]), abs=2e-5)


def test_only_what_is_needed_gets_a_gradient():
    hidden, weight, bias, chosen, weights = case(20)
    found = linear_cross_entropy(hidden, weight.detach(), bias.detach(), chosen, weights)
    found.total.backward()
    assert hidden.grad is not None
    found = linear_cross_entropy(hidden.detach(), weight, bias, chosen, weights)
    hidden.grad = None
    found.total.backward()
    assert hidden.grad is None
    assert weight.grad is not None
    assert bias.grad is not None


def test_under_autocast_the_sums_stay_float32():
    hidden, weight, bias, chosen, weights = case(50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_cross_entropy(hidden, weight, bias, chosen, weights)
    exact = linear_cross_entropy(hidden, weight, bias, chosen, weights)
    assert found.total.dtype == torch.float32
    assert float(found.total.detach()) == pytest.approx(float(exact.total.detach()), rel=1e-2)
    gradients = [torch.autograd.grad(one.total, [hidden, weight, bias]) for one in (found, exact)]
    for rough, fine in zip(*gradients, strict=True):
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough, fine, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.25, None), (1.0, 3.0), (2.0, 5.0)])
@pytest.mark.parametrize("targets", [0, 5, 40])
def test_heads_with_scale_and_cap(scale: float, cap: float | None, targets: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", 1)
    hidden, _, _, chosen, weights = case(targets)
    linear = nn.Linear(6, 23)
    own = LanguageHead(linear, scale, cap)
    inputs = [hidden, *linear.parameters()]
    logits = linear(hidden) * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    wanted = (cross_entropy(logits, chosen, reduction="none") * weights).sum()
    found = own.cross_entropy(hidden, chosen, weights)
    torch.testing.assert_close(found.total, wanted)
    ours = torch.autograd.grad(found.total, inputs, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(wanted, inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    scores = own.log_probabilities(hidden, chosen)
    torch.testing.assert_close(scores, -cross_entropy(logits, chosen, reduction="none").detach())


@pytest.mark.parametrize("family", DECODERS)
def test_the_head_of_every_family_gives_its_logits(family: str):
    model = tiny(family)
    own = language_head(model.network)
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        wanted = model.network(input_ids=ids).logits[0]
        found = own.logits(model.body(input_ids=ids).last_hidden_state[0])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert (own.cap is not None) == (family == "gemma2")


def test_scales_are_read_from_the_configuration():
    network = tiny("llama").network
    network.config.logit_scale, network.config.logits_scaling = 0.5, 4.0
    assert language_head(network).scale == 0.125
    assert language_head(tiny("bert").network) is None
    assert head.chunk_rows(50_000) == (64 << 20) // 200_000


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += "mm" in str(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("trained", "wanted"), [(None, 1), (False, 2), (True, 3)], ids=["no gradients", "frozen", "trained"])
def test_no_more_products_than_needed(trained: bool | None, wanted: int):
    hidden, _, _, chosen, weights = case(30)
    own = LanguageHead(nn.Linear(6, 23, bias=False))
    own.linear.weight.requires_grad_(trained is not False)
    with Products() as seen, torch.set_grad_enabled(trained is not None):
        total, _ = own.cross_entropy(hidden, chosen, weights)
    if trained is not None:
        total.backward()
    assert seen.count == wanted
    own.linear.weight.requires_grad_(False)
    with Products() as seen:
        own.token_scores(hidden, chosen).log_probability_N.sum().backward()
    assert seen.count == 2
    with Products() as seen:
        own.log_probabilities(hidden, chosen)
    assert seen.count == 1


@pytest.mark.parametrize("shape", [loss.Shape(), loss.Shape(0.5, 4.0)], ids=str)
def test_a_larger_head_in_cache_sized_blocks(shape: loss.Shape):
    """Several blocks of the real size, the last one smaller; weights over several orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(90, 16, generator=generator, requires_grad=True)
    weight = torch.randn(9001, 16, generator=generator, requires_grad=True)
    chosen = torch.randint(0, 9001, (90,), generator=generator)
    weights = 10 ** torch.linspace(-4, 1, 90)
    logits = shape.apply(hidden @ weight.T)
    assert len(list(loss.blocks(logits))) == 4
    wanted = (cross_entropy(logits, chosen, reduction="none") * weights).sum()
    found = linear_cross_entropy(hidden, weight, None, chosen, weights, shape)
    torch.testing.assert_close(found.total, wanted, rtol=1e-6, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(found.total, [hidden, weight]), torch.autograd.grad(wanted, [hidden, weight]), strict=True
    ):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-6


def test_certain_tokens_in_bfloat16_keep_their_small_gradients():
    """p = 0.999: as bfloat16 numbers, p and 1 are the same."""
    hidden = torch.eye(2, requires_grad=True)
    weight = torch.tensor([[3.453, 0.0], [-3.453, 0.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = linear_cross_entropy(hidden, weight, None, torch.tensor([0, 0]), torch.ones(2))
    total.backward()
    assert float(hidden.grad[0, 0]) == pytest.approx(-2 * 3.453 * 0.001, rel=0.05)


def test_sums_of_segments():
    root = Segment((5, 6, 7), targets=(0, 1, 1))
    batch = forest([Tree((root, Segment((8,), 0), Segment((9, 4), 0, targets=(2, 0))))])
    values = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    sums = segment_sums(values, batch)
    assert sums.tolist() == [3.0, 0.0, 4.0]
    (sums * torch.tensor([1.0, 5.0, 7.0])).sum().backward()
    assert values.grad.tolist() == [1.0, 1.0, 7.0]
