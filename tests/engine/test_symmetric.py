"""The divergence of two passes against the formula in plain operations, in value and in every gradient."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import kl_div

from tunewright.engine import loss
from tunewright.engine.head import LanguageHead
from tunewright.engine.symmetric import passes_apart, symmetric_kl

TARGETS, WIDTH, VOCABULARY = 50, 6, 23


def plainly(one: torch.Tensor, other: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    p, q = one.log_softmax(1), other.log_softmax(1)
    both = kl_div(p, q, log_target=True, reduction="none") + kl_div(q, p, log_target=True, reduction="none")
    return (both.sum(1) * weights).sum() / 2


def case(bias: bool, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(1)
    one, other = (torch.randn(TARGETS, WIDTH, generator=generator).to(dtype).requires_grad_() for _ in range(2))
    linear = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    weights = torch.rand(TARGETS, generator=generator)
    weights[::5] = 0
    return one, other, linear, weights


def test_by_hand():
    """Two outcomes, a = (ln 3, 0) and b = (0, 0): p = (3/4, 1/4), q = (1/2, 1/2), J = (3/4 - 1/2) ln 3 / 2."""
    found = symmetric_kl(torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2))
    assert float(found) == pytest.approx(math.log(3) / 8)


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "frozen"])
@pytest.mark.parametrize(("scale", "cap", "bias"), [(1.0, None, False), (0.5, None, True), (2.0, 3.0, True)])
def test_value_and_gradients(scale: float, cap: float | None, bias: bool, trained: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", 1)  # 16 targets a chunk
    monkeypatch.setattr(loss, "BLOCK_BYTES", 4 * VOCABULARY * 3)  # 3 rows a block
    one, other, linear, weights = case(bias)
    for parameter in linear.parameters():
        parameter.requires_grad_(trained)
    inputs = [one, other, *(linear.parameters() if trained else ())]
    head = LanguageHead(linear, scale, cap)
    wanted = plainly(head.logits(one), head.logits(other), weights)
    found = passes_apart(head, one, other, weights)
    torch.testing.assert_close(found, wanted)
    ours, theirs = torch.autograd.grad(found * 1.3, inputs), torch.autograd.grad(wanted * 1.3, inputs)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


def test_a_head_that_is_no_plain_product(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", 1)
    one, other, linear, weights = case(True)
    wanted = plainly(linear(one), linear(other), weights)
    around = LanguageHead(nn.Sequential(linear))
    assert around.plain() is None
    found = passes_apart(around, one, other, weights)
    torch.testing.assert_close(found, wanted)
    inputs = [one, other, *linear.parameters()]
    torch.testing.assert_close(torch.autograd.grad(found, inputs), torch.autograd.grad(wanted, inputs), atol=2e-5, rtol=1e-5)


def test_equal_passes_are_not_apart():
    one, _, linear, weights = case(True)
    found = passes_apart(LanguageHead(linear), one, one.detach().clone(), weights)
    assert float(found.detach()) == 0
    assert float(torch.autograd.grad(found, one)[0].abs().max()) == 0
    assert float(passes_apart(LanguageHead(linear), one[:0], one[:0], weights[:0]).detach()) == 0


def test_under_autocast_the_sums_stay_float32():
    one, other, linear, weights = case(True)
    exact = passes_apart(LanguageHead(linear), one, other, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = passes_apart(LanguageHead(linear), one, other, weights)
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(float(exact.detach()), rel=2e-2)
    assert torch.autograd.grad(found, one)[0].dtype == torch.float32
