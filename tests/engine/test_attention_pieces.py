"""How a layout is cut into pieces and blocks: everything once, nothing that is not needed, few calls."""

from __future__ import annotations

import random
from itertools import chain, pairwise

import pytest
import torch

from tunewright.engine.attention.dense import dense_mask
from tunewright.engine.attention.pieces import JOIN, OVERHEAD, Cut, Piece, buckets, cut
from tunewright.engine.attention.plan import LARGEST, Plan, _Asking, _grouped, plan_of
from tunewright.engine.layout import Layout

PLAIN = Cut(True, None, 64)
LIKE = torch.zeros(0)


def family(root: int, *children: int) -> Layout:
    """A root and its children."""
    return Layout((root, *children), ((), *((0,) for _ in children)))


def rows_of(piece: Piece) -> list[int]:
    """Every row of a piece."""
    return list(range(piece.rows[0], piece.rows[0] + piece.count * piece.length))


def keys_of(piece: Piece, number: int) -> list[int]:
    """The keys of one of its runs of rows."""
    shift = number * piece.length
    own = range(piece.own[0] + shift, piece.own[1] + shift)
    return [*chain.from_iterable(range(*run) for run in piece.context), *own]


def random_layout(seed: int) -> Layout:
    """Random trees of segments short and long."""
    draw = random.Random(seed)
    paths: list[tuple[int, ...]] = []
    for index in range(14):
        parent = draw.choice([None, *range(index)])
        paths.append(() if parent is None else (*paths[parent], parent))
    return Layout(tuple(draw.choice((0, 1, 6, 30, 30, 100, 200)) for _ in paths), tuple(paths))


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(
    "how", [PLAIN, Cut(False, None, 64), Cut(True, 25, 64), Cut(False, 25, 32), Cut(True, 10_000, 128)], ids=str
)
def test_every_row_asks_once_and_no_key_that_it_sees_is_missing(seed: int, how: Cut):
    layout = random_layout(seed)
    mask = dense_mask(layout, how.causal, how.window)
    pieces = cut(layout, how)
    assert sorted(chain.from_iterable(map(rows_of, pieces))) == list(range(layout.total))
    for piece in pieces:
        assert piece.length <= max(how.tile, JOIN)
        for number in range(piece.count):
            keys = keys_of(piece, number)
            rows = rows_of(piece)[number * piece.length : (number + 1) * piece.length]
            assert len(set(keys)) == len(keys)
            unseen = torch.ones(layout.total, dtype=torch.bool)
            unseen[keys] = False
            assert not mask[rows][:, unseen].any()
            assert mask[rows][:, keys[: piece.clear]].all()


def test_long_segments_are_cut_and_do_not_compute_what_is_masked_away():
    pieces = cut(Layout((200,), ((),)), PLAIN)
    assert [piece.rows for piece in pieces] == [(0, 64), (64, 128), (128, 192), (192, 200)]
    assert [piece.own for piece in pieces] == [(0, 64), (0, 128), (0, 192), (0, 200)]
    assert [piece.rows for piece in cut(Layout((130,), ((),)), Cut(True, None, 128))] == [(0, 80), (80, 130)]


def test_short_trees_are_one_piece():
    assert [piece.rows for piece in cut(family(20, 10, 10), PLAIN)] == [(0, 40)]


def test_equal_siblings_are_one_piece_of_several_runs():
    first, second, *others = cut(family(100, 40, 40, 40), PLAIN)
    assert (first.rows, second.rows) == ((0, 64), (64, 100))
    (twins,) = others
    assert (twins.rows, twins.count, twins.context, twins.own) == ((100, 140), 3, ((0, 100),), (100, 140))


def test_short_siblings_are_joined_behind_their_prefix():
    pieces = cut(family(100, *[6] * 20), PLAIN)[2:]
    assert [piece.length for piece in pieces] == [60, 60]
    assert JOIN == 64
    assert [(piece.context, piece.own) for piece in pieces] == [((), (0, 160)), (((0, 100),), (160, 220))]


def test_a_window_leaves_out_what_is_out_of_reach():
    pieces = cut(Layout((400,), ((),)), Cut(True, 64, 64))
    assert max(piece.own[1] - piece.own[0] for piece in pieces) <= 64 + 64
    wide = cut(Layout((400,), ((),)), Cut(True, 400, 64))
    assert wide == cut(Layout((400,), ((),)), PLAIN)


