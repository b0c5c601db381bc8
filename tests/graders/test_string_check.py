"""`string_check`."""

from __future__ import annotations

import pytest

from tunewright.core.errors import ConfigurationError
from tunewright.data.rows import PromptRow
from tunewright.graders import made


@pytest.mark.parametrize(
    ("operation", "reference", "right", "wrong"),
    [
        ("equals", "yes", " yes\n", "Yes"),
        ("differs", "yes", "no", "yes"),
        ("contains", "es", "yes", "ES"),
        ("starts_with", "Dear", "Dear Anna", "dear Anna"),
        ("ends_with", ".", "It is. ", "It is"),
        ("regex", r"^\w+ \w+$", "two words", "three words here"),
        ("eq", "yes", "yes", "no"),
        ("ne", "yes", "no", "yes"),
        ("like", "ES", "YES", "yes"),
        ("ilike", "ES", "yes", "no"),
    ],
)
def test_each_operation(row: PromptRow, operation: str, reference: str, right: str, wrong: str) -> None:
    grader = made({"name": "string_check", "operation": operation, "reference": reference})
    assert (grader.grade(row, right), grader.grade(row, wrong)) == (1.0, 0.0)


def test_case_may_be_ignored(row: PromptRow) -> None:
    for operation in ("equals", "regex"):
        grader = made({"name": "string_check", "operation": operation, "reference": "STRASSE", "ignore_case": True})
        assert grader.grade(row, "strasse") == 1.0


def test_the_reference_is_the_rows_own_unless_given(row: PromptRow) -> None:
    assert made("string_check").grade(row, "Add them. #### 1,234") == 1.0


def test_what_cannot_work_is_refused_before_anything_is_trained(row: PromptRow) -> None:
    with pytest.raises(ConfigurationError, match="is no regular expression"):
        made({"name": "string_check", "operation": "regex", "reference": "("})
    with pytest.raises(ConfigurationError, match=r"grader\.reference: there is no 'item\.answer'"):
        made({"name": "string_check", "reference": "{{ item.answer }}"}).check(row)
    with pytest.raises(ConfigurationError, match="unknown key 'refrence'"):
        made({"name": "string_check", "refrence": "x"})
