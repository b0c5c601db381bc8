"""Probabilities beside answers: what is claimed of pairs, rankings and labels, and the measures of it."""

from __future__ import annotations

import pytest

from tunewright.data.rows import LabelRow, Message, PreferenceRow, RankingRow
from tunewright.evaluation.calibration import claims
from tunewright.evaluation.measuring import direction, in_percent, measures, quick
from tunewright.evaluation.task import Answer

ASKED = (Message(role="user", content="Q"),)
PAIRS = [PreferenceRow(messages=ASKED, chosen="a", rejected="b", where=f"p:{number}") for number in range(40)]
NAMES = ("pair_accuracy", "expected_calibration_error", "brier_score")


def judged(*probabilities: float) -> list[Answer]:
    """Answers to pairs, each with the probability of the right order."""
    return [Answer("a" if p > 0.5 else "b", 0.7, 1, max(p, 1 - p), {"pairs": [p]}) for p in probabilities]


def test_what_is_claimed_of_a_pair_a_ranking_and_a_label() -> None:
    rows = [
        PAIRS[0],
        RankingRow(messages=ASKED, answers=("a", "b", "c")),
        LabelRow(text="t", label="x"),
        LabelRow(text="t", label="y"),
    ]
    answers = [
        *judged(0.25),
        Answer('["a", "c", "b"]', None, 1, 0.4, {"pairs": [0.9, 0.8, 0.3]}),
        Answer("x", confidence=0.75),
        Answer("x", confidence=0.5),
    ]
    assert claims(answers, rows) == (["0.25", "0.9 0.8 0.3", "0.75", "0.5"], ["1", "1 1 1", "1", "0"])
    assert claims([Answer("x")], rows[2:3]) == ([], [])


def test_measures_stand_in_the_order_that_was_asked_for() -> None:
    after = judged(*[0.9] * 30, *[0.2] * 10)
    accuracy, error, brier, loss = measures(NAMES, [Answer("b")] * 40, after, PAIRS, seed=0)
    assert (accuracy.tuned.value, accuracy.base and accuracy.base.value) == (0.75, 0.0)
    assert error.tuned.value == pytest.approx((30 * 0.1 + 10 * 0.8) / 40)
    assert brier.tuned.value == pytest.approx((30 * 0.01 + 10 * 0.64) / 40)
    assert (error.base, error.difference, error.higher_is_better, error.percent) == (None, None, False, True)
    assert loss.metric == "loss"
    assert error.tuned.low <= error.tuned.value <= error.tuned.high
    assert error.tuned.count == 40


def test_a_base_with_probabilities_is_compared() -> None:
    before, after = judged(*[0.5001] * 40), judged(*[0.95] * 40)
    _, error, brier, _ = measures(NAMES, before, after, PAIRS, seed=0)
    assert brier.base is not None
    assert brier.difference is not None
    assert (brier.base.value, brier.difference.value) == pytest.approx((0.25, 0.0025 - 0.25), abs=1e-3)
    assert brier.difference.p < 0.01
    assert error.base is not None
    assert error.base.value == pytest.approx(0.5, abs=1e-3)


def test_without_probabilities_there_is_nothing_to_calibrate() -> None:
    assert [one.metric for one in measures(NAMES, None, [Answer("a")] * 40, PAIRS, seed=0)] == ["pair_accuracy"]
    assert quick([Answer("a")] * 40, PAIRS, NAMES) == {"pair_accuracy": 1.0}


def test_validation_sees_them_too() -> None:
    found = quick(judged(*[0.9] * 40), PAIRS, NAMES)
    assert found["brier_score"] == pytest.approx(0.01)
    assert found["expected_calibration_error"] == pytest.approx(0.1)
    assert not direction("brier_score")
    assert in_percent("expected_calibration_error")


def test_labels_are_calibrated_where_it_is_asked_for() -> None:
    rows = [LabelRow(text=f"t{number}", label="x" if number % 4 else "y") for number in range(40)]
    (error,) = measures(("expected_calibration_error",), None, [Answer("x", confidence=0.75)] * 40, rows, seed=0)
    assert error.tuned.value == pytest.approx(0, abs=1e-9)
