"""What BLEU and chrF share: the counts of sacrebleu, sentence by sentence, as additive tallies (hidden from the room)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewright.metrics import Metric, check_rows

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as Scorer


class CorpusMetric(Metric):
    """The abstract metric of a whole corpus; a subclass gives sacrebleu's scorer.

    The counts come from methods that sacrebleu keeps for its own significance tests; the parity tests notice if they change.
    """

    task = "text"

    @abstractmethod
    def scorer(self) -> Scorer:
        """A fresh scorer of sacrebleu."""

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        check_rows(answers, references)
        return float(self.scorer().corpus_score(list(answers), [list(references)]).score) / 100

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
        check_rows(answers, references)
        return np.array(self.scorer()._extract_corpus_statistics(list(answers), [list(references)]), dtype=float)

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        scorer = self.scorer()
        # Plain lists of whole numbers: the scorer writes into what it is given.
        return np.array([scorer._compute_score_from_stats(sums.tolist()).score for sums in np.rint(sums_RK).astype(int)]) / 100
