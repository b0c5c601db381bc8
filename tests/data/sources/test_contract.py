"""What holds for every source of files: the same rows come out of each format, with their places."""

import csv
import json
import shutil

import pytest

from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.sources import Note, Record, records, room, source_for
from tunewright.data.sources.conll import Conll

ROWS = [{"prompt": "007", "completion": "NA"}, {"prompt": "Grüße \u2028 \u0085 \U0001f600", "completion": 'a "b", c;\nd'}]


def write_jsonl(path):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")


def write_array(path):
    path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8")


def write_table(delimiter):
    def write(path):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["prompt", "completion"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)

    return write


def write_parquet(path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def write_arrow(opener):
    def write(path):
        import pyarrow
        import pyarrow.ipc

        table = pyarrow.Table.from_pylist(ROWS)
        with getattr(pyarrow.ipc, opener)(str(path), table.schema) as writer:
            writer.write_table(table)

    return write


FORMATS = {
    "rows.jsonl": write_jsonl,
    "rows.ndjson": write_jsonl,
    "lines.json": write_jsonl,
    "array.json": write_array,
    "array.jsonl": write_array,
    "rows.csv": write_table(","),
    "rows.tsv": write_table("\t"),
    "rows.parquet": write_parquet,
    "file.arrow": write_arrow("new_file"),
    "stream.arrow": write_arrow("new_stream"),
    "rows.feather": write_arrow("new_file"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    path = tmp_path / name
    FORMATS[name](path)
    items = list(records(path))
    assert [item.value for item in items if isinstance(item, Record)] == ROWS
    assert all(item.where.startswith(f"{path}:") for item in items)
    assert len({item.where for item in items}) == 2


def test_every_suffix_has_a_test_and_one_source():
    suffixes = [suffix for name in room.names() for suffix in room[name].suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert set(suffixes) - {".txt", *Conll.suffixes} == {"." + name.rsplit(".", 1)[1] for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_one_error_with_its_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    with pytest.raises(DataError) as caught:
        list(records(path))
    assert caught.value.where.startswith(str(path))


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_off_file_is_never_read_as_whole(tmp_path, name):
    path = tmp_path / name
    FORMATS[name](path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    try:
        good = [item for item in records(path) if isinstance(item, Record)]
    except DataError:
        return
    assert len(good) < len(ROWS)


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path)
    reading = records(path)
    next(reading)
    with path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(DataError, match="changed while it was being read"):
        list(reading)


def test_only_tables_have_a_delimiter(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl")
    with pytest.raises(ConfigurationError, match=r"data.delimiter: a delimiter \(';'\)"):
        list(records(tmp_path / "rows.jsonl", ";"))


def test_unknown_suffixes_list_the_known_ones(tmp_path):
    (tmp_path / "rows.jsnol").write_text("{}")
    with pytest.raises(
        DataError, match=r"files ending in '.jsnol' are not read. Did you mean '.json.*'\? Allowed: .arrow, .bio, .conll"
    ):
        source_for(tmp_path / "rows.jsnol")
    shutil.copy(tmp_path / "rows.jsnol", tmp_path / "rows")
    with pytest.raises(DataError, match="has no suffix"):
        source_for(tmp_path / "rows")


def test_a_byte_order_mark_is_removed_and_noted(tmp_path):
    for name in ("rows.jsonl", "rows.csv", "rows.txt"):
        path = tmp_path / name
        path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n{"text": "b"}\n')
        items = list(records(path))
        assert any(isinstance(item, Note) and "byte order mark" in item.message for item in items)
        assert "\ufeff" not in str([item for item in items if isinstance(item, Record)])
