"""The fused product against the same formula written with plain operations, in float64, outputs and every gradient."""

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tunewright.engine.linear.product import Cut, Frozen, project
from tunewright.testing.toy import difference

I, T = 12, 24  # noqa: E741
WHOLE = (Cut(0, (T,), (2.0,), (0,)),)
CASES = {
    "one layer": (1, WHOLE),
    "three layers": (3, (Cut(0, (T,), (0.5,), (0, 1, 2)),)),
    "a layer without an adapter": (3, (Cut(0, (T,), (0.5,), (0, 2)),)),
    "lanes of one length": (2, (Cut(0, (8, 8, 8), (2.0, 2.0, 2.0), (0, 1)),)),
    "lanes of different lengths": (2, (Cut(1, (2, 7, 1, 10), (2.0, 0.5, 3.0, 1.0), (0, 1)),)),
    "scales that differ": (1, (Cut(0, (6, 6, 6, 6), (2.0, 0.5, 3.0, 1.0), (0,)),)),
    "lanes that differ": (2, (Cut(0, (5,), (2.0,), (0,)), Cut(5, (19,), (0.25,), (0, 1)))),
    "tokens of nobody": (2, (Cut(3, (3, 3), (2.0, 1.0), (0, 1)), Cut(20, (1,), (0.25,), (1,)))),
}


def made(count: int, cuts: tuple[Cut, ...], dtype: torch.dtype = torch.float64) -> tuple[list[Frozen], list[Tensor]]:
    """Layers of different widths, with and without a bias, in both orientations; adapters of different ranks."""
    draw = torch.Generator().manual_seed(1)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)

    widths = [7 + 2 * number for number in range(count)]
    layers = [
        Frozen(numbers(I, width) if number % 2 else numbers(width, I).t(), None if number == 1 else numbers(width))
        for number, width in enumerate(widths)
    ]
    pairs = []
    for cut in cuts:
        for lane in range(len(cut.scales)):
            for number in cut.layers:
                rank = 2 + lane + number
                pairs += [numbers(rank, I).requires_grad_(), numbers(widths[number], rank).requires_grad_()]
    return layers, pairs


def reference(x: Tensor, layers: list[Frozen], cuts: tuple[Cut, ...], pairs: list[Tensor]) -> list[Tensor]:
    flat = x.reshape(-1, I)
    outputs = [flat @ layer.weight_IO + (0 if layer.bias_O is None else layer.bias_O) for layer in layers]
    rest = iter(pairs)
    for cut in cuts:
        start = cut.start
        for length, scale in zip(cut.lengths, cut.scales, strict=True):
            inside = torch.zeros(len(flat), 1, dtype=x.dtype)
            inside[start : start + length] = scale
            start += length
            for number in cut.layers:
                A, B = next(rest), next(rest)
                outputs[number] = outputs[number] + inside * (flat @ A.T @ B.T)
    return [y.view(*x.shape[:-1], -1) for y in outputs]


