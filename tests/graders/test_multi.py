"""`multi`, and the formulas that it reads."""

from __future__ import annotations

import math

import pytest

from tunewright.core.errors import ConfigurationError, GraderError
from tunewright.data.rows import PromptRow
from tunewright.graders import made
from tunewright.graders._formula import Formula
from tunewright.graders._grading import graded

PARTS = {"right": {"name": "number"}, "brief": {"name": "string_check", "operation": "regex", "reference": r"^\S+$"}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a + 2 * b", 8.0),
        ("(a - b) / 4", -0.25),
        ("-a ^ 2", -4.0),
        ("a ** b % 5", 3.0),
        ("min(a, b, 1) + max(a)", 3.0),
        ("(a < b) + (a <= b <= 3) + (a == b)", 2.0),
        ("sqrt(b * 3) + floor(2.7) + abs(-a)", 7.0),
        ("exp(0) + log(1) + ceil(0.2)", 2.0),
    ],
)
def test_a_formula_gives_what_arithmetic_does(text: str, value: float) -> None:
    assert Formula(text, ("a", "b")).value({"a": 2.0, "b": 3.0}) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("__import__('os').system('true')", "nothing that a formula may hold"),
        ("a.real", "nothing that a formula may hold"),
        ("[a][0]", "nothing that a formula may hold"),
        ("a if b else a", "nothing that a formula may hold"),
        ("'text' * 3", "nothing that a formula may hold"),
        ("min(a, key=b)", "nothing that a formula may hold"),
        ("open(a)", "there is no function 'open'"),
        ("a + c", r"there is no grader 'c'.*Allowed: a, b"),
        ("a +", "is no formula"),
        ("(" * 500 + "a" + ")" * 499, "is no formula"),
        ("a + " * 400 + "b", "characters"),
    ],
)
def test_nothing_else_is_a_formula(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Formula(text, ("a", "b"))


def test_a_large_power_overflows_instead_of_filling_the_memory() -> None:
    with pytest.raises(OverflowError):
        Formula("a ^ a ^ a ^ a", ("a",)).value({"a": 99.0})
    assert math.isclose(Formula("a ^ 0.5", ("a",)).value({"a": 9.0}), 3.0)


@pytest.mark.parametrize("key", ["formula", "calculate_output"])
def test_parts_are_weighed(row: PromptRow, key: str) -> None:
    grader = made({"name": "multi", "graders": PARTS, key: "right * (0.5 + 0.5 * brief)"})
    grader.check(row)
    assert graded(grader, [(row, "1234"), (row, "it is 1234"), (row, "5")]).values == [1.0, 0.5, 0.0]
    assert made(grader.model_dump(mode="json") | {"name": "multi"}) == grader


def test_a_part_or_a_formula_without_a_value_says_so(row: PromptRow) -> None:
    with pytest.raises(GraderError, match=r"the grader 'multi' has no value of '1 / right' for \{'right': 0\.0"):
        graded(made({"name": "multi", "graders": PARTS, "formula": "1 / right"}), [(row, "no")])
    nothing = PromptRow(prompt="p", completion="none", where="p:1")
    with pytest.raises(GraderError, match="has a part, 'right', which finds no number in the reference"):
        graded(made({"name": "multi", "graders": PARTS, "formula": "right"}), [(nothing, "no")])


def test_names_must_fit_into_a_formula() -> None:
    with pytest.raises(ConfigurationError, match="'is right' cannot stand in a formula"):
        made({"name": "multi", "graders": {"is right": "number"}, "formula": "1"})
