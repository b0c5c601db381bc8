"""Floor 1: one metric a file.

An entry is a `Metric`: it turns predictions and references into one number. Metrics that are a mean over rows say so with
`per_row`, which gives intervals and paired tests without recomputing; those that follow from sums over rows (F1, BLEU) give
these as `tallies`; whatever gives neither is resampled whole, which is correct but slow.
Numbers come from `scikit-learn`, `sacrebleu` and `rouge-score`; what is ours is that none travels without its interval
(`tunewright.metrics.statistics`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from tunewright.core.registry import Room

if TYPE_CHECKING:  # metrics are listed by `tunewright --help`; numpy and scipy are not needed for that
    import numpy as np
    from scipy.sparse import csr_array


MetricTask = Literal["label", "text", "labels", "numbers", "tags", "probabilities"]


class Metric(ABC):
    """One way to measure answers against references, both as text, in the form of `Row.target_text`.

    `task` says what the text is: a `label`, free `text`, a set of `labels` (a JSON list), `numbers` or `tags`
    (with spaces between), or `probabilities`: numbers from 0 to 1, with 1 or 0 for each as the reference, whether it was so.

    Contract (tested for every entry): equal answers and references give the best value; the value does not depend on the order
    of the rows; `per_row`, where given, averages to `measure`; `tallies`, where given, lead to `measure`; no rows, or not one
    answer a reference, is a `ValueError`.
    """

    title: ClassVar[str]
    task: ClassVar[MetricTask]
    higher_is_better: ClassVar[bool] = True
    percent: ClassVar[bool] = True

    @abstractmethod
    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        """The metric over all rows, between 0 and 1 where it is a share."""

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float] | None:
        """The value of each row when the metric is their mean; None when it is not a mean."""
        return None

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray | csr_array | None:
        """Per row, K numbers whose sums over rows determine the metric, `[rows, K]`; None when there are none such."""
        return None

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        """The metric of each of R sets of rows from the sums of their tallies, `[R, K]` to `[R]`."""
        raise NotImplementedError(f"{type(self).__name__} gives tallies and must say what follows from their sums")

    def by_counts(self, answers: Sequence[str], references: Sequence[str]) -> Callable[[np.ndarray], np.ndarray] | None:
        """From how often each row counts, `[R, rows]`, to the metric of each of R sets of rows, `[R]`; for metrics that are neither
        a mean nor follow from sums, and yet need not measure every set anew. None when there is no such shortcut."""
        return None


class RowMetric(Metric):
    """The abstract metric that is the mean over rows of a value each; a subclass gives `per_row`."""

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return sum(self.per_row(answers, references)) / check_rows(answers, references)

    @abstractmethod
    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]: ...


def check_rows(answers: Sequence[str], references: Sequence[str]) -> int:
    """The number of rows. Raises `ValueError` when there are none, or not one answer for every reference."""
    if len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers for {len(references)} references: every row needs both")
    if not references:
        raise ValueError("there are no rows to measure")
    return len(references)


room: Room[Metric] = Room("tunewright.metrics", Metric, "metric")  # type: ignore[type-abstract]
