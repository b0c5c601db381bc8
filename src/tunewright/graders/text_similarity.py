"""How near the answer comes to a reference, by a metric of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from tunewright.core.errors import UnknownNameError
from tunewright.graders import GradeFailure, Grader
from tunewright.graders._template import ANSWER, REFERENCE, filled
from tunewright.metrics import room as metrics

if TYPE_CHECKING:
    from tunewright.data.rows import Row

MEASURES = {
    **{"bleu": "bleu", "chrf": "chrf", "exact_match": "exact_match", "token_f1": "token_f1"},
    **{"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rouge_l"},
}
"""The names here and the metrics that they are."""


class TextSimilarity(Grader):
    """The metric between the answer and the reference, both as a corpus of one; 0 to 1.

    Source: https://platform.openai.com/docs/guides/graders; the numbers are those of `metrics/` (sacrebleu, rouge-score).
    BLEU of an answer under four words is 0 or smoothed to nearly 0: take `chrf` or `rouge_l` for short ones.
    """

    evaluation_metric: Literal["bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "token_f1", "exact_match"] = Field(
        default="rouge_l", description="how nearness is measured"
    )
    reference: str = Field(default=REFERENCE, description="the text to come near to; the row's answer when not given")
    input: str = Field(default=ANSWER, description="what is looked at; the answer when not given")

    @field_validator("evaluation_metric", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in MEASURES:
            raise UnknownNameError(f"there is no similarity '{value}'", allowed=MEASURES, given=value)
        return value

    def check(self, row: Row) -> None:
        filled(self.reference, row, "", "grader.reference")
        filled(self.input, row, "", "grader.input")

    def grade(self, row: Row, answer: str) -> float:
        wanted = filled(self.reference, row, answer)
        if not wanted.strip():
            raise GradeFailure("has an empty reference to compare with")
        return metrics[MEASURES[self.evaluation_metric]]().measure([filled(self.input, row, answer)], [wanted])
