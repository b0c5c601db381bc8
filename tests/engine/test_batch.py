"""The layouts carry the same targets: forest, padded, and encoder-decoder pairs."""

import pytest
import torch

from tunewright.data.forest import Segment, Tree, single
from tunewright.engine import batch as layouts
from tunewright.engine.engine import Engine, Probed
from tunewright.engine.network import use_layout
from tunewright.models.lanes import Lane
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, toy_engine, toy_trees

MIXED = [
    Tree((Segment((7, 8, 9), row=0), Segment((10, 11), 0, (1.0, 1.0), row=0), Segment((12, 13, 14), 0, (1.0, 0.5, 0.0), row=1))),
    single((20, 21, 22, 23), (0.0, 1.0, 0.0, 2.0), label=1, row=2),
    Tree(
        (
            Segment((30, 31), None, (0.0, 1.0), row=3),
            Segment((32, 33), 0, (1.0, 1.0), row=3),
            Segment((34,), 0, (1.0,), row=4),
            Segment((35, 36), 1, (1.0, 1.0), row=5),
        )
    ),
]


def test_forest_by_hand():
    batch = layouts.forest(MIXED[:2])
    assert batch.tokens_BT.tolist() == [[7, 8, 9, 10, 11, 12, 13, 14, 20, 21, 22, 23]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2, 3]]
    assert batch.layout == layouts.Layout((3, 2, 3, 4), ((), (0,), (0,), ()))
    assert batch.rows_N.tolist() == [2, 3, 2, 5, 8, 10]
    assert batch.targets_N.tolist() == [10, 11, 12, 13, 21, 23]
    assert batch.weights_N.tolist() == [1, 1, 1, 0.5, 1, 2]
    assert batch.owners_N.tolist() == [1, 1, 2, 2, 3, 3]
    assert batch.labels_S.tolist() == [-1, -1, -1, 1]
    assert batch.row_S.tolist() == [0, 0, 1, 2]
    assert batch.spans_S2.tolist() == [[0, 3], [3, 5], [5, 8], [8, 12]]
    assert batch.tokens == 12


def test_padded_by_hand():
    batch = layouts.padded(MIXED[:2], pad=0)
    assert batch.tokens_BT.tolist() == [[7, 8, 9, 10, 11, 0], [7, 8, 9, 12, 13, 14], [20, 21, 22, 23, 0, 0]]
    assert batch.mask_BT.sum(1).tolist() == [5, 6, 4]
    assert batch.rows_N.tolist() == [2, 3, 8, 9, 12, 14]
    assert batch.spans_S2.tolist() == [[0, 3], [3, 5], [9, 12], [12, 16]]


def test_sequence_to_sequence_by_hand():
    trees = [
        Tree((Segment((7, 8, 9)), Segment((10, 11, 2), 0, (1.0, 1.0, 1.0)))),
        Tree((Segment((5,)), Segment((6, 2), 0, (0.0, 1.0)))),
    ]
    batch = layouts.sequence_to_sequence(trees, pad=0, start_token=1)
    assert batch.source_BT.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert batch.source_mask_BT.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.tokens_BT.tolist() == [[1, 10, 11], [1, 6, 0]]
    assert batch.rows_N.tolist() == [0, 1, 2, 4]
    assert batch.targets_N.tolist() == [10, 11, 2, 2]
    assert batch.tokens == 12
    with pytest.raises(ValueError, match=r"root .encoder. with children"):
        layouts.sequence_to_sequence(MIXED, pad=0, start_token=1)


@pytest.mark.parametrize("names", [("targets_N",), ("weights_N",), ("owners_N",), ("labels_S",), ("row_S",)], ids=str)
def test_layouts_list_the_same_things_in_the_same_order(names: tuple[str, ...]):
    one, other = layouts.forest(MIXED), layouts.padded(MIXED, 0)
    for name in names:
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "opt"])
def test_layouts_give_the_same_losses(family: str):
    losses = []
    for layout in ("forest", "padded"):
        engine = Engine(tiny(family), probed=Probed(layout))
        losses.append(engine.score(MIXED)[0])
    assert difference(*losses) < 1e-5


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_layouts_give_the_same_label_logits(family: str):
    found = []
    for layout in (None, "padded"):
        model = tiny(family)
        engine = toy_engine(model, layout=layout)
        assert engine.layout == (layout or "forest")
        with engine.evaluating():
            found.append(engine.label_logits(engine.collate(toy_trees(model, 6))))
    assert difference(*found) < 1e-5


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_pairs_give_the_losses_of_transformers(family: str):
    model = tiny(family)
    engine, trees = Engine(model, probed=Probed("sequence_to_sequence", own_head=False)), toy_trees(model, 5)
    scores, batch = engine.score(trees)
    for number, tree in enumerate(trees):
        labels = torch.tensor([tree.segments[1].tokens])
        with torch.no_grad():
            wanted = model.network(input_ids=torch.tensor([tree.segments[0].tokens]), labels=labels).loss
        assert -scores[batch.owners_N == number].mean() == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("layout", [layouts.forest, lambda trees: layouts.padded(trees, 0)])