def entered(dtype: torch.dtype = torch.float64, grad: bool = True) -> Tensor:
    return torch.randn(2, T // 2, I, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype).requires_grad_(grad)


def gradients(outputs: tuple[Tensor, ...] | list[Tensor], wanted: list[Tensor]) -> list[Tensor | None]:
    total = sum((y.sin() * (1 + number)).sum() for number, y in enumerate(outputs))
    return list(torch.autograd.grad(total, wanted, allow_unused=True))


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_the_formula(case: str):
    count, cuts = CASES[case]
    layers, pairs = made(count, cuts)
    x = entered()
    found, wanted = project(x, layers, cuts, pairs), reference(x, layers, cuts, pairs)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(gradients(found, [x, *pairs]), gradients(wanted, [x, *pairs]), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("case", ["three layers", "lanes of one length", "lanes of different lengths", "lanes that differ"])
def test_an_output_that_nobody_uses_costs_no_gradient(case: str):
    count, cuts = CASES[case]
    layers, pairs = made(count, cuts)
    x = entered()
    found = gradients(project(x, layers, cuts, pairs)[:1], [x, *pairs])
    wanted = gradients(reference(x, layers, cuts, pairs)[:1], [x, *pairs])
    for one, other in zip(found, wanted, strict=True):
        assert one is not None or other is None
        if one is not None:
            torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


def test_an_input_that_needs_no_gradient_gets_none_and_the_adapters_theirs():
    layers, pairs = made(1, WHOLE)
    x = entered(grad=False)
    for one, other in zip(
        gradients(project(x, layers, WHOLE, pairs), pairs), gradients(reference(x, layers, WHOLE, pairs), pairs), strict=True
    ):
        torch.testing.assert_close(one, other)
    assert x.grad is None


def test_without_gradients_nothing_is_kept():
    layers, pairs = made(1, WHOLE)
    with torch.no_grad():
        (y,) = project(entered(), layers, WHOLE, pairs)
    assert y.grad_fn is None
    torch.testing.assert_close(y, reference(entered(), layers, WHOLE, pairs)[0])


def test_a_token_that_is_not_finite_stays_in_its_lane():
    apart = (Cut(0, (10,), (1.0,), (0,)), Cut(10, (14,), (1.0,), (0,)))
    for cuts in (apart, *((Cut(0, lengths, (1.0, 1.0, 1.0), (0,)),) for lengths in ((8, 8, 8), (10, 6, 8)))):
        layers, pairs = made(1, cuts)
        x = entered()
        clean = gradients(project(x, layers, cuts, pairs), pairs)
        spoilt = x.detach().clone()
        spoilt[0, 1] = float("nan")  # the first lane
        found = gradients(project(spoilt, layers, cuts, pairs), pairs)
        assert not torch.isfinite(found[0]).all()
        for one, other in zip(found[2:], clean[2:], strict=True):
            assert torch.equal(one, other)


def test_bfloat16_under_autocast_is_near_and_gradients_reach_float32_masters():
    count, cuts = CASES["three layers"]
    layers, pairs = made(count, cuts, torch.float32)
    held = [Frozen(layer.weight_IO.bfloat16(), None if layer.bias_O is None else layer.bias_O.bfloat16()) for layer in layers]
    x = entered(torch.float32)
    wanted = reference(x, layers, cuts, pairs)
    exact = gradients(wanted, [x, *pairs])
    for of_base in (held, layers):  # a base that is held in float32 is narrowed on the way
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = project(x, of_base, cuts, pairs)
        assert {y.dtype for y in found} == {torch.bfloat16}
        for one, other in zip(found, wanted, strict=True):
            assert difference(one, other) < 0.02
        slopes = gradients([y.float() for y in found], [x, *pairs])
        assert {slope.dtype for slope in slopes} == {torch.float32}
        for one, other in zip(slopes, exact, strict=True):
            assert float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)) > 0.95


def test_recomputed_is_the_same():
    count, cuts = CASES["lanes that differ"]
    layers, pairs = made(count, cuts)
    x = entered()
    plain = gradients(project(x, layers, cuts, pairs), [x, *pairs])
    again = gradients(checkpoint(lambda x: project(x, layers, cuts, pairs), x, use_reentrant=False), [x, *pairs])
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_what_is_kept_for_the_backward_pass_is_x_once_and_small_things():
    count, cuts = CASES["three layers"]
    layers, pairs = made(count, cuts)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        project(entered(), layers, cuts, pairs)
    own = sum(pair.numel() for pair in pairs)
    ranks = sum(pair.shape[0] for pair in pairs[::2])
    assert sum(tensor.numel() for tensor in kept) == T * I + ranks * T + own


def test_gradients_are_added_to_what_stands_in_grad():
    layers, pairs = made(1, WHOLE)
    buffer = torch.ones(sum(pair.numel() for pair in pairs), dtype=torch.float64)
    views, place = [], 0
    for pair in pairs:
        views.append(buffer[place : place + pair.numel()].view(pair.shape))
        pair.grad, place = views[-1], place + pair.numel()
    wanted = gradients(project(entered(), layers, WHOLE, pairs), pairs)
    sum(y.sin().sum() for y in project(entered(), layers, WHOLE, pairs)).backward()
    for pair, view, slope in zip(pairs, views, wanted, strict=True):
        assert pair.grad is view
        torch.testing.assert_close(view, slope + 1)


def test_outputs_may_be_written_to():
    layers, pairs = made(2, CASES["lanes of one length"][1])
    x = entered()
    found = project(x, layers, CASES["lanes of one length"][1], pairs)
    slope = torch.autograd.grad(found[0].mul_(2).sum() + found[1].add_(1).sum(), x)[0]
    wanted = reference(x, layers, CASES["lanes of one length"][1], pairs)
    torch.testing.assert_close(slope, torch.autograd.grad(2 * wanted[0].sum() + wanted[1].sum(), x)[0])
