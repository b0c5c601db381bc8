"""A score is read with its interval and count, and unpacks as the numbers it is."""

from __future__ import annotations

import pickle

import pytest

from tunewright.core.scores import Score


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (Score(0.5, 0.25, 0.75, 40), "0.5 [0.25, 0.75] (n=40)"),
        (Score(2 / 3, 1 / 3, 1.0, 3), "0.6667 [0.3333, 1] (n=3)"),
        (Score(12345.678, 12000, 13000, 1), "1.235e+04 [1.2e+04, 1.3e+04] (n=1)"),
        (Score(float("nan"), float("nan"), float("nan"), 0), "nan [nan, nan] (n=0)"),
    ],
)
def test_a_score_is_never_shown_without_its_interval_and_count(score, text):
    assert str(score) == f"{score}" == text


def test_the_count_is_the_number_of_rows_and_not_the_method_of_a_tuple():
    assert Score(0.5, 0.25, 0.75, 40).count == 40


def test_it_unpacks_in_the_order_of_its_names_and_cannot_be_changed():
    score = Score(0.5, 0.25, 0.75, 40)
    value, low, high, count = score
    assert (value, low, high, count) == (0.5, 0.25, 0.75, 40)
    with pytest.raises(AttributeError):
        score.value = 1.0


def test_it_comes_back_from_another_process():
    again = pickle.loads(pickle.dumps(Score(0.5, 0.25, 0.75, 40)))  # noqa: S301
    assert type(again) is Score
    assert again == Score(0.5, 0.25, 0.75, 40)
