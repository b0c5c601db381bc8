"""Where tokens stand in their prompts, in every layout, and what is laid out apart so that each token has one place."""

from __future__ import annotations

import pytest
import torch

from tunewright.data.forest import Segment, Tree
from tunewright.data.sharing import shared
from tunewright.engine import batch as layouts
from tunewright.engine.places import agree, disagreeing, nowhere, of_path, of_prompt, of_segments, placed
from tunewright.methods._reft import Positions
from tunewright.methods.loreft import LoReFT
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, toy_engine


def segment(count: int, parent: int | None = None, targets: str = "", begin: int = 5) -> Segment:
    """Targets as a string: `..xx` is two tokens to read and two to learn."""
    weights = tuple(float(mark == "x") for mark in targets)
    return Segment(tuple(range(begin, begin + count)), parent, weights)


ALONE = Tree((segment(5, targets="...xx"),))
WITHOUT_TARGETS = Tree((segment(3),))
OPTIONS = Tree((segment(4), segment(2, 0, "xx"), segment(3, 0, "xxx")))
UNEVEN = Tree((segment(6), segment(1, 0), segment(2, 1, "xx"), segment(4, 0, "...x")))  # prompts of 7 and of 9 tokens
ENDED = Tree((segment(4, targets="..xx"), segment(2, 0), segment(3, 0, "xxx")))


def test_a_prompt_ends_before_the_first_target() -> None:
    assert of_path(ALONE, 0) == ([0, 1, 2, -1, -1], [2, 1, 0, -1, -1])
    assert of_path(WITHOUT_TARGETS, 0) == of_prompt((7, 8, 9)) == ([0, 1, 2], [2, 1, 0])


def test_virtual_tokens_are_no_part_of_a_prompt() -> None:
    tree = Tree((Segment((-1, -2, 5, 6, 7), None, (0, 0, 0, 0, 1)),))
    assert of_path(tree, 0) == ([0, 1, -1], [1, 0, -1])
    assert of_segments(tree) == [of_path(tree, 0)]
    assert of_prompt((-3, 9)) == ([0], [0])


def test_segments_go_on_where_their_parents_end() -> None:
    assert of_segments(OPTIONS) == [([0, 1, 2, 3], [3, 2, 1, 0]), ([-1, -1], [-1, -1]), ([-1] * 3, [-1] * 3)]
    assert of_segments(ENDED)[0] == ([0, 1, -1, -1], [1, 0, -1, -1])
    assert of_segments(ENDED)[1] == ([-1, -1], [-1, -1])
    ahead, behind = of_segments(UNEVEN)[3]
    assert (ahead, behind) == ([6, 7, 8, -1], [2, 1, 0, -1])


@pytest.mark.parametrize(("tree", "edge", "wanted"), [(UNEVEN, 1, True), (UNEVEN, 2, False), (OPTIONS, 9, True), (ENDED, 9, True)])
def test_shared_tokens_have_one_place_up_to_the_edge(tree: Tree, edge: int, wanted: bool) -> None:
    assert agree(tree, edge) is wanted
    assert disagreeing([ALONE, tree], {0: edge}) == (frozenset() if wanted else {1})
    assert disagreeing([tree], {}) == frozenset()
    if wanted:
        for leaf in tree.leaves():
            alone = of_path(tree, leaf)
            together = [mark for index in tree.path(leaf) for mark in of_segments(tree)[index][1]]
            assert [min(mark, edge) for mark in together] == [min(mark, edge) for mark in alone[1]]


def test_nothing_of_a_prompt_in_the_root_cannot_disagree() -> None:
    assert agree(Tree((Segment((-1, -2)), segment(1, 0), segment(5, 0))), 9)
    assert not agree(Tree((Segment((-1, 7)), segment(1, 0), segment(5, 0))), 9)


@pytest.mark.parametrize("begins", [{}, {0: (-1, -2, -3)}])
def test_places_stand_where_the_tokens_do(begins: dict[int, tuple[int, ...]]) -> None:
    trees, edges = [ALONE, UNEVEN, OPTIONS], {0: 2}
    wide = layouts.padded(trees, 0, begins)
    forest = layouts.forest(trees, begins, apart=disagreeing(trees, edges))
    rows = placed(wide, trees, edges)
    assert rows.places is not None
    paths = [(tree, leaf) for tree in trees for leaf in tree.leaves()]
    extra = len(begins.get(0, ()))
    for number, (tree, leaf) in enumerate(paths):
        wanted = of_path(tree, leaf)
        for marks_T, own in zip(rows.places, wanted, strict=True):
            row = marks_T.view(wide.tokens_BT.shape)[number].tolist()
            assert row == [-1] * extra + own + [-1] * (len(row) - extra - len(own))
    found = placed(forest, trees, edges).places
    assert found is not None
    inside = forest.tokens_BT.flatten() >= 0
    one, two, three = of_path(ALONE, 0), [of_path(UNEVEN, leaf) for leaf in UNEVEN.leaves()], of_segments(OPTIONS)
    assert found.ahead_T[inside].tolist() == [mark for marks in (one, *two, *three) for mark in marks[0]]
    assert found.behind_T[inside].tolist() == [mark for marks in (one, *two, *three) for mark in marks[1]]
    assert set(found.ahead_T[~inside].tolist()) <= {-1}
    assert nowhere(3, found.ahead_T.device).ahead_T.tolist() == [-1] * 3


