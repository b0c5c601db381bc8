"""The whole of reading: what comes out, what is counted, what can be overridden."""

import json
import subprocess
import sys

import pytest

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.reading import DataConfig, read, read_rows
from tunewright.data.rows import LabelRow, PromptRow, TextRow


def question(i):
    return {"prompt": f"question {i} {'abcdefghij'[i % 10] * 9} {i * i}", "completion": f"answer {i}"}


def write(path, values):
    path.write_text("".join((value if isinstance(value, str) else json.dumps(value)) + "\n" for value in values), encoding="utf-8")
    return path


@pytest.fixture
def messy(tmp_path):
    good = [question(i) for i in range(100)]
    bad = ['{"prompt": ', {"prompt": "x", "completion": None}, {"prompt": 7, "completion": "y"}]
    return write(
        tmp_path / "f.jsonl",
        [*good, *bad, good[3], good[4], {"prompt": "empty", "completion": " "}, {**good[5], "completion": "no"}],
    )


def test_every_row_read_is_kept_or_in_the_ledger(messy):
    data = read(DataConfig(train=messy), 0)
    kept = [row.where for rows in data.splits().values() for row in rows]
    dropped = [drop.where for drop in data.ledger]
    assert sorted(kept + dropped) == sorted(f"{messy}:{line}" for line in range(1, 108))
    assert data.findings.read == {"train": 107}
    assert sum(data.findings.kept.values()) + len(data.ledger) == 107
    assert data.ledger.counts() == {"exact_duplicates": 2, "broken_json": 1, "null": 1, "wrong_type": 1, "empty_answers": 1}
    assert data.findings.dropped["null"] == {
        "count": 1,
        "examples": [{"where": f"{messy}:102", "message": "'completion' is null", "split": "train"}],
    }
    assert data.findings.found["conflicting_labels"]["found"] == 2


def test_findings_are_json_and_say_what_was_understood(messy):
    findings = read(DataConfig(train=messy), 0).findings
    assert json.loads(json.dumps(findings.as_dict(), allow_nan=False))["shape"] == "prompt_completion"
    assert findings.why == "the columns prompt, completion are those of prompt and completion"
    assert set(findings.lengths) == {"train", "validation", "test"}
    assert findings.lengths["train"]["answer"]["max"] <= len("answer 99")
    assert any("split off the training rows: validation (10 rows), test (10 rows)" in note for note in findings.notes)


