"""Trees that begin alike become one; every token keeps its path, and every target its row."""

import random

import pytest

from tunewright.data.forest import Segment, Tree, single
from tunewright.data.sharing import shared

SHOTS = tuple(range(100, 130))


def question(number: int, shots: tuple[int, ...] = SHOTS, tuning: int = 0) -> Tree:
    root = Segment((*shots, number, number + 1), tuning=tuning, row=10 * number)
    options = [Segment((option,), 0, (1.0,), tuning=tuning, row=10 * number + option) for option in (1, 2)]
    return Tree((root, *options))


def paths(tree: Tree) -> dict[int, tuple[tuple[int, ...], tuple[float, ...]]]:
    """What each segment with targets reads and learns, by its row."""
    found = {}
    for index, segment in enumerate(tree.segments):
        if segment.trained:
            read = tuple(token for ancestor in tree.path(index) for token in tree.segments[ancestor].tokens)
            assert segment.row not in found
            found[segment.row] = (read, segment.targets)
    return found


def test_questions_behind_the_same_shots_become_one_tree():
    trees = [question(number) for number in (5, 3, 9)]
    (found,) = shared(trees, 1000)
    assert found.members == (0, 1, 2)
    assert found.tree.segments[0].tokens == SHOTS
    assert found.tree.size == len(SHOTS) + 3 * 4
    assert paths(found.tree) == {row: path for tree in trees for row, path in paths(tree).items()}


def test_equal_prompts_keep_a_token_each():
    (found,) = shared([question(4), question(4)], 1000)
    assert [len(segment.tokens) for segment in found.tree.segments] == [31, 1, 1, 1, 1, 1, 1]


def test_different_shots_make_different_trees():
    other = (*SHOTS[:20], *range(200, 230))
    found = shared([question(1), question(2, other), question(3), question(4, other), question(5)], 1000)
    assert [one.members for one in found] == [(0, 2, 4), (1, 3)]  # not one tree of the 20 tokens that all have


def test_an_accidental_token_in_common_breaks_no_group():
    trees = [question(1), question(3), Tree((Segment((*SHOTS, 4, 9)),)), Tree((Segment((*SHOTS, 4, 10)),))]
    assert [one.members for one in shared(trees, 1000)] == [(0, 1, 2, 3)]


@pytest.mark.parametrize(
    "trees",
    [
        [question(1), question(2, SHOTS[1:])],
        [question(1), question(2, tuning=1)],
        [question(1, SHOTS[:10]), question(2, SHOTS[:10])],
        [single(SHOTS, label=0), single(SHOTS, label=1)],
        [single(SHOTS, (0.0, *[1.0] * 29), row=number) for number in range(2)],  # what is learned twice counts twice
    ],
    ids=["beginnings", "tunings", "short", "labels", "targets"],
)
def test_what_cannot_be_shared_stands_as_it_was(trees: list[Tree]):
    assert [(one.tree, one.members) for one in shared(trees, 1000)] == [(tree, (number,)) for number, tree in enumerate(trees)]


def test_only_what_stands_before_the_first_target_is_shared():
    trees = [single((*SHOTS, number, 7), (*[0.0] * 20, *[1.0] * 12), row=number) for number in range(3)]
    (found,) = shared(trees, 1000)
    assert found.tree.segments[0].tokens == SHOTS[:20]
    assert found.tree.trained == 3 * 12


@pytest.mark.parametrize("budget", [1, 60, 75, 200])
def test_no_merged_tree_is_above_the_budget(budget: int):
    trees = [question(number) for number in range(20)]
    found = shared(trees, budget)
    assert all(one.tree.size <= budget or len(one.members) == 1 for one in found)
    assert sorted(member for one in found for member in one.members) == list(range(20))
    assert len(found) == {1: 20, 60: 3, 75: 2, 200: 1}[budget]


def test_nothing_is_lost_whatever_the_trees_are():
    draw = random.Random(0)
    for _ in range(30):
        trees = []
        for row in range(12):
            root = tuple(draw.randrange(2) if place > 6 else draw.randrange(9) // 8 for place in range(draw.randrange(1, 20)))
            child = Segment((draw.randrange(50),), 0, (1.0,), row=row)
            trees.append(Tree((Segment(root), child)))
        found = shared(trees, 60, least=2)
        together = {row: path for one in found for row, path in paths(one.tree).items()}
        assert together == {row: path for tree in trees for row, path in paths(tree).items()}
        assert sum(one.tree.size for one in found) <= sum(tree.size for tree in trees)


def test_no_trees():
    assert shared([], 10) == []
