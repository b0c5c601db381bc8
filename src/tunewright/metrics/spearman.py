"""Spearman's correlation: how nearly predictions put rows into the order of their targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tunewright.metrics import Metric
from tunewright.metrics._numbers import numbers


class Spearman(Metric):
    """Pearson's correlation of the ranks; equal values share their mean rank. Averaged over targets; 0 where a side is constant.

    Ranks depend on which rows are drawn, so intervals rank every draw anew (with values sorted once).

    Source: scipy `spearmanr` (parity tested).
    Use when only the order matters; avoid with few distinct targets: most ranks are then shared.
    """

    title = "Spearman correlation"
    task = "numbers"
    percent = False

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.by_counts(answers, references)(np.ones((1, len(references))))[0])

    def by_counts(self, answers: Sequence[str], references: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
        answers_NK, wanted_NK = numbers(answers, references)
        columns = [(_ranks(own_N), _ranks(right_N)) for own_N, right_N in zip(answers_NK.T, wanted_NK.T, strict=True)]

        def counted(weights_RN: np.ndarray) -> np.ndarray:
            return np.mean([_weighted(own(weights_RN), right(weights_RN), weights_RN) for own, right in columns], axis=0)

        return counted


def _ranks(values_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The mean rank of each value as a function of how often each row counts, `[R, N]` to `[R, N]`; values are sorted once."""
    different, group_N = np.unique(values_N, return_inverse=True)
    order_N = np.argsort(group_N, kind="stable")
    begins_G = np.searchsorted(group_N[order_N], np.arange(len(different)))

    def ranks(weights_RN: np.ndarray) -> np.ndarray:
        held_RG = np.add.reduceat(weights_RN[:, order_N], begins_G, axis=1)
        below_RG = np.cumsum(held_RG, axis=1) - held_RG
        return (below_RG + (held_RG + 1) / 2)[:, group_N]

    return ranks


def _weighted(own_RN: np.ndarray, right_RN: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Pearson's correlation of ranks under weights, `[R]`; 0 where one side is constant."""
    total_R1 = np.maximum(weights_RN.sum(axis=1, keepdims=True), 1)
    own_RN = own_RN - (own_RN * weights_RN).sum(axis=1, keepdims=True) / total_R1
    right_RN = right_RN - (right_RN * weights_RN).sum(axis=1, keepdims=True) / total_R1
    across_R, one_R, other_R = (
        (weights_RN * product_RN).sum(axis=1) for product_RN in (own_RN * right_RN, own_RN * own_RN, right_RN * right_RN)
    )
    # Ranks are half whole numbers: less spread than this is rounding.
    spread_R = (one_R > 1e-6) & (other_R > 1e-6)
    return np.where(spread_R, across_R / np.sqrt(np.where(spread_R, one_R * other_R, 1.0)), 0.0)
