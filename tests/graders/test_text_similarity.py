"""`text_similarity`: the numbers are those of our metrics, which equal sacrebleu's and rouge-score's."""

from __future__ import annotations

import pytest

from tunewright.core.errors import UnknownNameError
from tunewright.data.rows import PromptRow
from tunewright.graders import GradeFailure, made
from tunewright.graders.text_similarity import MEASURES
from tunewright.metrics import room as metrics

REFERENCE, NEAR, FAR = "the small cat sat on the mat", "the small cat sat on a mat", "nothing of that kind"


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_the_metric_and_prefers_what_is_nearer(name: str) -> None:
    row = PromptRow(prompt="p", completion=REFERENCE)
    grader = made({"name": "text_similarity", "evaluation_metric": name})
    assert grader.grade(row, REFERENCE) == pytest.approx(1.0)
    assert grader.grade(row, NEAR) == metrics[MEASURES[name]]().measure([NEAR], [REFERENCE])
    assert grader.grade(row, NEAR) >= grader.grade(row, FAR)


def test_rouge_l_by_hand() -> None:
    """The longest common subsequence of a b c d and a c e is a c: precision 2/3, recall 2/4, F 4/7."""
    assert made("text_similarity").grade(PromptRow(prompt="", completion="a b c d"), "a c e") == pytest.approx(4 / 7)


def test_what_is_not_there_is_named(row: PromptRow) -> None:
    with pytest.raises(UnknownNameError, match="there is no similarity 'rouge_9'"):
        made({"name": "text_similarity", "evaluation_metric": "rouge_9"})
    with pytest.raises(GradeFailure, match="empty reference"):
        made("text_similarity").grade(PromptRow(prompt="p", completion=" "), "x")
