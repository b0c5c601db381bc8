import time

import numpy as np
import pytest

from tunewright.metrics import Metric, room
from tunewright.metrics.statistics.intervals import mean_score, score, wilson
from tunewright.metrics.statistics.resampling import RESAMPLES, bootstrap_weights


class Longest(Metric):
    """A metric that is neither a mean nor a function of sums."""

    title, task, percent = "Longest", "text", False

    def measure(self, answers, references):
        return float(max(len(answer) for answer in answers))


def test_three_right_answers_do_not_prove_perfection():
    found = score(room["accuracy"](), ["a"] * 3, ["a"] * 3)
    assert found.value == found.high == 1
    assert found.low == pytest.approx(3 / (3 + 1.96**2), abs=1e-4)


def test_wilson_is_symmetric_and_never_empty():
    assert wilson(0, 10) == pytest.approx(tuple(1 - end for end in reversed(wilson(10, 10))))
    assert wilson(0, 1)[1] > 0.7


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_coverage_by_simulation(name):
    """About 95 of 100 intervals hold the value of a large population (300 tries: 3 standard errors are 3.8 points)."""
    generator = np.random.default_rng(11)
    labels = np.array(["a", "b", "c"])

    def rows(count):
        wanted = generator.choice(3, size=count, p=[0.5, 0.3, 0.2])
        answered = np.where(generator.random(count) < 0.7, wanted, generator.integers(3, size=count))
        return labels[answered].tolist(), labels[wanted].tolist()

    metric = room[name]()
    truth = metric.measure(*rows(200_000))
    found = [score(metric, *rows(150), seed=attempt) for attempt in range(300)]
    assert 0.91 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.99


def test_coverage_of_a_weighted_mean():
    generator = np.random.default_rng(12)

    def held():
        sizes = generator.integers(1, 40, size=200)
        return mean_score(generator.gamma(2.0, 0.5, size=200).tolist(), sizes.tolist(), seed=int(sizes.sum()))

    found = [held() for _ in range(300)]
    assert 0.90 <= np.mean([one.low <= 1.0 <= one.high for one in found]) <= 0.99


def test_mean_score_weighs_and_leaves_out_weight_0():
    found = mean_score([1.0, 3.0, float("nan")], [3, 1, 0])
    assert found.value == pytest.approx(1.5)
    assert found.count == 2


@pytest.mark.parametrize(
    ("values", "weights", "said"),
    [
        ([], [], "no rows"),
        ([1.0], [0.0], "no rows"),
        ([1.0], [1, 2], "both"),
        ([float("inf")], None, "finite"),
        ([1, 1], [1, -1], "negative"),
    ],
)
def test_mean_score_refuses(values, weights, said):
    with pytest.raises(ValueError, match=said):
        mean_score(values, weights)


def test_a_metric_without_sums_is_resampled_whole():
    answers = ["x" * length for length in range(1, 9)]
    found = score(Longest(), answers, answers)
    assert (found.value, found.high) == (8, 8)
    assert 5 <= found.low < 8


def test_draws_depend_on_the_seed_alone():
    first, again, other = (next(bootstrap_weights(50, seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert (first.sum(axis=1) == 50).all()
    assert sum(len(block) for block in bootstrap_weights(5000, 1)) == RESAMPLES


def test_large_sets_are_quick():
    generator = np.random.default_rng(3)
    references = [str(label) for label in generator.integers(77, size=5000)]
    answers = [label if keep else "0" for label, keep in zip(references, generator.random(5000) < 0.8, strict=True)]
    for name in ("accuracy", "macro_f1"):
        score(room[name](), answers[:50], references[:50])  # imports
        started = time.process_time()
        score(room[name](), answers, references)
        assert time.process_time() - started < 1.5  # about 0.15 s when the machine is free
