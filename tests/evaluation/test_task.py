"""The baseline that reads nothing, as an approach like any other."""

import pytest

from tunewright.data.rows import LabelRow, Row
from tunewright.evaluation.measuring import measures
from tunewright.evaluation.task import Always, Answer, Approach

ROWS: list[Row] = [LabelRow(text=str(number), label="ab"[number == 0]) for number in range(4)]


def test_always_answers_every_row_alike():
    always = Always("a", "majority label")
    assert isinstance(always, Approach)
    assert always.name == "majority label"
    assert always.answer(ROWS, 0) == [Answer("a")] * 4  # writing costs nothing here, so `written` limits nothing
    assert always.answer([], 9) == []


def test_always_is_measured_like_any_approach():
    (accuracy,) = measures(["accuracy"], None, Always("a", "majority label").answer(ROWS, 4), ROWS, seed=0)
    assert accuracy.tuned.value == 0.75


def test_an_approach_that_cannot_answer_is_none():
    with pytest.raises(TypeError, match="answer"):
        type("Mute", (Approach,), {})()
