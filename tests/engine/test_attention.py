"""Forest attention against the dense mask, number by number."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from tunewright.data.forest import Segment, Tree
from tunewright.engine import batch as layouts
from tunewright.engine.attention import ForestUnsupportedError, Options, blocks, dense_mask, forest_attention
from tunewright.engine.attention.blocks import blockwise
from tunewright.engine.layout import Layout

TREES = {
    "one": [Tree((Segment((1,) * 7),))],
    "single tokens": [Tree((Segment((1,)), Segment((2,), 0), Segment((3,), 0)))],
    "packed": [Tree((Segment((1,) * count),)) for count in (5, 1, 9, 2)],
    "pairs": [Tree((Segment((1,) * 6), Segment((2,) * 3, 0), Segment((3,) * 5, 0))), Tree((Segment((1,) * 4),))],
    "long": [Tree((Segment((1,) * count),)) for count in (150, 3, 65, 17)],
    "twins": [Tree((Segment((1,) * 70), *(Segment((2,) * 34, 0) for _ in range(3)), Segment((3,) * 33, 0)))],
    "options": [Tree((Segment((1,) * 80), *(Segment((2,) * count, 0) for count in (3, 1, 4, 30, 25, 9, 2))))],
    "nothing in between": [Tree((Segment((1,) * 66), Segment((), 0), Segment((2,) * 5, 1), Segment((3,) * 5, 1)))],
    "deep and long": [
        Tree((Segment((1,) * 40), Segment((2,) * 90, 0), Segment((3,) * 20, 0), Segment((4,) * 70, 1), Segment((5,) * 7, 1))),
        Tree((Segment((1,) * 9),)),
    ],
    "deep": [
        Tree(
            (
                Segment((1,) * 4),
                Segment((2,) * 3, 0),
                Segment((3,) * 5, 0),
                Segment((4,) * 2, 1),
                Segment((5,) * 6, 1),
                Segment((6,), 4),
            )
        )
    ],
}


def oracle(query, key, value, layout, *, causal=True, scale=None, window=None, softcap=None):
    """Plain attention under a dense mask."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    mask = dense_mask(layout, causal, window)
    return (scores.masked_fill(~mask, float("-inf")).softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("trees", TREES.values(), ids=TREES.keys())
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": False},
        {"scale": 0.3},
        {"window": 3},
        {"window": 100},
        {"window": 3, "causal": False},
        {"window": 50},
        {"window": 50, "causal": False},
        {"softcap": 2.0},
        {"softcap": 2.0, "window": 4, "scale": 0.7},
    ],
    ids=str,
)
def test_forest_is_the_dense_mask(trees: list[Tree], heads: tuple[int, int], options: dict):
    chosen = {"causal": True, "scale": None, "window": None, "softcap": None, **options}
    batch = layouts.forest(trees)
    total = batch.tokens_BT.shape[1]
    generator = torch.Generator().manual_seed(total)
    shapes = [(1, heads[0], total, 8), (1, heads[1], total, 8), (1, heads[1], total, 8)]
    states = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    slope = torch.randn((1, total, heads[0], 8), generator=generator)
    found, weights = forest_attention(
        SimpleNamespace(is_causal=chosen["causal"]),  # type: ignore[arg-type]
        *states,
        None,
        scaling=chosen["scale"],
        sliding_window=chosen["window"],
        softcap=chosen["softcap"],
        forest=batch.layout,
    )
    wanted = oracle(*states, batch.layout, **chosen)
    assert weights is None
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(output, states, slope) for output in (found, wanted))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


def test_nothing_but_ancestors_is_seen():
    batch = layouts.forest(TREES["deep"])
    mask = dense_mask(batch.layout)
    lengths = batch.layout.lengths
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        for column, (other, size) in enumerate(zip(starts, lengths, strict=True)):
            block = mask[start : start + length, other : other + size]
            if column in batch.layout.paths[row]:
                assert block.all()
            elif row != column:
                assert not block.any()
    assert int(mask.sum(1)[-1]) == 4 + 3 + 6 + 1