def test_the_ledger_is_written_as_lines(messy, tmp_path):
    ledger = read(DataConfig(train=messy), 0).ledger
    ledger.write(tmp_path / "ledger.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [tuple(line.values()) for line in lines] == [tuple(drop) for drop in ledger]


def test_the_limit_of_bad_rows(messy):
    with pytest.raises(DataError) as caught:
        read(DataConfig(train=messy, bad_rows_limit=0.02), 0)
    message = str(caught.value)
    assert "3 of 107 rows cannot be used (2.8 %, the limit is 2 %): 1 x broken_json, 1 x null, 1 x wrong_type" in message
    assert f"{messy}:103: 'prompt' must be text, it is a number (7)" in message
    assert "--data.bad_rows_limit" in message


def test_seeds_decide_splits_and_nothing_else(messy):
    first, again, other = (read(DataConfig(train=messy), seed) for seed in (1, 1, 2))
    assert first.splits() == again.splits()
    assert first.test != other.test
    assert first.ledger == other.ledger


def test_own_files_are_used_and_only_the_missing_part_is_split_off(tmp_path):
    train = write(tmp_path / "a.jsonl", [question(i) for i in range(100)])
    test = write(tmp_path / "b.jsonl", [question(i) for i in range(95, 110)])
    data = read(DataConfig(train=train, test=test, validation_share=0.2), 0)
    assert [row.where for row in data.test] == [f"{test}:{line}" for line in range(1, 16)]
    assert (len(data.train), len(data.validation)) == (76, 19)
    assert data.ledger.counts() == {"leakage": 5}
    assert {drop.split for drop in data.ledger} == {"train"}


def test_a_folder_brings_its_splits_and_named_files_go_first(tmp_path):
    for name, start in (("train", 0), ("validation", 200), ("test", 300)):
        write(tmp_path / f"{name}.jsonl", [question(i) for i in range(start, start + 20)])
    other = write(tmp_path / "other.jsonl", [question(i) for i in range(400, 405)])
    data = read(DataConfig(train=tmp_path), 0)
    assert [len(rows) for rows in data.splits().values()] == [20, 20, 20]
    assert len(read(DataConfig(train=tmp_path, test=other), 0).test) == 5
    assert len(read(DataConfig(train=other, test=tmp_path, validation_share=0), 0).test) == 20


def test_small_data_with_own_files_needs_no_ten_rows(tmp_path):
    train = write(tmp_path / "a.jsonl", [question(1), question(2)])
    held = write(tmp_path / "b.jsonl", [question(8)])
    data = read(DataConfig(train=train, validation=held, test_share=0), 0)
    assert [len(rows) for rows in data.splits().values()] == [2, 1, 0]


def test_columns_and_shape_override_what_is_detected(tmp_path):
    path = write(tmp_path / "f.jsonl", [{"q": f"q{i}" * 5, "a": f"a{i}", "text": f"t{i}" * 9, "prompt": "old"} for i in range(20)])
    data = read(DataConfig(train=path, columns={"q": "prompt", "a": "completion"}), 0)
    row = next(row for rows in data.splits().values() for row in rows if row.where.endswith(":1"))
    assert row == PromptRow(prompt="q0" * 5, completion="a0", where=f"{path}:1", metadata={"text": "t0" * 9})
    assert "the column 'prompt' is not read: another one was named to be 'prompt'" in data.findings.notes
    texts = read(DataConfig(train=path, shape="text"), 0)
    assert (texts.shape, texts.findings.why) == ("text", "it was asked for")
    assert all(isinstance(row, TextRow) for row in texts.train)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"columns": {"promt": "prompt"}}, "has no column 'promt'. Did you mean 'prompt'"),
        ({"columns": {"prompt": "completon"}}, "'completon' is not a field of any shape. Did you mean 'completion'"),
        ({"columns": {"prompt": "text", "completion": "text"}}, "two columns are named 'text'"),
        ({"group": "usr"}, "data.group: .* has no column 'usr' to group by. Did you mean 'user'"),
    ],
)
def test_wrong_columns_are_named(tmp_path, settings, part):
    path = write(tmp_path / "f.jsonl", [question(i) | {"user": "x"} for i in range(20)])
    with pytest.raises(ConfigurationError, match=part):
        read(DataConfig(train=path, **settings), 0)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"shape": "chta"}, "data.yaml: shape: there is no shape 'chta'. Did you mean 'chat'"),
        ({"cleaning": {"leakge": "drop"}}, "cleaning: there is no filter 'leakge'. Did you mean 'leakage'"),
        ({"cleaning": {"leakage": "delete"}}, "cleaning.leakage: .*'drop', 'report' or 'off'"),
        ({"validation_share": 0.6, "test_share": 0.4}, "leave nothing to train on"),
        ({"validation_share": -0.1}, "validation_share"),
        ({"bad_row_limit": 0.1}, "unknown key 'bad_row_limit'.*Did you mean 'bad_rows_limit'"),
        ({"near_duplicates": 90}, "near_duplicates"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_read(settings, part):
    with pytest.raises(ConfigurationError, match=part):
        build(DataConfig, {"train": "f.jsonl", **settings}, "data.yaml")


def test_groups_are_kept_together_and_must_be_there(tmp_path):
    path = write(tmp_path / "f.jsonl", [question(i) | {"user": i // 5} for i in range(100)])
    data = read(DataConfig(train=path, group="user"), 0)
    sides = [{row.group for row in rows} for rows in data.splits().values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 20
    write(path, [question(i) | {"user": None if i == 4 else "x" + str(i)} for i in range(100)])
    assert read(DataConfig(train=path, group="user"), 0).ledger.counts() == {"no_group": 1}


def test_labels_are_counted_for_each_split(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text(
        "text,label\n" + "".join(f"text {i} {'abcdefghij'[i % 10] * 9} {i * i},{'00' if i % 4 else 'NA'}\n" for i in range(100))
    )
    data = read(DataConfig(train=path), 0)
    assert data.findings.labels["test"] == {"00": 7, "NA": 3}
    assert {name: sum(counts.values()) for name, counts in data.findings.labels.items()} == {
        "train": 80,
        "validation": 10,
        "test": 10,
    }


def test_what_should_be_known_is_noted(tmp_path):
    values = [question(i) | {"id": i} for i in range(40)]
    values[3]["prompt"] += " <|im_start|>system</s>"
    values[4]["prompt"] += "\u202e\u200b"
    values[5]["prompt"] = ""
    values[6]["extra"] = 1
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "".join(json.dumps(value) + "\n" for value in values).encode())
    notes = "\n".join(read(DataConfig(train=path), 0).findings.notes)
    for part in (
        "begins with a byte order mark (removed)",
        "columns that are kept but not learned from: id",
        "the column 'extra' stands in 1 rows only",
        "<|im_start|> (1)",
        "</s> (1)",
        "characters that cannot be seen",
        "an empty input",
    ):
        assert part in notes


def test_strange_chats_are_noted(tmp_path):
    def turn(role, text):
        return {"role": role, "content": text}

    chats = [[turn("user", f"u{i}" * 9), turn("assistant", "a")] for i in range(30)]
    chats[1].append(turn("user", "open"))
    chats[2].insert(0, turn("user", "twice"))
    chats[3].insert(1, turn("system", "late"))
    path = write(tmp_path / "f.jsonl", [{"messages": messages} for messages in chats])
    notes = "\n".join(read(DataConfig(train=path), 0).findings.notes)
    assert "end with a message that nothing answers" in notes
    assert "two user messages or two answers in a row" in notes
    assert "a system message that is not the first" in notes


def test_reading_one_file_to_measure_with(tmp_path):
    path = write(tmp_path / "f.jsonl", [{"text": "a", "label": "x"}, {"text": "a", "label": "x"}, {"text": "b", "label": ""}])
    rows, ledger, findings = read_rows(path)
    assert rows == [LabelRow(text="a", label="x", where=f"{path}:{line}") for line in (1, 2)]
    assert ledger.counts() == {"empty_answers": 1}
    assert (findings.read, findings.kept) == ({"test": 3}, {"test": 2})
    assert findings.found["exact_duplicates"]["found"] == 1
    renamed = write(tmp_path / "g.jsonl", [{"q": "a", "a": "b"}])
    assert read_rows(renamed, columns={"q": "prompt", "a": "completion"}).rows[0].input_text() == "a"
    assert isinstance(read_rows(path, shape="text").rows[0], TextRow)


def test_near_duplicates_are_dropped_when_asked(tmp_path):
    values = [question(i) for i in range(30)]
    long = "a long question about the weather in the north of the country in the spring of last year"
    path = write(tmp_path / "f.jsonl", [*values, {"prompt": long, "completion": "a"}, {"prompt": long + "!", "completion": "b"}])
    data = read(DataConfig(train=path), 0)
    assert data.findings.found["near_duplicates"]["found"] == 1
    sides = [name for name, rows in data.splits().items() for row in rows if row.prompt.startswith(long)]
    assert len(sides) == 2
    assert len(set(sides)) == 1
    assert read(DataConfig(train=path, cleaning={"near_duplicates": "drop"}), 0).ledger.counts() == {"near_duplicates": 1}
    assert "near_duplicates" not in read(DataConfig(train=path, near_duplicates=0), 0).ledger.counts()


def test_nothing_heavy_is_imported_to_read_lines(tmp_path):
    path = write(tmp_path / "f.jsonl", [question(i) for i in range(20)])
    code = f"""
import sys
from tunewright.data.reading import DataConfig, read
heavy = {{"torch", "transformers", "datasets", "pyarrow", "pandas", "datasketch", "numpy"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
read(DataConfig(train={str(path)!r}), 0)
assert not heavy - {{"datasketch", "numpy"}} & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_texts_with_other_columns_are_asked_about(tmp_path):
    path = write(tmp_path / "f.jsonl", [{"text": f"text {i}" * 5, "flagged": str(i % 2)} for i in range(30)])
    assert any(
        "if a column holds the label, say `--data.columns '{flagged: label}'`" in note
        for note in read(DataConfig(train=path), 0).findings.notes
    )
    assert read(DataConfig(train=path, columns={"flagged": "label"}), 0).shape == "text_label"


def test_labels_that_are_nowhere_the_likeliest_are_labels(tmp_path):
    rows = [{"text": f"text number {number}", "distribution": {"a": 0.9, "b": 0.1}} for number in range(40)]
    (tmp_path / "soft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read(DataConfig(train=tmp_path / "soft.jsonl"), 0).train) > 20
    sure = [{**row, "distribution": {"a": 1.0}} for row in rows]
    (tmp_path / "sure.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sure))
    with pytest.raises(DataError, match="every row has the same label"):
        read(DataConfig(train=tmp_path / "sure.jsonl"), 0)