def test_a_tree_given_twice_counts_twice(layout):
    tree = MIXED[1]
    assert layout([tree, tree]).weights_N.sum() == 2 * layout([tree]).weights_N.sum()


@pytest.mark.parametrize("layout", [layouts.forest, lambda trees: layouts.padded(trees, 0)])
def test_nothing_is_predicted_from_another_row(layout):
    """A prompt without a token: its answer's first token has nothing before it, and must not be predicted from the neighbour."""
    empty = Tree((Segment(()), Segment((5, 6), 0, (1.0, 1.0))))
    with pytest.raises(ValueError, match="nothing stands before it"):
        layout([MIXED[1], empty])
    later = Tree((Segment((9,)), Segment((), 0), Segment((5, 6), 1, (1.0, 1.0))))
    batch = layout([MIXED[1], later])
    first = batch.rows_N[batch.targets_N == 5].item()
    assert batch.tokens_BT.flatten()[first] == 9


def test_no_targets_at_all():
    engine = Engine(tiny("llama"), {})
    batch = engine.collate([single((5, 6, 7))])
    loss = engine.language_loss(batch)
    assert (loss.total.item(), loss.count.item()) == (0, 0)
    assert engine.score([single((5, 6, 7))])[0].shape == (0,)


@pytest.mark.parametrize("layout", ["forest", "padded"])
def test_the_trees_of_a_tuning_are_one_lane_and_its_part_holds_its_targets_only(layout: str):
    model = tiny("llama")
    engine = Engine(model, probed=Probed(layout))
    trees = toy_trees(model, 4)
    owned = [tree.owned_by(number % 2) for number, tree in enumerate(trees)]
    batch = engine.collate(owned)
    assert [lane.tuning for lane in batch.lanes] == [0, 1]
    assert (batch.lanes[0].start, batch.lanes[-1].stop) == (0, batch.tokens_BT.numel())
    assert batch.lanes[0].stop == batch.lanes[1].start
    parts = [batch.part(slot) for slot in (0, 1)]
    assert sum(len(part.rows_N) for part in parts) == len(batch.rows_N)
    assert sum(part.tokens for part in parts) == batch.tokens
    for slot, part in enumerate(parts):
        assert part.whole is batch
        assert set(part.tuning_S[part.owners_N].tolist()) == {slot}
        own = engine.collate([tree for tree in trees if trees.index(tree) % 2 == slot])
        assert sorted(part.targets_N.tolist()) == sorted(own.targets_N.tolist())
    assert not batch.has(2)


def test_a_tree_belongs_to_one_tuning():
    with pytest.raises(ValueError, match="of tuning 1, its root of 0"):
        Tree((Segment((5, 6)), Segment((7,), 0, tuning=1)))


@pytest.mark.parametrize(("count", "length"), [(255, 255), (256, 256), (257, 288), (1000, 1024), (1025, 1088)])
def test_long_rows_have_lengths_that_recur(count: int, length: int) -> None:
    trees = [single(tuple(range(5, 105)), (0.0,) + (1.0,) * 99, row=row) for row in range(count // 100)]
    trees += [single(tuple(range(5, 5 + count % 100)), row=count // 100)] if count % 100 else []
    batch = layouts.forest(trees)
    assert batch.tokens_BT.shape == (1, length)
    assert batch.layout is not None
    assert batch.layout.total == length
    assert batch.lanes == (Lane(0, 0, length),)
    assert len(batch.spans_S2) == len(trees)
    assert batch.rows_N.max() < count


def test_what_fills_a_row_up_changes_nothing() -> None:
    model = tiny("llama")
    trees = [single(tuple(5 + (7 * place + row) % 200 for place in range(45)), (0.0,) + (1.0,) * 44, row=row) for row in range(6)]
    engines = {layout: toy_engine(model, layout=layout) for layout in ("padded", "forest")}
    found = {}
    for layout, engine in engines.items():
        use_layout(model, engine.layout)
        found[layout] = engine.score(trees)[0]
    assert engines["forest"].collate(trees).tokens_BT.shape[1] == 288
    assert difference(found["forest"], found["padded"]) < 1e-5