@pytest.mark.parametrize("seed", range(10))
def test_buckets_cost_no_more_than_any_other_cut(seed: int):
    draw = random.Random(seed)
    lengths = [draw.randrange(1, 129) for _ in range(draw.randrange(1, 30))]
    dealt = buckets(lengths, 16)

    def price(groups: list[list[int]]) -> int:
        return sum(OVERHEAD + len(group) * (-(-max(group) // 16) * 16) ** 2 for group in groups)

    assert sorted(chain.from_iterable(dealt)) == list(range(len(lengths)))
    ours = price([[lengths[index] for index in group] for group in dealt])
    ordered = sorted(lengths)
    for _ in range(200):
        cuts = sorted({0, len(ordered), *(draw.randrange(len(ordered) + 1) for _ in range(draw.randrange(5)))})
        assert ours <= price([ordered[begin:end] for begin, end in pairwise(cuts)])


def test_sixteen_rows_of_about_one_length_are_one_product():
    plan = plan_of(Layout((60,) * 16, ((),) * 16), True, None, 2, LIKE)
    assert [(block.count, block.length) for block in plan.blocks] == [(16, 64)]
    near = Layout(tuple(50 + index for index in range(14)), ((),) * 14)
    assert len(plan_of(near, True, None, 2, LIKE).blocks) == 1


def test_a_plan_is_made_once_for_all_layers_of_a_kind():
    layout = family(100, 40, 40)
    plan = plan_of(layout, True, None, 2, LIKE)
    assert plan_of(layout, True, None, 2, LIKE) is plan
    assert plan_of(layout, True, 30, 2, LIKE) is not plan
    assert plan_of(layout, True, None, 2, LIKE.bfloat16()) is not plan
    assert plan_of(family(100, 40, 40), True, None, 2, LIKE) is not plan


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("key_heads", [1, 3])
def test_folding_and_unfolding_are_inverse(seed: int, key_heads: int):
    layout = random_layout(seed)
    plan = plan_of(layout, True, None, key_heads, LIKE)
    places = torch.arange(layout.total * key_heads)
    assert torch.equal(plan.fold_N[plan.unfold], places)
    padded = set() if plan.padding is None else set(plan.padding.tolist())
    assert padded | set(plan.unfold.tolist()) == set(range(len(plan.fold_N)))
    assert not padded & set(plan.unfold.tolist())


def standing_in(plan: Plan, key_heads: int) -> torch.Tensor:
    """Where the key of each place stands among T * K, from the blocks alone."""
    found = torch.full((plan.places,), -1)
    for block in plan.blocks:
        if block.index is None:
            assert block.own is not None
            index = (torch.arange(*block.own) * key_heads + torch.arange(key_heads)[:, None]).flatten()
        else:
            index = block.index
        found[block.places] = index
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("key_heads", [1, 3])
def test_every_place_of_a_gradient_is_in_the_bag_of_its_key(seed: int, key_heads: int):
    layout = random_layout(seed)
    plan = plan_of(layout, True, None, key_heads, LIKE)
    standing = standing_in(plan, key_heads)
    assert sorted(plan.seen.tolist()) == list(range(plan.places))
    ends = [*plan.bags.tolist()[1:], plan.places]
    for slot, (start, stop) in enumerate(zip(plan.bags.tolist(), ends, strict=True)):
        assert start < stop, "each token sees itself"
        assert set(standing[plan.seen[start:stop]].tolist()) == {slot}


@pytest.mark.parametrize("seed", range(5))
def test_blocks_compute_every_pair_that_is_seen_once(seed: int):
    layout = random_layout(seed)
    plan = plan_of(layout, True, None, 1, LIKE)
    pairs = torch.zeros(layout.total, layout.total, dtype=torch.long)
    unread = set() if plan.padding is None else set(plan.padding.tolist())
    for block, keys in ((block, standing_in(plan, 1)[block.places].view(block.count, -1)) for block in plan.blocks):
        seen = torch.ones(block.count, block.length, block.columns, dtype=torch.bool)
        if block.mask is not None:
            seen[..., block.columns - block.mask.shape[-1] :] &= (block.mask == 0)[:, :, 0]
        rows = plan.fold_N[block.folded].view(block.count, -1)
        real = torch.tensor([place not in unread for place in range(block.folded.start, block.folded.stop)]).view(rows.shape)
        for run, row, column in (seen & real[..., None]).nonzero().tolist():
            pairs[rows[run, row], keys[run, column]] += 1
    assert torch.equal(pairs, dense_mask(layout).long())


def test_answers_of_several_prompts_are_one_product():
    layout = Layout((128, 58, 60, 128, 59, 57), ((), (0,), (0,), (), (3,), (3,)))
    plan = plan_of(layout, True, None, 2, LIKE.bfloat16())
    assert [(block.count, block.length, block.columns) for block in plan.blocks] == [(2, 128, 128), (4, 64, 192)]


def test_keys_that_stand_in_one_run_are_not_copied():
    plan = plan_of(Layout((100,), ((),)), True, None, 2, LIKE)
    assert [(block.own, block.index is None) for block in plan.blocks] == [(None, False), ((0, 100), True)]


def test_runs_are_joined_while_padding_is_cheaper_than_calls():
    near = [_Asking(100 * number, 30 + number, ((0, 50), (60, 100 + number)), 90 + number, 0) for number in range(4)]
    assert [len(group) for group in _grouped(near, 16, OVERHEAD)] == [4]
    views = [one._replace(keys=((0, one.columns),)) for one in near]
    assert len(list(_grouped(views, 16, OVERHEAD))) > 1, "gathering what could be a view costs too"
    far = [*near, _Asking(1000, 64, ((0, 800),), 800, 0)]
    assert [len(group) for group in _grouped(far, 16, OVERHEAD)] == [1, 4]
    large = [_Asking(512 * number, 256, ((0, 512),), 512, 0) for number in range(5)]
    sizes = [len(group) for group in _grouped(large, 16, OVERHEAD)]
    assert sum(sizes) == 5
    assert max(sizes) * 256 * 512 <= LARGEST


def test_a_plan_of_a_large_row_is_made_in_milliseconds():
    import time

    layout = Layout((64,) * 128, ((),) * 128)
    start = time.process_time()
    plan_of(layout, True, None, 8, LIKE)
    assert time.process_time() - start < 0.2
