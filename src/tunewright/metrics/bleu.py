"""BLEU: the n-gram precision of translations, over the whole corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright.metrics._sacrebleu_tallies import CorpusMetric

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU


class Bleu(CorpusMetric):
    """Corpus BLEU: brevity penalty times the geometric mean of the 1- to 4-gram precisions, summed over all rows first.

    As `sacrebleu` computes it (tokenizer 13a, exponential smoothing), divided by 100 so that it lies between 0 and 1.

    Source: Papineni et al. 2002; Post 2018, "A call for clarity in reporting BLEU scores" (parity with sacrebleu tested).
    Use for translation, to compare with published numbers; avoid for answers of under four words (no 4-gram: 0) and for
    languages without spaces, where the tokenizer 13a does not fit: take `chrf`.
    """

    title = "BLEU"

    def scorer(self) -> BLEU:
        from sacrebleu.metrics.bleu import BLEU

        # `force` only silences a warning about texts that end in " .".
        return BLEU(force=True)