def test_what_fills_up_a_row_is_no_prompt() -> None:
    trees = [Tree((segment(45, targets="." * 40 + "x" * 5),)) for _ in range(7)]
    batch = placed(layouts.forest(trees), trees, {0: 2})
    assert batch.places is not None
    assert len(batch.places.ahead_T) == batch.tokens_BT.numel() >= 315
    assert batch.places.ahead_T[:315].tolist() == [*range(40), *[-1] * 5] * 7
    assert set(batch.places.behind_T[315:].tolist()) <= {-1}


@pytest.mark.parametrize("begins", [{}, {0: (-1, -2)}])
def test_what_is_laid_out_apart_keeps_its_targets_and_segments(begins: dict[int, tuple[int, ...]]) -> None:
    whole, apart = layouts.forest([ALONE, UNEVEN], begins), layouts.forest([ALONE, UNEVEN], begins, apart={1})
    for name in ("targets_N", "weights_N", "owners_N", "labels_S", "row_S"):
        assert torch.equal(getattr(apart, name), getattr(whole, name)), name
    assert apart.tokens_BT.numel() == whole.tokens_BT.numel() + 6
    assert apart.lanes[0].stop == apart.tokens_BT.numel()
    tokens = apart.tokens_BT.flatten()
    for batch in (whole, apart):
        before = batch.tokens_BT.flatten()[batch.rows_N]
        assert before.tolist() == whole.tokens_BT.flatten()[whole.rows_N].tolist()
    for (start, stop), one in zip(apart.spans_S2.tolist(), (*ALONE.segments, *UNEVEN.segments), strict=True):
        assert tuple(tokens[start:stop].tolist()) == one.tokens


def test_the_source_of_an_encoder_decoder_is_all_prompt() -> None:
    trees = [Tree((segment(4), segment(2, 0, "xx"))), Tree((segment(2), segment(3, 0, "xxx")))]
    batch = placed(layouts.sequence_to_sequence(trees, 0, 0, {0: (-1,)}), trees, {0: 1})
    assert batch.places is not None
    assert batch.places.ahead_T.tolist() == [-1, 0, 1, 2, 3, -1, 0, 1, -1, -1]
    assert batch.places.behind_T.tolist() == [-1, 3, 2, 1, 0, -1, 1, 0, -1, -1]


def test_nobody_asks_nobody_pays() -> None:
    model = tiny("llama")
    assert toy_engine(model).collate([UNEVEN]).places is None
    LoReFT(rank=2).attach(model, 0)
    assert toy_engine(model).collate([UNEVEN]).places is not None
    assert toy_engine(model).collate([UNEVEN]).part(0).places is not None


def test_merged_trees_keep_the_ends_of_prompts_to_themselves() -> None:
    one, other = segment(30, targets="." * 25 + "x" * 5), Segment((*range(5, 27), 99, 98), None, (0.0,) * 23 + (1.0,))
    trees = [Tree((one,)), Tree((other,))]
    for edge in (0, 3, 5):
        (merged,) = shared(trees, 512, least=4, edges={0: edge})
        assert len(merged.tree.segments[0].tokens) == min(22, 23 - edge)
        assert agree(merged.tree, edge)
    assert not agree(shared(trees, 512)[0].tree, 3)


@pytest.mark.parametrize("layout", ["forest", "padded"])
def test_a_tree_computes_what_its_paths_do_alone(layout: str) -> None:
    """Also where a shared token is among the last of one prompt only."""
    model = tiny("llama")
    tuning = LoReFT(rank=2, positions=Positions(first=2, last=3), share=False).attach(model, 0)
    engine = toy_engine(model, tuning, layout)
    tree = Tree((segment(6), segment(1, 0, begin=50), segment(2, 1, "xx", begin=60), segment(4, 0, "...x", begin=70)))
    assert not agree(tree, 3)
    alone = []
    for leaf in tree.leaves():
        path = [tree.segments[index] for index in tree.path(leaf)]
        tokens = tuple(token for one in path for token in one.tokens)
        weights = tuple(weight for one in path for weight in (one.targets or (0.0,) * len(one.tokens)))
        alone.append(engine.score([Tree((Segment(tokens, None, weights),))])[0])
    assert difference(engine.score([tree])[0], torch.cat(alone)) < 1e-5
