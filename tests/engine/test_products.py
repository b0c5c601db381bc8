"""Either library's product gives torch's numbers and gradients; the other one serves only where it is there, right and faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tunewright.engine import products
from tunewright.engine.products import affine, linear, multiply, onednn_serves

THERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
ROWS, INNER, OUTER = 96, 64, 80  # more than `SMALL` multiplications
LARGE, LITTLE = (3, 32, INNER), (2, 3, INNER)


@pytest.fixture(autouse=True)
def afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is known of this machine."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    onednn_serves.cache_clear()
    yield
    onednn_serves.cache_clear()


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not THERE, reason="no oneDNN"))], ids=["mkl", "onednn"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One of the libraries serves; every time that somebody asks which, the number of threads is noted."""
    threads: list[int] = []
    monkeypatch.setattr(products, "onednn_serves", lambda count: threads.append(count) or request.param)
    return threads


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def laid(values: Tensor, how: str) -> Tensor:
    """The same numbers, otherwise in memory."""
    if how == "columns":
        return values.mT.contiguous().mT
    if how == "strided":
        wide = torch.full((*values.shape[:-1], 2 * values.shape[-1]), float("nan"))
        wide[..., ::2] = values
        return wide[..., ::2]
    return values


def close(found: Tensor, wanted: Tensor) -> None:
    """Within the rounding of another order of sums."""
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max().clamp_min(1e-9)))


LAYOUTS = ("rows", "columns", "strided")


@pytest.mark.parametrize(("left", "right"), list(product(LAYOUTS, LAYOUTS)))
def test_a_product_in_every_orientation(left: str, right: str, asked: list[int]):
    one, other = drawn(ROWS, INNER), drawn(INNER, OUTER, seed=1)
    close(multiply(laid(one, left), laid(other, right)), one @ other)
    assert asked == [torch.get_num_threads()]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("weight", LAYOUTS)
@pytest.mark.parametrize("shape", [(ROWS, INNER), LARGE, (2, 3, 16, INNER), LITTLE, (5, 0, INNER), (INNER,)], ids=str)
def test_an_affine_map_keeps_the_leading_shape_and_is_no_view(shape: tuple[int, ...], weight: str, biased: bool, asked: list[int]):
    x, weight_IO, bias_O = drawn(*shape), drawn(INNER, OUTER, seed=1), drawn(OUTER, seed=2) if biased else None
    y = affine(x, laid(weight_IO, weight), bias_O)
    wanted = x @ weight_IO + (0.0 if bias_O is None else bias_O)
    assert y.shape == wanted.shape
    assert not y._is_view()
    if y.numel():
        close(y, wanted)


@pytest.mark.parametrize("how", ["columns", "strided"])
@pytest.mark.parametrize("shape", [LARGE, LITTLE], ids=["large", "little"])
def test_x_in_any_layout(shape: tuple[int, ...], how: str, asked: list[int]):
    x, weight_OI, bias_O = drawn(*shape), drawn(OUTER, INNER, seed=1), drawn(OUTER, seed=2)
    close(linear(laid(x, how), weight_OI, bias_O), torch.nn.functional.linear(x, weight_OI, bias_O))


def gradients(
    function: Callable[..., Tensor], shape: tuple[int, ...], needed: tuple[bool, ...], twice: bool
) -> list[Tensor | None]:
    """The output, then the gradients of x, weight and bias where they are needed."""
    values = drawn(*shape), drawn(OUTER, INNER, seed=1), drawn(OUTER, seed=2)
    leaves = [value.requires_grad_(need) for value, need in zip(values, needed, strict=True)]
    y = function(*leaves[: len(needed)])
    assert y.requires_grad
    slope = laid(drawn(*y.shape, seed=3), "columns")  # as an attention hands it back
    y.backward(slope, retain_graph=twice)
    if twice:
        y.backward(slope)
    return [y.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("needed", [needed for needed in product((False, True), repeat=3) if any(needed)], ids=str)
@pytest.mark.parametrize("shape", [LARGE, LITTLE, (ROWS, INNER)], ids=str)
def test_gradients_are_those_of_torch(shape: tuple[int, ...], needed: tuple[bool, ...], asked: list[int]):
    found, wanted = (gradients(one, shape, needed, twice=False) for one in (linear, torch.nn.functional.linear))
    for one, other, need in zip(found, wanted, (True, *needed), strict=True):
        assert (one is not None) == (other is not None) == need
        if one is not None and other is not None:
            assert one.shape == other.shape
            close(one, other)


def test_a_graph_that_is_kept_is_walked_twice(asked: list[int]):
    found, wanted = (gradients(one, LARGE, (True,) * 3, twice=True) for one in (linear, torch.nn.functional.linear))
    for one, other in zip(found, wanted, strict=True):
        assert one is not None
        assert other is not None
        close(one, other)


def test_without_a_bias(asked: list[int]):
    x, weight_OI = drawn(*LARGE).requires_grad_(), drawn(OUTER, INNER, seed=1).requires_grad_()
    y = linear(x, weight_OI)
    close(y.detach(), torch.nn.functional.linear(x, weight_OI).detach())
    found = torch.autograd.grad(y.square().sum(), (x, weight_OI))
    wanted = torch.autograd.grad(torch.nn.functional.linear(x, weight_OI).square().sum(), (x, weight_OI))
    for one, other in zip(found, wanted, strict=True):
        close(one, other)


def test_what_comes_out_may_be_written_to(asked: list[int]):
    x = drawn(*LARGE).requires_grad_()
    weight_OI = drawn(OUTER, INNER, seed=1).requires_grad_()
    y = linear(x, weight_OI)
    assert not y._is_view()
    y.mul_(2).add_(1)
    (found,) = torch.autograd.grad(y.sum(), x)
    close(found, 2 * weight_OI.detach().sum(0).expand(LARGE))


def test_without_gradients_there_is_no_graph(asked: list[int]):
    x, weight_OI = drawn(*LARGE).requires_grad_(), drawn(OUTER, INNER, seed=1).requires_grad_()
    with torch.no_grad():
        y = linear(x, weight_OI)
    assert not y.requires_grad
    close(y, torch.nn.functional.linear(x, weight_OI).detach())


def test_only_what_a_gradient_needs_is_kept():
    kept: list[tuple[int, ...]] = []
    x, weight_OI = drawn(*LARGE), drawn(OUTER, INNER, seed=1)
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(tuple(value.shape)) or value, lambda value: value):
        linear(x.requires_grad_(), weight_OI)
        linear(x.detach(), weight_OI.requires_grad_())
        linear(x.detach(), weight_OI.detach(), drawn(OUTER).requires_grad_())
    assert kept == [(OUTER, INNER), LARGE]