@pytest.mark.parametrize("given", [{"s_aux": torch.zeros(2)}, {"position_bias": torch.zeros(1)}, {"forest": None}])
def test_what_is_not_computed_is_refused(given: dict):
    batch = layouts.forest(TREES["one"])
    states = [torch.zeros(1, 2, 7, 8) for _ in range(3)]
    with pytest.raises(ForestUnsupportedError):
        forest_attention(SimpleNamespace(is_causal=True), *states, None, **{"forest": batch.layout, **given})
    with pytest.raises(ForestUnsupportedError):
        forest_attention(SimpleNamespace(is_causal=True), *states, torch.zeros(1), forest=batch.layout)


def test_dropout_of_capped_attention_is_not_forgotten():
    batch = layouts.forest(TREES["packed"])
    states = [torch.randn(1, 2, 17, 8, generator=torch.Generator().manual_seed(1)) for _ in range(3)]
    torch.manual_seed(0)
    plain, dropped = (
        forest_attention(SimpleNamespace(is_causal=True), *states, None, dropout=rate, softcap=2.0, forest=batch.layout)[0]
        for rate in (0.0, 0.5)
    )
    assert not torch.equal(plain, dropped)


MODULE = SimpleNamespace(is_causal=True)


def drawn(
    layout: Layout, heads: tuple[int, int] = (4, 2), width: int = 8, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """Queries, keys and values as projections leave them in memory, and the gradient of the output."""
    generator = torch.Generator().manual_seed(layout.total)
    shapes = [(1, layout.total, count, width) for count in (*heads, heads[1], heads[0])]
    states = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return [*(tensor.transpose(1, 2).requires_grad_() for tensor in states[:3]), states[3]]


def worst(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference."""
    return float((one - other).detach().abs().max())


def random_layout(seed: int, segments: int = 12) -> Layout:
    """Random trees, whose segments may stand between those of other trees."""
    draw = random.Random(seed)
    paths: list[tuple[int, ...]] = []
    for index in range(segments):
        parent = draw.choice([None, *range(index)])
        paths.append(() if parent is None else (*paths[parent], parent))
    return Layout(tuple(draw.choice((0, 1, 5, 17, 40, 90)) for _ in range(segments)), tuple(paths))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("window", [None, 30])
def test_any_order_of_segments_is_served(seed: int, window: int | None):
    layout = random_layout(seed)
    *states, slope = drawn(layout)
    found, _ = forest_attention(MODULE, *states, None, sliding_window=window, forest=layout)
    wanted = oracle(*states, layout, window=window)
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(output, states, slope) for output in (found, wanted))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradients_are_those_of_finite_differences(softcap: float | None):
    layout = Layout((3, 70, 2, 2, 5), ((), (), (1,), (1,), ()))
    *states, _ = drawn(layout, (2, 1), 2, torch.float64)
    options = Options(True, 0.5, None, softcap)
    assert torch.autograd.gradcheck(lambda *given: blockwise(*given, layout, options), states, fast_mode=True)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("trees", ["long", "options", "twins", "packed"])
def test_weights_made_again_are_the_weights_that_were_kept(monkeypatch, trees: str, softcap: float | None):
    layout = layouts.forest(TREES[trees]).layout
    *states, slope = drawn(layout)
    kept, again = [], []
    for share, into in ((1e9, kept), (0, again)):
        monkeypatch.setattr(blocks, "KEEP", share)
        torch.manual_seed(3)
        output, _ = forest_attention(MODULE, *states, None, dropout=0.3, softcap=softcap, forest=layout)
        into.extend(torch.autograd.grad(output, states, slope))
    torch.testing.assert_close(again, kept, atol=0, rtol=0)


def test_dropped_weights_are_scaled_and_their_gradients_too():
    layout = layouts.forest(TREES["options"]).layout
    *states, slope = drawn(layout)
    torch.manual_seed(0)
    with torch.no_grad():
        plain, _ = forest_attention(MODULE, *states, None, forest=layout)
        several = torch.stack([forest_attention(MODULE, *states, None, dropout=0.2, forest=layout)[0] for _ in range(200)])
    assert float((several.mean(0) - plain).abs().max()) < 0.5 * float(several.std(0).max())
    # The output is linear in the values: their gradient, times the values, is the output times its gradient.
    torch.manual_seed(1)
    output, _ = forest_attention(MODULE, *states, None, dropout=0.2, forest=layout)
    gradient = torch.autograd.grad(output, states[2], slope)[0]
    torch.testing.assert_close((gradient * states[2]).sum(), (output * slope).sum(), atol=1e-3, rtol=1e-4)
    options = Options(True, 8**-0.5, None, None, 0.2)

    def repeated(*given):
        torch.manual_seed(5)
        return blockwise(*given, layout, options)

    doubles = [state.detach().double().requires_grad_() for state in states]
    assert torch.autograd.gradcheck(repeated, doubles, fast_mode=True)


@pytest.mark.parametrize("trees", ["long", "twins", "options", "packed", "deep and long"])
def test_bfloat16_is_as_exact_as_attention_with_rounded_weights(trees: str):
    layout = layouts.forest(TREES[trees]).layout
    *states, slope = drawn(layout, dtype=torch.bfloat16)
    found, _ = forest_attention(MODULE, *states, None, forest=layout)
    assert found.dtype == torch.bfloat16
    exact = [state.detach().float().requires_grad_() for state in states]
    wanted = oracle(*exact, layout)
    rounded = oracle(*states, layout)  # every product and every weight rounded
    assert worst(found, wanted) <= 1.5 * worst(rounded, wanted)
    ours, theirs, plain = (
        torch.autograd.grad(output, given, slope.to(output.dtype))
        for output, given in ((found, states), (wanted, exact), (rounded, states))
    )
    for one, other, rough in zip(ours, theirs, plain, strict=True):
        assert worst(one, other) <= 1.5 * worst(rough, other)


def test_autocast_decides_what_products_run_in():
    layout = layouts.forest(TREES["twins"]).layout
    *states, slope = drawn(layout)
    low = [states[0], states[1], states[2].detach().bfloat16().requires_grad_()]  # as rotary positions leave them
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = forest_attention(MODULE, *low, None, forest=layout)
    assert found.dtype == torch.bfloat16
    gradients = torch.autograd.grad(found, low, slope.bfloat16())
    assert [gradient.dtype for gradient in gradients] == [torch.float32, torch.float32, torch.bfloat16]
    torch.testing.assert_close(found.float(), oracle(*states, layout), atol=0.05, rtol=0.05)


def test_values_may_be_narrower_than_keys_and_parts_may_be_frozen():
    layout = layouts.forest(TREES["options"]).layout
    query, key, value, slope = drawn(layout)
    narrow = value.detach()[..., :4].contiguous().requires_grad_()
    found, _ = forest_attention(MODULE, query.detach(), key.detach(), narrow, None, forest=layout)
    wanted = oracle(query.detach(), key.detach(), narrow, layout)
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(output, narrow, slope[..., :4]) for output in (found, wanted))
    torch.testing.assert_close(ours, theirs, atol=5e-6, rtol=1e-5)


def test_the_output_lies_in_memory_as_the_next_projection_reads_it():
    layout = layouts.forest(TREES["long"]).layout
    *states, slope = drawn(layout)
    found, _ = forest_attention(MODULE, *states, None, forest=layout)
    assert found.is_contiguous()
    query, key, value = torch.autograd.grad(found, states, slope)
    assert all(gradient.transpose(1, 2).is_contiguous() for gradient in (query, key, value))


def test_a_call_that_does_not_fit_the_layout_is_refused():
    layout = layouts.forest(TREES["one"]).layout
    states = [torch.zeros(1, 2, 8, 8) for _ in range(3)]
    with pytest.raises(ForestUnsupportedError, match="8 queries and 8 keys, a layout of 7 tokens"):
        forest_attention(MODULE, *states, None, forest=layout)
