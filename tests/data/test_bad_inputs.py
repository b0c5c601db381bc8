"""The corpus of bad inputs: every file that users really have, and what is said about it."""

import gzip
import json
import os
import socket
import time
import zipfile

import pytest

from tunewright.core.errors import RequestError
from tunewright.data.reading import DataConfig, read, read_rows

GOOD = "".join(
    json.dumps({"prompt": f"question {i} {'abcdefghij'[i % 10] * 9}", "completion": f"answer {i}"}) + "\n" for i in range(40)
)
LABELLED = "".join(json.dumps({"text": f"text {i} {'abcdefghij'[i % 10] * 9}", "label": i % 2}) + "\n" for i in range(40))


def rows(*values):
    return "".join((value if isinstance(value, str) else json.dumps(value)) + "\n" for value in values)


TEXTS = {
    "empty": ("f.jsonl", "", "f.jsonl: is empty (0 bytes)"),
    "blank lines": ("f.jsonl", "\n \n\r\n\t\n", "f.jsonl: holds no rows"),
    "blank text": ("f.txt", "\n\n", "holds no rows"),
    "html": ("f.jsonl", "<!DOCTYPE html>\n<html><body>404</body></html>", "looks like an HTML page. A download probably failed"),
    "xml": ("f.csv", '<?xml version="1.0"?><a/>', "looks like XML"),
    "git lfs": (
        "f.jsonl",
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
        "Git LFS pointer, not the data. Run `git lfs pull`",
    ),
    "utf-16": ("f.jsonl", GOOD.encode("utf-16"), "is UTF-16 text; UTF-8 is expected. Convert it: `iconv -f UTF-16 -t UTF-8"),
    "utf-16 without mark": ("f.jsonl", GOOD.encode("utf-16-le"), "is UTF-16 text"),
    "utf-16 big": ("f.csv", "a,b\nc,d\n".encode("utf-16-be"), "is UTF-16 text"),
    "utf-32": ("f.jsonl", GOOD.encode("utf-32"), "is UTF-32 text"),
    "latin-1": (
        "f.csv",
        "prompt,completion\nä,b\n".encode("latin-1"),
        "f.csv:2: byte 0xe4 at offset 18 is not UTF-8. It looks like Latin-1",
    ),
    "invalid utf-8": ("f.jsonl", GOOD.encode() + b'{"prompt": "\xff\xfe"}', "f.jsonl:41: byte 0xff at offset"),
    "nul": ("f.jsonl", GOOD.encode() + b'{"prompt": "a\0b"}', "f.jsonl:41: there is a NUL byte at offset"),
    "csv nul": ("f.csv", b"prompt,completion\na\0,b\n", "f.csv:2: there is a NUL byte at offset 19"),
    "binary": ("f.jsonl", bytes(range(256)) * 20, "f.jsonl"),
    "pdf": ("f.txt", b"%PDF-1.7 ...", "is a PDF document"),
    "parquet by another name": ("f.jsonl", b"PAR1" + bytes(100), "is a Parquet file: name it .parquet"),
    "wrong magic": ("f.parquet", b"hello world", "cannot be read as Parquet"),
    "wrong arrow": ("f.arrow", b"hello world", "cannot be read as Arrow"),
    "gzip": ("f.jsonl.gz", gzip.compress(GOOD.encode()), "is a gzip archive; packed files are not read. Unpack it first: `gunzip"),
    "gzip by another name": ("f.jsonl", gzip.compress(bytes(10_000_000)), "is a gzip archive"),
    "word": ("f.docx", b"PK\x03\x04" + bytes(50), "is a zip archive"),
    "suffix": ("f.xlsx2", "a", "files ending in '.xlsx2' are not read"),
    "one bad of three": (
        "f.jsonl",
        rows({"prompt": "a", "completion": "b"}, '{"prompt": "a", ', {"prompt": "c", "completion": "d"}),
        "1 of 3 rows",
    ),
    "python": ("f.jsonl", "{'prompt': 'a'}\n" * 3, "3 of 3 rows cannot be used (100 %, the limit is 5 %): 3 x broken_json"),
    "arrays": ("f.jsonl", '["a", "b"]\n["c", "d"]\n', "2 x not_an_object. The first: "),
    "deep": ("f.jsonl", '{"text": ' + "[" * 5000 + "]" * 5000 + "}", "nested more than 64 levels deep"),
    "duplicate keys": ("f.jsonl", '{"prompt": "a", "prompt": "b", "completion": "c"}\n', "the key 'prompt' is given twice"),
    "nan": ("f.jsonl", '{"text": "a", "label": NaN}\n', "NaN is not a JSON number"),
    "surrogate": ("f.jsonl", '{"text": "\\ud800"}\n', "half of a surrogate pair"),
    "nulls": ("f.jsonl", rows({"prompt": "a", "completion": None}) * 3, "3 x null. The first: "),
    "mixed shapes": ("f.jsonl", GOOD + LABELLED, "rows of several shapes are mixed: prompt_completion (40 rows, first at"),
    "another shape later": ("f.jsonl", GOOD * 3 + LABELLED, "40 x missing_column"),
    "type changes": ("f.jsonl", GOOD + rows(*({"prompt": i, "completion": "b"} for i in range(9))), "9 x wrong_type"),
    "label type changes": ("f.jsonl", LABELLED + rows(*({"text": f"t{i}", "label": "1"} for i in range(9))), "9 x changed_type"),
    "unknown roles": ("f.jsonl", rows({"messages": [{"role": "bot", "content": "a"}]}) * 3, "3 x unknown_role"),
    "no column fits": ("f.jsonl", rows({"query": "a", "reply": "b"}), "{query: prompt, reply: completion}"),
    "ragged": ("f.csv", "prompt,completion\n" + "a,b,c\n" * 3, "3 x ragged"),
    "unclosed quote": ("f.csv", 'prompt,completion\na,"b\nc,d\n', "f.csv:2: a quote is opened here and never closed"),
    "duplicate header": ("f.csv", "prompt,prompt\na,b\n", "the column 'prompt' stands in the header twice"),
    "semicolon": ("f.csv", "prompt;completion\na;b\n", "It looks like a semicolon: say `--data.delimiter ';'`"),
    "header only": ("f.csv", "prompt,completion\n", "has a header but no rows"),
    "half empty": (
        "f.jsonl",
        rows(*({"prompt": f"q{i}", "completion": "" if i % 3 else "a"} for i in range(30))),
        "20 of 30 answers are empty",
    ),
    "one label": (
        "f.jsonl",
        rows(*({"text": f"text {i}{i}{i}", "label": "pos"} for i in range(30))),
        "every row has the same label, 'pos'",
    ),
    "few rows": (
        "f.jsonl",
        rows(*({"prompt": f"q{i}", "completion": "a"} for i in range(5))),
        "there are 5 usable rows; at least 10",
    ),
    "one row again and again": (
        "f.jsonl",
        rows({"prompt": "a", "completion": "b"}) * 500,
        "Dropped before: 499 x exact_duplicates",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_files(tmp_path, case):
    name, content, part = TEXTS[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.perf_counter()
    with pytest.raises(RequestError) as caught:
        read(DataConfig(train=path), seed=0)
    assert time.perf_counter() - started < 5
    message = str(caught.value)
    assert part in message
    assert str(path) in message
    assert "Traceback" not in message


def test_missing_files_name_the_nearest(tmp_path):
    (tmp_path / "train.jsonl").write_text(GOOD)
    with pytest.raises(RequestError, match=r"there is no such file. Did you mean '.*/train.jsonl'\?"):
        read(DataConfig(train=tmp_path / "trian.jsonl"), 0)
    with pytest.raises(RequestError, match=r"There is no folder '.*/data' either"):
        read(DataConfig(train=tmp_path / "data" / "train.jsonl"), 0)


def test_what_is_no_file_is_refused_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "gone.jsonl")
    server = socket.socket(socket.AF_UNIX)
    os_path = tmp_path / "s.jsonl"
    server.bind(str(os_path))
    try:
        for name, part in (
            ("pipe", "a named pipe"),
            ("link", "is a link to '.*gone.jsonl', which does not exist"),
            ("s", "a socket"),
        ):
            with pytest.raises(RequestError, match=part):
                read(DataConfig(train=tmp_path / f"{name}.jsonl"), 0)
    finally:
        server.close()
    with pytest.raises(RequestError, match="is a device, not a file"):
        read(DataConfig(train="/dev/zero"), 0)


def test_an_archive_with_a_way_out_writes_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("../../evil.jsonl", GOOD)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RequestError, match="is a zip archive"):
        read(DataConfig(train=tmp_path / "f.zip"), 0)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read everything")
def test_unreadable_files(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text(GOOD)
    path.chmod(0)
    with pytest.raises(RequestError, match="permission denied"):
        read(DataConfig(train=path), 0)


def test_labels_that_training_never_saw(tmp_path):
    (tmp_path / "train.jsonl").write_text(LABELLED)
    (tmp_path / "test.jsonl").write_text(rows({"text": "x", "label": 1}, {"text": "y", "label": "2"}))
    with pytest.raises(RequestError, match="2 rows cannot be used"):
        read(DataConfig(train=tmp_path), 0)
    (tmp_path / "test.jsonl").write_text(rows({"text": "x", "label": 1}, {"text": "y", "label": 2}))
    with pytest.raises(RequestError, match=r"test.jsonl:2: 1 test rows have a label that no training row has: 2. Allowed: 0, 1"):
        read(DataConfig(train=tmp_path), 0)


def test_a_test_file_of_another_shape(tmp_path):
    (tmp_path / "train.jsonl").write_text(GOOD)
    (tmp_path / "test.jsonl").write_text(LABELLED)
    with pytest.raises(
        RequestError, match=r"40 x missing_column.*the columns 'prompt', 'completion' are missing \(it has text, label\)"
    ):
        read(DataConfig(train=tmp_path), 0)


def test_a_single_file_to_measure_with_is_checked_too(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text(rows({"prompt": "a"}))
    with pytest.raises(RequestError, match="fit no known shape"):
        read_rows(path)
