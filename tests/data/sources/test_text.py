from tunewright.data.sources import Note, Record, records


def read(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    items = list(records(path))
    notes = [item.message for item in items if isinstance(item, Note)]
    return [(item.value["text"], int(item.where.rsplit(":", 1)[1])) for item in items if isinstance(item, Record)], notes


def test_blocks_between_blank_lines(tmp_path):
    rows, notes = read(tmp_path / "f.txt", "\n a\r\nb\r\n\r\n  \r\nc\u2028d\r\n")
    assert rows == [(" a\nb", 2), ("c\u2028d", 6)]
    assert notes == ["is read as one row for every block between blank lines"]


def test_lines_where_there_are_no_blank_ones(tmp_path):
    rows, notes = read(tmp_path / "f.txt", "\na\nb\n\n")
    assert rows == [("a", 2), ("b", 3)]
    assert notes == ["is read as one row for every line"]
