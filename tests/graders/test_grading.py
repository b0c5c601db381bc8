"""What holds for graders as such: forms of description, templates, and what becomes of a grade that is none."""

from __future__ import annotations

import pytest

from tunewright.core.errors import ConfigurationError, GraderError, UnknownNameError
from tunewright.data.rows import ChatRow, Message, PromptRow
from tunewright.graders import GradeFailure, Grader, made, room
from tunewright.graders._grading import graded, number
from tunewright.graders._template import filled, item_of


class Fixed(Grader):
    """Gives what it is told, whatever is asked."""

    value: object = None

    def grade(self, row: PromptRow, answer: str) -> float:
        if self.value == "fail":
            raise GradeFailure("raised ValueError: no")
        return self.value  # type: ignore[return-value]


def test_a_grader_is_a_name_a_mapping_or_what_openai_calls_one() -> None:
    assert made("number") == made({"name": "number"}) == made({"type": "number", "name": "last number"})
    assert room.dump(made({"type": "string_check", "name": "x", "operation": "eq"}))["name"] == "string_check"
    with pytest.raises(UnknownNameError, match="Did you mean 'string_check'"):
        made("string_chek")


def test_templates_are_filled_from_row_and_answer(row: PromptRow) -> None:
    assert filled("{{ sample.output_text }}", row, "hi") == "hi"
    assert filled("{{item.reference}}!", row, "hi") == "Add them. #### 1,234!"
    assert filled("{{ item.level }} of {{ item.prompt }}: {{ sample.output_text }}", row, "a") == "2 of What is 1,000 + 234?: a"
    with pytest.raises(ConfigurationError, match=r"there is no 'item\.lavel' to fill in\. Did you mean 'item\.level'"):
        filled("{{ item.lavel }}", row, "hi")


def test_a_conversation_brings_its_messages() -> None:
    chat = ChatRow(messages=(Message(role="user", content="hi"), Message(role="assistant", content="ho")), where="c:1")
    assert item_of(chat)["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert item_of(chat)["reference"] == "ho"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "gave nan, which is no finite number"),
        (float("inf"), "gave inf, which is no finite number"),
        ("0.5", r"gave '0\.5' \(str\), which is no number"),
        (None, r"gave None \(NoneType\), which is no number"),
        ("fail", "raised ValueError: no"),
    ],
)
def test_what_is_no_grade_names_grader_row_and_value(row: PromptRow, value: object, said: str) -> None:
    asked = [(row, "answer"), (row, "other")]
    with pytest.raises(GraderError, match=rf"^sums\.jsonl:3: the grader '\w+' {said}.* for the answer 'answer'.*on_error: zero"):
        graded(Fixed(value=value), asked)
    found = graded(Fixed(value=value), asked, "zero")
    assert found.values == [0.0, 0.0]
    assert len(found.failed) == 2


def test_numbers_of_any_kind_are_numbers() -> None:
    assert (number(True), number(3), number(-0.5)) == (1.0, 3.0, -0.5)
