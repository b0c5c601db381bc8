"""Labelling functions of a Python file: which count, and what cannot be one."""

from pathlib import Path

import pytest

from tunewright.core.errors import ConfigurationError
from tunewright.data.labelling import labelling_function
from tunewright.data.labelling.functions import attempted, python_functions
from tunewright.data.rows import LabelRow

ROW = LabelRow(text="two words", label="", metadata={"source": "mail"})


def found_in(tmp_path: Path, text: str) -> list:
    path = tmp_path / "lfs.py"
    path.write_text(text, encoding="utf-8")
    return python_functions(path)


def test_public_functions_defined_in_the_file_count(tmp_path: Path):
    text = (
        "from textwrap import dedent\nLIMIT = 3\ndef _helper(a, b):\n    return a\n"
        "def short(row):\n    return 'short' if len(row.text.split()) < LIMIT else None\n"
        "def mail(row, places=('mail',)):\n    return 'mail' if row.metadata['source'] in places else None\n"
        "class Other:\n    pass\n"
    )
    found = found_in(tmp_path, text)
    assert [(one.name, one.call(ROW)) for one in found] == [("short", "short"), ("mail", "mail")]


def test_where_one_is_marked_others_are_helpers(tmp_path: Path):
    text = (
        "from tunewright.data.labelling import labelling_function\n"
        "def helper(a, b):\n    return a\n"
        "@labelling_function\ndef _rule(row):\n    return helper('x', row)\n"
    )
    assert [(one.name, one.call(ROW)) for one in found_in(tmp_path, text)] == [("_rule", "x")]


def test_the_mark_leaves_a_function_as_it_is():
    def rule(row: LabelRow) -> str:
        return row.text

    assert labelling_function(rule) is rule
    assert rule(ROW) == "two words"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(row)\n", r"lfs.py: cannot be run: SyntaxError"),
        ("import no_such_module_at_all\n", r"cannot be run: ModuleNotFoundError"),
        ("1 / 0\n", r"cannot be run: ZeroDivisionError"),
        ("X = 1\n", r"defines no function.*`def name\(row\)"),
        ("def f():\n    pass\n", r"'f' takes nothing, a labelling function takes one row"),
        ("def f(a, b):\n    pass\n", r"'f' takes a, b, a labelling function takes one row.*underscore"),
    ],
)
def test_files_without_usable_functions(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        found_in(tmp_path, text)


def test_what_a_file_prints_is_no_output_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found_in(tmp_path, "print('loud')\ndef f(row):\n    return None\n")
    assert capsys.readouterr().out == ""


def test_an_error_is_one_line():
    def breaks(_: object) -> None:
        raise ValueError("two\nlines")

    assert attempted(breaks, ROW) == (None, "ValueError: two lines")
    assert attempted(len, "abc") == (3, "")
