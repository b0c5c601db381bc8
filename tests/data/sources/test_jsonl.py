"""Strict JSON: what is refused row by row, with the line and the reason."""

import pytest

from tunewright.core.errors import DataError
from tunewright.data.sources import Problem, Record, _lines, records

GOOD = '{"text": "a"}'


def read(tmp_path, content, name="f.jsonl"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(records(path))


@pytest.mark.parametrize(
    ("line", "kind", "part"),
    [
        ('{"text": "a"', "broken_json", "ends too early"),
        ('{"text": "a', "broken_json", "ends too early"),
        ('{"text": "a",}', "broken_json", "a comma before '}'"),
        ("{'text': 'a'}", "broken_json", "single quotes"),
        ("# a comment", "broken_json", "a comment"),
        ('{"text": "a"} x', "broken_json", "more text after"),
        ('{"text": "a\tb"}', "broken_json", "column 12"),
        ('{"text": NaN}', "non_finite_number", "NaN"),
        ('{"text": -Infinity}', "non_finite_number", "-Infinity"),
        ('{"text": 1e999}', "non_finite_number", "1e999"),
        ('{"text": ' + "9" * 400 + "}", "huge_number", "400 digits"),
        ('{"text": "a", "text": "b"}', "duplicate_key", "'text' is given twice"),
        ('{"text": "\\ud800"}', "lone_surrogate", "surrogate"),
        ('{"text": "\\uDFFF"}', "lone_surrogate", "surrogate"),
        ('{"text": "a\\u0000b"}', "nul", "NUL"),
        ('{"text": ' + "[" * 70 + "]" * 70 + "}", "too_deep", "64 levels"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "too_deep", "64 levels"),
        ('["a", "b"]', "not_an_object", "is an array"),
        ('"a"', "not_an_object", "is a string"),
        ("7", "not_an_object", "is a number"),
        ("true", "not_an_object", "is true or false"),
        ("null", "not_an_object", "is null"),
    ],
)
def test_bad_rows_are_problems_and_the_others_are_read(tmp_path, line, kind, part):
    items = read(tmp_path, f"{GOOD}\n{line}\n{GOOD}\n")
    assert [type(item) for item in items] == [Record, Problem, Record]
    problem = items[1]
    assert problem.where == f"{tmp_path}/f.jsonl:2"
    assert problem.kind == kind
    assert part in problem.message


def test_what_is_legal_and_looks_strange(tmp_path):
    items = read(tmp_path, '{"text": "\\ud83d\\ude00 \\\\u0000 [[[[ {{{{", "n": 1e5, "big": 12345678901234567890}\n' + GOOD)
    assert items[0].value == {"text": "\U0001f600 \\u0000 [[[[ {{{{", "n": 1e5, "big": 12345678901234567890}


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_line_ends_and_blank_lines(tmp_path, end):
    items = read(tmp_path, end.join([GOOD, "", "  ", GOOD, '{"text": "x\u2028y\u2029z\u0085"}']))
    assert [item.where.rsplit(":", 1)[1] for item in items] == ["1", "4", "5"]
    assert items[2].value["text"] == "x\u2028y\u2029z\u0085"


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
def test_lines_do_not_depend_on_how_the_file_is_read(tmp_path, monkeypatch, block):
    monkeypatch.setattr(_lines, "BLOCK", block)
    path = tmp_path / "f"
    path.write_bytes("\ufeffä\r\n\r\nb\rc\n\nd".encode())
    assert list(_lines.lines(path)) == [(1, "ä"), (2, ""), (3, "b"), (4, "c"), (5, ""), (6, "d")]


@pytest.mark.parametrize("block", [5, 1 << 20])
def test_too_long_lines_are_skipped_and_the_count_goes_on(tmp_path, monkeypatch, block):
    monkeypatch.setattr(_lines, "BLOCK", block)
    monkeypatch.setattr(_lines, "LARGEST_ROW", 20)
    path = tmp_path / "f"
    path.write_bytes(b"a\n" + b"x" * 50 + b"\nb\n" + b"y" * 30)
    assert list(_lines.lines(path)) == [(1, "a"), (2, None), (3, "b"), (4, None)]


def test_a_row_above_ten_megabytes_is_a_problem(tmp_path):
    items = read(tmp_path, GOOD + '\n{"text": "' + "x" * 10_000_001 + '"}\n' + GOOD)
    assert (items[1].kind, items[1].message) == ("too_large", "is longer than 10 MB")
    assert len(items) == 3


@pytest.mark.parametrize(
    ("content", "offset", "line", "part"),
    [
        (b'{"text": "a"}\n{"text": "caf\xe9"}\n', 27, 2, "Latin-1"),
        (b'{"text": "a"}\n{"text": "\xf0\x28\x8c\x28"}\n', 24, 2, "not UTF-8"),
        (b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "\xff\xff"}\n', 30, 3, "byte 0xff"),
    ],
)
def test_broken_encodings_name_byte_and_line(tmp_path, content, offset, line, part):
    assert content[offset] >= 0x80
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    assert caught.value.where == f"{tmp_path}/f.jsonl:{line}"
    assert f"at offset {offset} is not UTF-8" in str(caught.value)
    assert part in str(caught.value)


def test_arrays_keep_the_line_of_each_row(tmp_path):
    items = read(tmp_path, '[\n  {"text": "a"},\n  {\n    "text": "b"\n  },\n  7, {"text": NaN},\n {"text": "c"}]\n')
    assert [item.where.rsplit(":", 1)[1] for item in items] == ["2", "3", "6", "6", "7"]
    assert [getattr(item, "kind", "") for item in items] == ["", "", "not_an_object", "non_finite_number", ""]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('[\n{"text": "a"},\n{"text": \n', ":3: the array cannot be read from here on"),
        ('[\n{"text": "a"}\n{"text": "b"}]', ":3: the array is cut off"),
        ('[\n{"text": "a"}', "the array is cut off"),
        ('[\n{"text": "a"}]\n{"text": "b"}', ":3: there is more text after the end"),
        ("[\n]", "holds no rows"),
        ('{\n  "text": "a"\n}\n', ":1: the first row is spread over several lines"),
        ('{\n  "data": [{"text": "a"}]\n}\n', "jq -c"),
    ],
)
def test_broken_arrays_and_spread_rows(tmp_path, content, part):
    with pytest.raises(DataError) as caught:
        read(tmp_path, content, "f.json")
    assert part in str(caught.value)


def test_lines_that_are_arrays_are_not_an_array_of_rows(tmp_path):
    assert [item.kind for item in read(tmp_path, '["a"]\n["b"]\n')] == ["not_an_object"] * 2
