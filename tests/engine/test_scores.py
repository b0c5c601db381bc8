"""Scores of targets against torch's own log-softmax, in value, in every gradient and in memory."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tunewright.engine import loss
from tunewright.engine.head import LanguageHead
from tunewright.engine.loss import Shape
from tunewright.engine.scores import linear_token_scores, token_scores_of_logits

SHAPES = (Shape(), Shape(0.5), Shape(1.0, 3.0), Shape(2.0, 5.0, 0.7), Shape(temperature=1.5))


def case(targets: int, dtype: torch.dtype = torch.float32, width: int = 6, vocabulary: int = 23):
    generator = torch.Generator().manual_seed(targets)
    hidden, weight, bias = (
        (2 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
        for shape in ((targets, width), (vocabulary, width), (vocabulary,))
    )
    return hidden, weight, bias, torch.randint(0, vocabulary, (targets,), generator=generator)


def plainly(logits: Tensor, chosen: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """The textbook: log-softmax of everything."""
    logits = logits * shape.scale
    logits = (logits if shape.cap is None else shape.cap * torch.tanh(logits / shape.cap)) / shape.temperature
    logs = logits.log_softmax(-1)
    return logs.gather(1, chosen[:, None])[:, 0], -(logs.exp() * logs).sum(-1), logits.argmax(-1) == chosen


def some_loss(log_probability: Tensor, entropy: Tensor | None) -> Tensor:
    """Not linear in log p, like the losses that this is for."""
    total = (log_probability.sigmoid() * torch.linspace(-1, 2, len(log_probability))).sum()
    return total if entropy is None else total + (entropy**2).sum()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("entropy", [True, False])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("kept", [True, False])
def test_values_and_gradients_are_those_of_torch(
    shape: Shape, entropy: bool, trained: bool, kept: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loss, "CHUNK_BYTES", (64 << 20) if kept else 1)  # one chunk, or 16 targets a chunk
    monkeypatch.setattr(loss, "BLOCK_BYTES", 4 * 23 * 5)  # 5 targets a block
    hidden, weight, bias, chosen = case(37)
    inputs = [hidden, weight, bias] if trained else [hidden]
    head = (weight, bias) if trained else (weight.detach(), bias.detach())
    found = linear_token_scores(hidden, *head, chosen, shape, (entropy, True) if entropy else (False, False))
    log_probability, entropies, top1 = plainly(hidden @ weight.T + bias, chosen, shape)
    torch.testing.assert_close(found.log_probability_N, log_probability, atol=2e-6, rtol=2e-6)
    if entropy:
        torch.testing.assert_close(found.entropy_N, entropies, atol=2e-6, rtol=2e-6)
        assert torch.equal(found.top1_N, top1)
        assert not found.top1_N.requires_grad
    else:
        assert found.entropy_N is None
        assert found.top1_N is None
    ours = torch.autograd.grad(some_loss(found.log_probability_N, found.entropy_N), inputs)
    theirs = torch.autograd.grad(some_loss(log_probability, entropies if entropy else None), inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]], ids=str)
@pytest.mark.parametrize("chunk", [1, 64 << 20])
def test_gradients_against_differences(shape: Shape, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", chunk)
    hidden, weight, bias, chosen = case(18, torch.float64, width=3, vocabulary=5)

    def everything(*inputs: Tensor) -> tuple[Tensor, ...]:
        return linear_token_scores(*inputs, chosen, shape, (True, False))[:2]

    def ahead(hidden: Tensor) -> Tensor:
        return linear_token_scores(hidden, weight.detach(), bias.detach(), chosen, shape).log_probability_N

    def of_logits(logits: Tensor) -> tuple[Tensor, ...]:
        return token_scores_of_logits(logits, chosen, entropy=True, temperature=0.7)[:2]

    assert torch.autograd.gradcheck(everything, (hidden, weight, bias))
    assert torch.autograd.gradcheck(ahead, (hidden,))
    assert torch.autograd.gradcheck(of_logits, (hidden.detach() @ weight.detach().T).requires_grad_())


def test_an_entropy_that_is_only_looked_at_changes_no_gradient():
    hidden, weight, bias, chosen = case(9)
    inputs = [hidden, weight, bias]
    looked = linear_token_scores(*inputs, chosen, wanted=(True, True)).log_probability_N.sum()
    alone = linear_token_scores(*inputs, chosen).log_probability_N.sum()
    torch.testing.assert_close(torch.autograd.grad(looked, inputs), torch.autograd.grad(alone, inputs), atol=1e-6, rtol=1e-6)
    entropy = linear_token_scores(*inputs, chosen, wanted=(True, False)).entropy_N
    wanted = plainly(hidden @ weight.T + bias, chosen, Shape())[1]
    ours, theirs = torch.autograd.grad(entropy.sum(), inputs), torch.autograd.grad(wanted.sum(), inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wanted", [(False, False), (True, True)])
def test_chunks_and_blocks_change_nothing(wanted: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch):
    hidden, weight, bias, chosen = case(70)
    results = []
    for chunk, block in ((64 << 20, 1 << 20), (1, 1), (4 * 23 * 33, 4 * 23 * 7)):
        monkeypatch.setattr(loss, "CHUNK_BYTES", chunk)
        monkeypatch.setattr(loss, "BLOCK_BYTES", block)
        found = linear_token_scores(hidden, weight.detach(), bias.detach(), chosen, Shape(1.0, 4.0), wanted)
        gradient = torch.autograd.grad(some_loss(found.log_probability_N, found.entropy_N), hidden)
        results.append([*(value.detach().float() for value in found if value is not None), *gradient])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("wanted", [(False, False), (True, True)])
def test_no_targets(trained: bool, wanted: tuple[bool, bool]):
    hidden, weight, bias, chosen = case(0)
    head = (weight, bias) if trained else (weight.detach(), bias.detach())
    found = linear_token_scores(hidden, *head, chosen, wanted=wanted)
    assert [None if value is None else len(value) for value in found] == ([0, 0, 0] if wanted[0] else [0, None, None])
    found.log_probability_N.sum().backward()
    assert hidden.grad.shape == (0, 6)
    assert weight.grad is None or not weight.grad.any()


@pytest.mark.parametrize("trained", [True, False])
def test_bfloat16_products_and_float32_sums(trained: bool):
    hidden, weight, bias, chosen = case(40, vocabulary=300, width=32)
    weight.data /= 6
    head = (weight, bias) if trained else (weight.detach(), bias.detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_token_scores(hidden, *head, chosen).log_probability_N
    log_probability, _, _ = plainly(hidden @ weight.T + bias, chosen, Shape())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, log_probability, atol=0.05, rtol=0.02)
    inputs = [hidden, weight, bias] if trained else [hidden]
    for ours, theirs in zip(
        torch.autograd.grad(found.exp().sum(), inputs), torch.autograd.grad(log_probability.exp().sum(), inputs), strict=True
    ):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 0.03
    low = linear_token_scores(hidden.bfloat16(), weight.detach().bfloat16(), None, chosen).log_probability_N
    assert low.dtype == torch.float32
    assert torch.autograd.grad(low.sum(), hidden)[0].isfinite().all()


@pytest.mark.parametrize("wanted", [(False, False), (True, True)])
def test_probabilities_at_their_ends(wanted: tuple[bool, bool]):
    """Logits a thousand apart, forbidden tokens (-inf) and certain ones: log p stays exact and no NaN appears."""
    logits = torch.tensor([[1000.0, 0, -1000, -torch.inf], [0, 1e-6, 0, -torch.inf]], requires_grad=True)
    found = token_scores_of_logits(logits, torch.tensor([2, 1]), entropy=wanted[0], top1=wanted[1])
    torch.testing.assert_close(found.log_probability_N, torch.tensor([-2000.0, -float(torch.tensor(3.0).log())]))
    (found.log_probability_N.sum() + (found.entropy_N.sum() if wanted[0] else 0)).backward()
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(logits.grad[0], torch.tensor([-1.0, 0, 1, 0]), atol=1e-6, rtol=0)
    if wanted[0]:
        torch.testing.assert_close(found.entropy_N, torch.tensor([0.0, 3.0]).log().clamp(min=0), atol=1e-5, rtol=0)
        assert found.top1_N.tolist() == [False, True]


def test_a_second_derivative_is_refused():
    hidden, weight, _, chosen = case(5)
    for own in (weight, weight.detach()):
        total = linear_token_scores(hidden, own, None, chosen).log_probability_N.exp().sum()
        (gradient,) = torch.autograd.grad(total, hidden, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            gradient.sum().backward()


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor had that any operation made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.numbers = max(self.numbers, value.numel())
        return result


@pytest.mark.parametrize("wanted", [(False, False), (True, True)])
def test_a_large_vocabulary_never_stands_whole(wanted: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch):
    targets, width, vocabulary = 64, 4, 256_000
    monkeypatch.setattr(loss, "CHUNK_BYTES", 16 * 4 * vocabulary)
    hidden, weight, _, chosen = case(targets, vocabulary=vocabulary, width=width)
    weight = weight.detach()
    with Largest() as seen:
        found = linear_token_scores(hidden, weight, None, chosen, wanted=wanted)
        some_loss(found.log_probability_N, found.entropy_N).backward()
    assert seen.numbers == 16 * vocabulary  # a quarter of N x V
    first = slice(0, 8)
    log_probability, entropy, _ = plainly(hidden[first] @ weight.T, chosen[first], Shape())
    torch.testing.assert_close(found.log_probability_N[first], log_probability, atol=1e-5, rtol=1e-5)
    if wanted[0]:
        torch.testing.assert_close(found.entropy_N[first], entropy, atol=1e-5, rtol=1e-4)


class Wrapped(nn.Module):
    """A head that is not one plain product."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 0.1 * self.inner(x * 0.5)


