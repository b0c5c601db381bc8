"""ROUGE through `rouge-score`, for the three ROUGE entries (the underscore keeps this file out of the room)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from tunewright.metrics import check_rows

# Letters and digits of any script; scripts written without spaces (Chinese, Japanese) are cut into characters.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)


class Words:
    """The tokenizer given to `rouge-score`: its own rule for ASCII text, and no letters lost elsewhere.

    The default of `rouge-score` deletes every character outside a-z and 0-9, so that two equal Greek sentences score 0.
    """

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, in lower case."""
        return _WORD.findall(text.lower())


def rouge_rows(kind: Literal["rouge1", "rouge2", "rougeL"], answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """The F measure of each row, without stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    check_rows(answers, references)
    scorer = RougeScorer([kind], tokenizer=Words())
    return [float(scorer.score(reference, answer)[kind].fmeasure) for answer, reference in zip(answers, references, strict=True)]
