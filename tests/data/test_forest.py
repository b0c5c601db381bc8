"""Trees: what they refuse to be, and how they are walked."""

import pytest

from tunewright.data.forest import Forest, Segment, Tree, single

#        0 (3 tokens)
#        |-- 1 (2) -- 3 (1)
#        |       \--- 4 (0)
#        `-- 2 (4)
BRANCHED = Tree(
    (
        Segment((10, 11, 12), None, (0.0, 0.0, 1.0)),
        Segment((20, 21), 0, (1.0, 0.5)),
        Segment((30, 31, 32, 33), 0),
        Segment((40,), 1, (2.0,)),
        Segment((), 1),
    )
)


@pytest.mark.parametrize(
    ("segments", "problem"),
    [
        ((Segment((1,), 0),), "segment 0 of a tree has parent 0"),
        ((Segment((1,)), Segment((2,))), "segment 1 of a tree has parent None"),
        ((Segment((1,)), Segment((2,), 1)), "segment 1 of a tree has parent 1"),
        ((Segment((1,)), Segment((2,), 2), Segment((3,), 0)), "segment 1 of a tree has parent 2"),
        ((Segment((1, 2), None, (0.0,)),), "has 2 tokens and 1 target weights"),
        ((Segment((1,)), Segment((2,), 0, (1.0, 1.0))), "segment 1 has 1 tokens and 2 target weights"),
        ((Segment((1, 2), None, (0.1, 0.0)),), "nothing stands before it"),
    ],
    ids=str,
)
def test_a_tree_that_cannot_be_is_refused(segments: tuple[Segment, ...], problem: str):
    with pytest.raises(ValueError, match=problem):
        Tree(segments)


def test_the_first_token_of_a_child_may_be_a_target():
    assert Tree((Segment((1,)), Segment((2,), 0, (1.0,)))).trained == 1


def test_sizes_and_targets_are_counted_over_all_segments():
    assert BRANCHED.size == 10
    assert BRANCHED.trained == 4  # weights count as one token each, however large
    assert [segment.trained for segment in BRANCHED.segments] == [1, 2, 0, 1, 0]
    forest = Forest((BRANCHED, single((1, 2, 3), (0.0, 1.0, 0.0))))
    assert (forest.size, forest.trained) == (13, 5)


def test_paths_begin_at_the_root():
    assert [BRANCHED.path(index) for index in range(5)] == [[0], [0, 1], [0, 2], [0, 1, 3], [0, 1, 4]]


def test_the_depth_is_the_first_position_of_a_segment():
    assert [BRANCHED.depth(index) for index in range(5)] == [0, 3, 3, 5, 5]


def test_leaves_are_what_nothing_continues():
    assert BRANCHED.leaves() == [2, 3, 4]
    assert single((1, 2)).leaves() == [0]


def test_a_single_carries_its_label_and_row():
    (segment,) = single((1, 2), (0.0, 1.0), label=3, row=7).segments
    assert segment == Segment((1, 2), None, (0.0, 1.0), label=3, row=7)
