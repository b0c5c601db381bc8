"""Base against tuned on the same rows: the difference, its interval, and whether chance explains it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tunewright.metrics import Metric, check_rows
from tunewright.metrics.statistics.intervals import Z, weighted_rows
from tunewright.metrics.statistics.resampling import (
    PERMUTATIONS,
    Of,
    Weighing,
    bootstrap_weights,
    exchange_weights,
    mean_weighing,
    weighing,
)


class Difference(NamedTuple):
    """Tuned minus base: the value, the ends of its 95 % interval, the two-sided p, the number of rows, and the test's name."""

    value: float
    low: float
    high: float
    p: float
    count: int
    test: str


def compare(
    metric: Metric, base_answers: Sequence[str], tuned_answers: Sequence[str], references: Sequence[str], seed: int = 0
) -> Difference:
    """How much better (or worse) the tuned answers are than the base's on the same rows.

    Interval: paired percentile bootstrap, both systems drawn on the same rows. Test: paired permutation, in which each row's two
    answers change sides with probability 1/2. Where every row is right or wrong both have exact or better forms and these are
    taken: McNemar's exact test and Bonett and Price's interval (the bootstrap's is empty when nothing or everything changed).

    Source: Efron and Tibshirani 1993; McNemar 1947; Bonett and Price 2012.
    Cost: as four times `score`, after one pass of the metric.
    Raises: ValueError when there are no rows or the answers are not one a row.
    """
    count = check_rows(base_answers, references)
    check_rows(tuned_answers, references)
    base_rows = metric.per_row(base_answers, references)
    tuned_rows = metric.per_row(tuned_answers, references)
    if base_rows is not None and tuned_rows is not None:
        return compare_rows(base_rows, tuned_rows, seed)
    # Both systems in one table, so that they share its columns (the labels) and can exchange rows.
    weighed = weighing(metric, [*base_answers, *tuned_answers], [*references, *references])
    return _resampled(weighed, count, seed)


def compare_rows(base_rows: Sequence[float], tuned_rows: Sequence[float], seed: int = 0) -> Difference:
    """`compare` of a metric that is a mean over rows, from the value of each row."""
    if {*base_rows, *tuned_rows} <= {0.0, 1.0}:
        return mcnemar([row == 1 for row in base_rows], [row == 1 for row in tuned_rows])
    return compare_means(base_rows, tuned_rows, seed=seed)


def compare_means(
    base_values: Sequence[float],
    tuned_values: Sequence[float],
    weights: Sequence[float] | None = None,
    seed: int = 0,
    *,
    of: Of | None = None,
) -> Difference:
    """The same for one value a row under each system (losses), weighted and turned into a number as in `mean_score`.

    Raises: ValueError when there are no rows, or values or weights are missing or not finite.
    """
    if len(base_values) != len(tuned_values):
        raise ValueError(f"{len(base_values)} values of the base for {len(tuned_values)} of the tuned: every row needs both")
    base_N, weights_N = weighted_rows(base_values, weights)
    tuned_N, _ = weighted_rows(tuned_values, weights)
    weighed = mean_weighing(np.concatenate([base_N, tuned_N]), np.concatenate([weights_N, weights_N]), of)
    return _resampled(weighed, len(base_N), seed)


def _resampled(weighed: Weighing, count: int, seed: int) -> Difference:
    """From the metric of 2N rows (the base's, then the tuned's) as a function of their weights."""

    def difference(base_RN: np.ndarray, tuned_RN: np.ndarray) -> np.ndarray:
        nothing_RN = np.zeros_like(base_RN)
        return weighed(np.hstack([nothing_RN, tuned_RN])) - weighed(np.hstack([base_RN, nothing_RN]))

    def exchanged(swap_RN: np.ndarray) -> np.ndarray:
        base_R = weighed(np.hstack([1 - swap_RN, swap_RN]))
        return weighed(np.hstack([swap_RN, 1 - swap_RN])) - base_R

    everyone = np.ones((1, count))
    value = float(difference(everyone, everyone)[0])
    drawn_R = np.concatenate([difference(weights_RN, weights_RN) for weights_RN in bootstrap_weights(count, seed)])
    low, high = (float(end) for end in np.percentile(drawn_R, [2.5, 97.5]))
    swapped_R = np.concatenate([exchanged(swap_RN) for swap_RN in exchange_weights(count, seed)])
    # The tolerance keeps arrangements that equal the observed one but for rounding on its side.
    as_large = int((np.abs(swapped_R) >= abs(value) - 1e-12).sum())
    p = (as_large + 1) / (PERMUTATIONS + 1)
    return Difference(value, min(low, value), max(high, value), p, count, "paired permutation")


def mcnemar(base_right: Sequence[bool], tuned_right: Sequence[bool]) -> Difference:
    """The difference of two shares on the same rows, with McNemar's exact test.

    Only rows on which the two differ speak: `gained` (wrong before, right now) and `lost`. Under no difference `gained` is
    binomial with 1/2. The interval is Bonett and Price's: Wald's after one row is added to each of the two counts.
    """
    from scipy.stats import binomtest

    count = len(base_right)
    pairs = list(zip(base_right, tuned_right, strict=True))
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    p = float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    value = (gained - lost) / count
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    return Difference(value, min(low, value), max(high, value), p, count, "exact McNemar")