def test_small_products_ask_nobody(asked: list[int]):
    one, other = drawn(*LITTLE), drawn(INNER, OUTER)
    assert torch.equal(multiply(one[0], other), torch.mm(one[0], other))
    affine(one, other, None)
    linear(one.requires_grad_(), other.t(), drawn(OUTER)).sum().backward()
    assert not asked
    rows = products.SMALL // INNER**2
    multiply(drawn(rows, INNER), drawn(INNER, INNER))  # the last that is small
    assert not asked
    multiply(drawn(rows + 1, INNER), drawn(INNER, INNER))
    assert len(asked) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_numbers_are_left_to_torch(dtype: torch.dtype, asked: list[int]):
    x, weight_OI, bias_O = (value.to(dtype) for value in (drawn(*LARGE), drawn(OUTER, INNER), drawn(OUTER)))
    assert torch.equal(linear(x, weight_OI, bias_O), torch.nn.functional.linear(x, weight_OI, bias_O))
    assert torch.equal(multiply(x[0], weight_OI.t()), torch.mm(x[0], weight_OI.t()))
    assert affine(x, weight_OI.t(), bias_O).dtype is dtype
    assert not asked


def test_under_autocast_torch_multiplies(asked: list[int]):
    x, weight_OI, bias_O = drawn(*LARGE).requires_grad_(), drawn(OUTER, INNER).requires_grad_(), drawn(OUTER).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, wanted = linear(x, weight_OI, bias_O), torch.nn.functional.linear(x, weight_OI, bias_O)
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, wanted)
    found.float().sum().backward()
    assert weight_OI.grad is not None
    assert not asked


def test_a_subclass_of_tensors_is_left_to_its_own_product(asked: list[int]):
    class Own(Tensor):
        pass

    assert type(multiply(drawn(ROWS, INNER), drawn(INNER, OUTER).as_subclass(Own))) is Own
    assert not asked


# ---- which one serves -----------------------------------------------------------------------------------------------------


def timed(monkeypatch: pytest.MonkeyPatch, ours: float, theirs: float) -> list[int]:
    """oneDNN takes `ours` seconds and torch `theirs`; every measurement is noted."""
    seconds, calls = [ours, theirs], []

    def fastest(work: Callable[[], object]) -> float:
        work()
        calls.append(1)
        return seconds[(len(calls) - 1) % 2]

    monkeypatch.setattr(products, "fastest", fastest)
    return calls


@pytest.mark.skipif(not THERE, reason="no oneDNN")
@pytest.mark.parametrize(("theirs", "serves"), [(3.0, True), (1.21, True), (1.19, False), (1.0, False), (0.5, False)])
def test_only_what_is_clearly_faster_serves(theirs: float, serves: bool, monkeypatch: pytest.MonkeyPatch):
    timed(monkeypatch, 1.0, theirs)
    assert onednn_serves(1) is serves


@pytest.mark.skipif(not THERE, reason="no oneDNN")
def test_it_is_measured_once_a_machine_and_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    calls = timed(monkeypatch, 1.0, 2.0)
    assert onednn_serves(1)
    onednn_serves.cache_clear()  # another process
    timed(monkeypatch, 1.0, 0.5)
    assert onednn_serves(1)
    assert len(calls) == 2
    assert not onednn_serves(2)


def broken(error: Exception) -> Callable[..., Tensor]:
    def product(*_given: object) -> Tensor:
        raise error

    return product


@pytest.mark.parametrize(
    "other",
    [
        SimpleNamespace(),
        SimpleNamespace(default=broken(RuntimeError("unknown"))),
        SimpleNamespace(default=broken(NotImplementedError("no kernel"))),
        SimpleNamespace(default=lambda left, right, *_: left @ right.t() + 0.01),
        SimpleNamespace(default=lambda left, right, *_: (left @ right.t()) * float("nan")),
    ],
    ids=["missing", "refuses", "no kernel", "wrong", "nan"],
)
def test_a_product_that_is_missing_or_wrong_does_not_serve(other: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    calls = timed(monkeypatch, 1.0, 9.0)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", other, raising=False)
    assert not onednn_serves(1)
    assert not calls


def test_a_build_without_onednn(monkeypatch: pytest.MonkeyPatch):
    calls = timed(monkeypatch, 1.0, 9.0)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not onednn_serves(1)
    assert not calls


def test_it_answers_on_this_machine():
    assert onednn_serves(torch.get_num_threads()) in (False, True)
    one, other = drawn(ROWS, INNER), drawn(INNER, OUTER)
    close(multiply(one, other), one @ other)
