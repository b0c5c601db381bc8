"""What answers bring with them, a reward, is measured as metrics are: with intervals, before and after, on the same rows."""

from __future__ import annotations

import pytest

from tunewright.data.rows import PromptRow
from tunewright.evaluation.measuring import direction, in_percent, measures, quick, title
from tunewright.evaluation.task import Answer
from tunewright.metrics.statistics.intervals import mean_score, value_score, wilson

ROWS = [PromptRow(prompt=str(number), completion="yes") for number in range(20)]


def answers(*rewards: float) -> list[Answer]:
    return [Answer("yes", scores={"reward": reward}) for reward in rewards]


def test_the_mean_reward_before_and_after() -> None:
    before, after = answers(*[0.0] * 18, 1.0, 1.0), answers(*[1.0] * 18, 0.0, 1.0)
    (found,) = measures((), before, after, ROWS, seed=0)
    assert (found.metric, found.title, found.higher_is_better, found.percent) == ("reward", "Mean reward", True, False)
    assert found.tuned == (0.95, *wilson(19, 20), 20)
    assert found.base == (0.1, *wilson(2, 20), 20)
    assert found.difference is not None
    assert found.difference.value == pytest.approx(0.85)
    assert found.difference.test == "exact McNemar"


def test_rewards_between_are_resampled_and_metrics_stand_beside() -> None:
    after = answers(*[number / 20 for number in range(20)])
    reward, exact = measures(("exact_match",), None, after, ROWS, seed=0)
    assert reward.tuned == mean_score([number / 20 for number in range(20)]) == value_score([number / 20 for number in range(20)])
    assert reward.base is reward.difference is None
    assert exact.tuned.value == 1.0


def test_validation_is_the_plain_mean() -> None:
    assert quick(answers(0.0, 0.5, 1.0), ROWS[:3], ["reward"]) == {"reward": 0.5}
    assert quick([Answer("yes")], ROWS[:1], ["exact_match"]) == {"exact_match": 1.0}


def test_what_a_reward_is_called() -> None:
    assert direction("reward")
    assert direction("exact_match")
    assert not direction("loss")
    assert (title("reward"), title("loss"), in_percent("reward"), in_percent("loss")) == ("Mean reward", "loss", False, False)
