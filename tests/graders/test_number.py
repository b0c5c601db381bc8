"""`number`: the last number counts."""

from __future__ import annotations

import pytest

from tunewright.data.rows import PromptRow
from tunewright.graders import GradeFailure, made
from tunewright.graders.number import last_number


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("#### 42", 42.0),
        ("first 3, then 1,234.50 dollars.", 1234.5),
        ("it is -7", -7.0),
        ("pages 3-4", 4.0),
        ("1,2", 2.0),
        ("$18.", 18.0),
        ("none", None),
    ],
)
def test_the_last_number(text: str, found: float | None) -> None:
    assert last_number(text) == found


def test_equal_numbers_are_right(row: PromptRow) -> None:
    grader = made("number")
    assert [grader.grade(row, text) for text in ("so 1234", "1234 or 1235", "1,234.0", "no idea", "-1234")] == [1, 0, 1, 0, 0]
    assert made({"name": "number", "tolerance": 0.01}).grade(row, "1230") == 1.0


def test_a_reference_without_a_number_is_no_zero() -> None:
    with pytest.raises(GradeFailure, match="no number in the reference"):
        made("number").grade(PromptRow(prompt="p", completion="none"), "4")
