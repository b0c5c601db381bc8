"""chrF: character n-gram F-score of translations, over the whole corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright.metrics._sacrebleu_tallies import CorpusMetric

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF


class Chrf(CorpusMetric):
    """Corpus chrF2: the F-score (recall twice as important) of character n-grams up to 6, counts summed over all rows first.

    As `sacrebleu` computes it, divided by 100 so that it lies between 0 and 1.

    Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation" (parity with sacrebleu tested).
    Use for translation into any language, also those rich in forms or without spaces; avoid when only the exact word is right.
    """

    title = "chrF"

    def scorer(self) -> CHRF:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF()
