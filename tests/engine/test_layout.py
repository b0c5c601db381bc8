"""Layouts: what follows from lengths and paths."""

from __future__ import annotations

import random

import pytest
import torch

from tunewright.engine import batch
from tunewright.engine.attention import dense_mask
from tunewright.engine.layout import Layout, visible

CPU = torch.device("cpu")


def random_layout(seed: int, segments: int = 10) -> Layout:
    """Random trees, whose segments may stand between those of other trees, some of them empty."""
    draw = random.Random(seed)
    paths: list[tuple[int, ...]] = []
    for index in range(segments):
        parent = draw.choice([None, *range(index)])
        paths.append(() if parent is None else (*paths[parent], parent))
    return Layout(tuple(draw.randrange(0, 6) for _ in range(segments)), tuple(paths))


def test_where_segments_stand():
    layout = Layout((4, 0, 3, 2), ((), (0,), (0, 1), ()))
    assert layout.starts == (0, 4, 4, 7, 9)
    assert layout.total == 9
    assert layout.depths == (0, 4, 4, 0)
    assert not layout.rooted
    assert Layout((1, 2), ((), ())).rooted
    assert Layout((), ()).total == 0
    assert layout.marks(CPU).position_T.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert batch.Layout is Layout


def test_a_walk_nests_what_is_below():
    layout = Layout((1,) * 5, ((), (0,), (0,), (0, 2), ()))
    walk = layout.walk
    for index, path in enumerate(layout.paths):
        for other in range(5):
            above = walk[other][0] <= walk[index][0] < walk[other][1]
            assert above == (other in path or other == index)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_visible_is_the_dense_mask(seed: int, causal: bool, window: int | None):
    layout = random_layout(seed)
    places_T = torch.arange(layout.total)
    found = visible(layout.marks(CPU), places_T[:, None], places_T[None, :], causal, window)
    assert torch.equal(found, dense_mask(layout, causal, window))


def test_what_is_derived_is_made_once_and_is_not_part_of_a_layout():
    layout, other = Layout((2, 3), ((), ())), Layout((2, 3), ((), ()))
    made = []
    for _ in range(3):
        assert layout.derived("key", lambda: made.append(1) or "value") == "value"
    assert made == [1]
    assert layout.marks(CPU) is layout.marks(CPU)
    assert layout == other
    assert hash(layout) == hash(other)
    assert repr(layout) == repr(other)
