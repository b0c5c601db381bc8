"""Span corruption: T5's stretches and sentinels, an example worked by hand, and transformers' own loss."""

import random
from itertools import pairwise

import pytest
import torch

from tunewright.core.errors import BaseModelError
from tunewright.data.forest import Tree
from tunewright.data.rendering import Refusal, Rendered, Renderer
from tunewright.data.rows import Row, TextRow
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.models import Model
from tunewright.objectives._corruption import Window
from tunewright.objectives.span_corruption import SpanCorruption, Spans, parted
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny

ROWS: tuple[Row, ...] = tuple(
    TextRow(text=text) for text in ("The cat sat on the mat.", "Long ago there lived a king", "ab", "xyz " * 9)
)
SPANS = Spans(0.15, 3.0, (100, 101, 102), ((), (1,)), (1,))


def t5() -> Model:
    """The tiny T5 with 30 sentinels (ids 261 to 290)."""
    model = tiny("t5")
    model.tokenizer.add_tokens([f"<extra_id_{number}>" for number in range(30)], special_tokens=True)
    return model


class TestSpanCorruption(ObjectiveContract):
    objective = SpanCorruption()
    families = ("t5",)
    rows = ROWS
    useless = (TextRow(text="a", where="f:1"), TextRow(text="a b", weight=0.0, where="f:2"))

    def model(self, family: str) -> Model:
        return t5()


def planted(rows: tuple[Row, ...], most: int | None = None) -> list[Tree]:
    model = t5()
    found = SpanCorruption().plant(rows, Renderer(model.tokenizer, model.kind, most))
    assert not any(isinstance(one, Refusal) for one in found)
    return [one.tree for one in found if isinstance(one, Rendered)]


def restored(tree: Tree) -> list[int]:
    """The text that a tree was made of: each stretch put in the place of its sentinel."""
    read, written = tree.segments
    stretches: dict[int, list[int]] = {}
    last = -1
    for token in written.tokens[:-1]:
        if token >= 261:
            last = token
            stretches[last] = []
        else:
            stretches[last].append(token)
    return [one for token in read.tokens[:-1] for one in (stretches.get(token) or [token])]


def test_an_example_worked_by_hand(monkeypatch: pytest.MonkeyPatch):
    """Twenty tokens 0..19 lose round(20 * 0.15) = 3 in round(3 / 3) = 1 stretch; at a mean of 1.5, in 2.

    For 2 stretches the 17 that stay are parted as 5 + 12 and the 3 that go as 1 + 2:
    0 1 2 3 4 [5] 6 .. 17 [18 19]: read "0 1 2 3 4 <0> 6 .. 17 <1> </s>", written "<0> 5 <1> 18 19 </s>".
    """
    window = Window(tuple(range(20)), tuple(range(20)), row=7)
    spans = Spans(0.15, 1.5, (100, 101, 102), ((), (99,)), (99,))
    cuts = {17: [5, 12], 3: [1, 2]}
    monkeypatch.setattr("tunewright.objectives.span_corruption.parted", lambda count, parts, _draw: cuts[count][:parts])
    read, written = spans.segments(window, 0)
    assert read.tokens == (0, 1, 2, 3, 4, 100, *range(6, 18), 101, 99)
    assert written.tokens == (100, 5, 101, 18, 19, 99)
    assert (written.parent, written.targets, read.targets) == (0, (1.0,) * 6, ())
    assert (read.row, written.row) == (7, 7)


@pytest.mark.parametrize(("count", "gone", "stretches"), [(2, 1, 1), (7, 1, 1), (10, 2, 1), (20, 3, 1), (100, 15, 3), (60, 9, 3)])
def test_how_much_goes_is_the_published_rule(count: int, gone: int, stretches: int):
    """round(n * 0.15) tokens, at least 1 and not all, in round(that / 3) stretches, at least 1; the last one ends the text.

    (Python's `round` of 1.5 is 2 and of 1.05 is 1; `random_spans_noise_mask` says `int(round(...))`.)
    """
    for seed in range(30):
        found = SPANS.taken(count, random.Random(seed))
        assert len(found) == stretches
        assert sum(stop - start for start, stop in found) == gone
        assert found[0][0] > 0
        assert found[-1][1] == count
        assert all(before[1] < after[0] for before, after in pairwise(found))


def test_every_way_to_part_is_equally_likely():
    draw = random.Random(0)
    found = [tuple(parted(5, 3, draw)) for _ in range(6000)]
    ways = {(1, 1, 3), (1, 3, 1), (3, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1)}
    assert set(found) == ways
    for way in ways:
        assert found.count(way) == pytest.approx(1000, abs=100)
    assert parted(4, 1, draw) == [4]
    assert parted(3, 3, draw) == [1, 1, 1]


def test_spans_have_the_mean_length_that_is_asked_for():
    taken = [
        stop - start
        for seed in range(50)
        for start, stop in Spans(0.15, 3.0, tuple(range(99)), ((), ()), ()).taken(400, random.Random(seed))
    ]
    assert sum(taken) / 50 == 60
    assert sum(taken) / len(taken) == 3


def test_nothing_is_lost_and_epochs_take_out_others():
    for row, tree in zip(ROWS, planted(ROWS), strict=True):
        draws = [tree.redrawn(seed) for seed in range(8)]
        for one in (tree, *draws):
            assert t5().tokenizer.decode(restored(one)) == row.input_text()
            assert [len(segment.tokens) for segment in one.segments] == [len(segment.tokens) for segment in tree.segments]
    assert len({one.segments for one in draws}) > 1


def test_windows_are_no_longer_than_sentinels_or_the_context_allow():
    text = TextRow(text="one two three " * 100)
    for most, windows in ((None, 3), (100, 15)):
        trees = planted((text,), most)
        assert len(trees) == windows
        assert all(len(segment.tokens) <= (most or 512) for tree in trees for segment in tree.segments)
        assert "".join(t5().tokenizer.decode(restored(tree)) for tree in trees) == text.text
    assert Spans(0.15, 3.0, (1, 2), ((), ()), ()).most == 40


def test_the_loss_is_that_of_transformers():
    model, trees = t5(), planted(ROWS)
    engine = Engine(model, probed=probe(model))
    with torch.no_grad():
        total, count = SpanCorruption().loss(engine, engine.collate(trees))
        theirs, tokens = 0.0, 0
        for tree in trees:
            read, written = tree.segments
            own = model.network(input_ids=torch.tensor([read.tokens]), labels=torch.tensor([written.tokens])).loss
            theirs, tokens = theirs + float(own) * len(written.tokens), tokens + len(written.tokens)
    assert float(count) == tokens
    assert float(total) == pytest.approx(theirs, rel=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(BaseModelError, match="'span_corruption' is for encoder-decoders, and the base is an encoder"):
        SpanCorruption().decided("encoder", ROWS)
    model = tiny("bart")
    with pytest.raises(BaseModelError, match="no sentinel tokens"):
        SpanCorruption().plant(ROWS, Renderer(model.tokenizer, model.kind, model.context))
