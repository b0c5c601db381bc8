"""How rows are drawn again: a metric of answers as a function of row weights, and the draws themselves.

Shape suffixes: N rows, K tallies, R draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tunewright.core.seeds import derive
from tunewright.metrics import Metric

RESAMPLES = 1000
PERMUTATIONS = 1999  # with the observed arrangement 2,000: the smallest p there can be is 0.0005
_BLOCK = 1 << 21  # weights that stand in memory at once

Weighing = Callable[[np.ndarray], np.ndarray]
"""From weights of the rows, `[R, N]`, to the metric under each draw, `[R]`."""
Of = Callable[[np.ndarray], np.ndarray]
"""From means, `[R]`, to the numbers that they are told as, `[R]`; rising."""


def weighing(metric: Metric, answers: Sequence[str], references: Sequence[str]) -> Weighing:
    """The metric of these answers as a function of how often each row counts.

    From per-row values or tallies where the metric has them (one matrix product for all draws), or by its own way of counting
    rows, else by measuring every drawn set of rows anew.
    """
    rows = metric.per_row(answers, references)
    if rows is not None:
        return mean_weighing(np.asarray(rows, dtype=float), np.ones(len(rows)))
    table: Any = metric.tallies(answers, references)
    if table is not None:
        return lambda weights_RN: metric.from_tallies(np.asarray(weights_RN @ table))
    counted = metric.by_counts(answers, references)
    if counted is not None:
        return counted
    return lambda weights_RN: np.array([_measured(metric, answers, references, counts) for counts in weights_RN])


def mean_weighing(values_N: np.ndarray, sizes_N: np.ndarray, of: Of | None = None) -> Weighing:
    """`sum(value x size) / sum(size)`, or what `of` makes of it, as a function of how often each row counts."""
    table_NK = np.stack([values_N * sizes_N, sizes_N], axis=1)

    def weighed(weights_RN: np.ndarray) -> np.ndarray:
        totals_RK = weights_RN @ table_NK
        means_R = totals_RK[:, 0] / totals_RK[:, 1]
        return means_R if of is None else of(means_R)

    return weighed


def perplexity(losses_R: np.ndarray) -> np.ndarray:
    """exp(loss), for `mean_weighing`; a loss beyond 700 nats is as good as infinite and stays a number."""
    return np.exp(np.minimum(losses_R, 700.0))


def _measured(metric: Metric, answers: Sequence[str], references: Sequence[str], counts_N: np.ndarray) -> float:
    picked = np.repeat(np.arange(len(answers)), counts_N.astype(int)).tolist()
    return metric.measure([answers[row] for row in picked], [references[row] for row in picked])


def bootstrap_weights(rows: int, seed: int) -> Iterator[np.ndarray]:
    """`RESAMPLES` draws of `rows` rows with replacement, as blocks of weights `[R, N]`."""
    generator = np.random.default_rng(derive(seed, "bootstrap", rows))
    for size in _block_sizes(RESAMPLES, rows):
        drawn_RN = generator.integers(rows, size=(size, rows), dtype=np.int32)
        drawn_RN += np.arange(size, dtype=np.int32)[:, None] * rows
        yield np.bincount(drawn_RN.ravel(), minlength=size * rows).reshape(size, rows).astype(float)


def exchange_weights(rows: int, seed: int) -> Iterator[np.ndarray]:
    """`PERMUTATIONS` draws of which rows two systems exchange their answers on (1) or keep them (0), as blocks `[R, N]`."""
    generator = np.random.default_rng(derive(seed, "exchange", rows))
    for size in _block_sizes(PERMUTATIONS, rows):
        yield generator.integers(2, size=(size, rows), dtype=np.int8).astype(float)


def _block_sizes(draws: int, rows: int) -> list[int]:
    block = max(1, min(draws, _BLOCK // rows))
    return [min(block, draws - start) for start in range(0, draws, block)]