@pytest.mark.parametrize("chunk", [1, 64 << 20])
@pytest.mark.parametrize("wanted", [(False, False), (True, True)])
def test_heads_of_any_kind(chunk: int, wanted: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", chunk)
    hidden, _, _, chosen = case(40)
    linear = nn.Linear(6, 23)
    patched = nn.Linear(6, 23)
    patched.load_state_dict(linear.state_dict())
    patched.forward = lambda x: Wrapped(linear)(x)  # as a part of the engine may do on an instance
    for module in (Wrapped(linear), patched):
        found = LanguageHead(module, 0.5, 4.0).token_scores(hidden, chosen, entropy=wanted[0], top1=wanted[1], temperature=0.9)
        log_probability, entropy, top1 = plainly(Wrapped(linear)(hidden), chosen, Shape(0.5, 4.0, 0.9))
        torch.testing.assert_close(found.log_probability_N, log_probability, atol=1e-5, rtol=1e-5)
        if wanted[0]:
            torch.testing.assert_close(found.entropy_N, entropy, atol=1e-5, rtol=1e-5)
            assert torch.equal(found.top1_N, top1)
        inputs = [hidden, *linear.parameters()]
        ours = torch.autograd.grad(some_loss(found.log_probability_N, found.entropy_N), inputs)
        theirs = torch.autograd.grad(some_loss(log_probability, entropy if wanted[0] else None), inputs)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
