"""Forest attention against the dense mask, number by number."""

from types import SimpleNamespace

import pytest
import torch

from tunewright.data.forest import Segment, Tree
from tunewright.engine import batch as layouts
from tunewright.engine.attention import ForestUnsupportedError, dense_mask, forest_attention

TREES = {
    "one": [Tree((Segment((1,) * 7),))],
    "single tokens": [Tree((Segment((1,)), Segment((2,), 0), Segment((3,), 0)))],
    "packed": [Tree((Segment((1,) * count),)) for count in (5, 1, 9, 2)],
    "pairs": [Tree((Segment((1,) * 6), Segment((2,) * 3, 0), Segment((3,) * 5, 0))), Tree((Segment((1,) * 4),))],
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


def oracle(query, key, value, batch, *, causal, scale, window, softcap):
    """Plain attention under a dense mask."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    mask = dense_mask(batch.layout, causal)
    if window is not None:
        places = batch.positions_BT[0]
        mask &= (places[:, None] - places[None, :]).abs() < window
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
    wanted = oracle(*states, batch, **chosen)
    assert weights is None
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(output, states, slope) for output in (found, wanted))
    torch.testing.assert_close(ours, theirs, atol=5e-6, rtol=1e-5)


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
