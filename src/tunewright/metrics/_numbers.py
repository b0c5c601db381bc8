"""What the metrics of numbers share: texts as numbers, and correlations from sums.

Shape suffixes: N rows, K targets, R sets of rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.metrics import check_rows


def numbers(answers: Sequence[str], references: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Answers and references as numbers, `[N, K]` each.

    An answer that is no number, as a refused row's, counts as the mean of the references: it says nothing.

    Raises:
        ValueError: as `check_rows` does, and where a reference is no number or has another number of targets than the first.
    """
    check_rows(answers, references)
    wanted = [_parsed(text) for text in references]
    if not all(wanted) or len({len(row) for row in wanted}) > 1:
        raise ValueError("every reference must hold numbers, the same count in each")
    wanted_NK = np.array(wanted)
    mean_K = wanted_NK.mean(axis=0)
    given = [_parsed(text) for text in answers]
    return np.array([row if len(row) == len(mean_K) else mean_K for row in given], dtype=float), wanted_NK


def _parsed(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split()]
    except ValueError:
        return []
    return found if np.isfinite(found).all() else []


def moments(answers_NK: np.ndarray, wanted_NK: np.ndarray) -> np.ndarray:
    """Per row and target `[1 | x | y | xx | yy | xy | (x - y)^2]`, `[N, 7 K]`, about the mean of the references.

    About the mean, because sums of squares of large numbers that differ little lose the difference.
    """
    about_K = wanted_NK.mean(axis=0)
    x, y = answers_NK - about_K, wanted_NK - about_K
    return np.hstack([np.ones_like(x), x, y, x * x, y * y, x * y, (x - y) ** 2])


def correlation(sums_RK: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each target from sums of `moments`, averaged over targets, `[R]`; 0 where one side is constant."""
    n, x, y, xx, yy, xy, _ = np.split(sums_RK, 7, axis=1)
    n = np.maximum(n, 1)
    across, own, other = xy - x * y / n, xx - x * x / n, yy - y * y / n
    # What is left of a constant after subtraction is rounding and no spread.
    spread = (own > 1e-12 * np.maximum(xx, 1e-300)) & (other > 1e-12 * np.maximum(yy, 1e-300))
    scale = np.sqrt(np.where(spread, own * other, 1.0))
    return np.clip(np.where(spread, across / scale, 0.0), -1, 1).mean(axis=1)
