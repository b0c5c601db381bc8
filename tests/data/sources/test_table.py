"""CSV and TSV: nothing guessed, nothing shifted."""

import pytest

from tunewright.core.configuration import override
from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.sources import Note, Problem, records


def read(tmp_path, text, name="f.csv", delimiter=None):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return list(records(path, delimiter))


def test_values_stay_the_strings_they_are(tmp_path):
    values = ["007", "1e5", "NA", "null", "None", "nan", "true", "", " x ", "=cmd|' /C calc'!A0"]
    items = read(tmp_path, "a,b\n" + "".join(f"{value},1\n" for value in values))
    assert [item.value["a"] for item in items] == values


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_lines_are_counted_through_quoted_breaks_and_blank_lines(tmp_path, end):
    items = read(tmp_path, end.join(["", "a,b", '"x', 'y",1', "", "z\u2028,2", ""]))
    assert [(item.value["a"], item.where.rsplit(":", 1)[1]) for item in items] == [("x\ny", "3"), ("z\u2028", "6")]


def test_ragged_rows_and_bad_quotes_are_problems(tmp_path):
    items = read(tmp_path, 'a,b\n1,2\n1,2,3\n"x"y,2\n4,5\n1\n')
    assert [getattr(item, "kind", "row") for item in items] == ["row", "ragged", "bad_quotes", "row", "ragged"]
    assert items[1] == Problem(f"{tmp_path}/f.csv:3", "ragged", "has 3 fields, the header has 2")


@pytest.mark.parametrize(
    ("text", "name", "part"),
    [
        ('a,b\n1,2\n"x,2\n3,4\n', "f.csv", ":3: a quote is opened here and never closed"),
        ("a,b,a\n1,2,3\n", "f.csv", ":1: the column 'a' stands in the header twice"),
        ("a,,\n1,2,3\n", "f.csv", "a column without a name stands in the header twice"),
        ("a,b\n", "f.csv", "has a header but no rows"),
        (
            "prompt;completion\na;b\n",
            "f.csv",
            "the delimiter is not a comma. It looks like a semicolon: say `--data.delimiter ';'`",
        ),
        ("prompt\tcompletion\na\tb\n", "f.csv", "It looks like a tab: say `--data.delimiter '\\t'`"),
        ("prompt,completion\na,b\n", "f.tsv", "It looks like a comma"),
        ("\n  \n\n", "f.csv", "only blank lines"),
    ],
)
def test_tables_that_cannot_be_meant(tmp_path, text, name, part):
    with pytest.raises(DataError) as caught:
        read(tmp_path, text, name)
    assert part in str(caught.value)


def test_another_delimiter_and_an_index_column(tmp_path):
    items = read(tmp_path, ";a;b\n0;x,y;2\n", delimiter=";")
    assert isinstance(items[0], Note)
    assert "without a name" in items[0].message
    assert items[1].value == {"a": "x,y", "b": "2"}
    with pytest.raises(ConfigurationError, match="a delimiter is one character"):
        read(tmp_path, "a,b\n", delimiter="::")


def test_a_tab_may_be_written_as_the_hint_says(tmp_path):
    assert read(tmp_path, "a\tb\n1\t2\n", delimiter="\\t")[0].value == {"a": "1", "b": "2"}


def test_fields_longer_than_the_csv_module_allows_by_itself(tmp_path):
    assert len(read(tmp_path, "a,b\n" + "x" * 200_000 + ",1\n")[0].value["a"]) == 200_000


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_the_hint_for_another_delimiter_works_as_it_is_written(tmp_path, mark):
    text = f"a{mark}b\n1{mark}2\n"
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    written = caught.value.hint.split("--data.delimiter ")[1].rstrip("`.").strip("'")
    given = override({}, [("delimiter", written)])["delimiter"]
    assert read(tmp_path, text, delimiter=given)[0].value == {"a": "1", "b": "2"}
