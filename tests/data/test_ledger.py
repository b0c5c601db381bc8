"""The ledger of dropped rows, and what is said about rows before anything is trained."""

import json
from pathlib import Path

import pytest

from tunewright.data.ledger import Drop, Findings, Ledger, labels, lengths, remarks
from tunewright.data.rows import ChatRow, LabelRow, Message, PreferenceRow, PromptRow, Row, TextRow

USER, ANSWER = Message(role="user", content="2+2?"), Message(role="assistant", content="4")
SYSTEM = Message(role="system", content="be brief")


def drops(kind: str, count: int) -> list[Drop]:
    return [Drop(f"a.jsonl:{number}", kind, f"{kind} {number}", "train") for number in range(count)]


def test_counts_name_the_most_frequent_reason_first():
    ledger = Ledger((*drops("bad_json", 1), *drops("empty", 3), *drops("twice", 2)))
    assert list(ledger.counts().items()) == [("empty", 3), ("twice", 2), ("bad_json", 1)]
    assert len(ledger) == sum(ledger.counts().values()) == len(list(ledger))


def test_at_most_five_examples_are_shown_and_all_are_counted():
    found = Ledger((*drops("empty", 9), *drops("twice", 1))).by_kind()
    assert found["empty"]["count"] == 9
    assert [example["where"] for example in found["empty"]["examples"]] == [f"a.jsonl:{number}" for number in range(5)]
    assert found["twice"]["examples"] == [{"where": "a.jsonl:0", "message": "twice 0", "split": "train"}]


@pytest.mark.parametrize("text", ["plain", "grün", "cut\u2028here", "next\x85line", "\x0b\x1c", "\ud800"], ids=ascii)
def test_a_ledger_is_read_back_as_it_was_written(text: str, tmp_path: Path):
    ledger = Ledger((Drop(text, "kind", text, "train"), Drop("b.jsonl:2", "kind", "plain", "test")))
    ledger.write(tmp_path / "ledger.jsonl")
    assert Ledger.read(tmp_path / "ledger.jsonl") == ledger


def test_an_empty_ledger_is_an_empty_file(tmp_path: Path):
    Ledger().write(tmp_path / "ledger.jsonl")
    assert (tmp_path / "ledger.jsonl").read_bytes() == b""
    assert Ledger.read(tmp_path / "ledger.jsonl") == Ledger()


def test_findings_survive_json():
    findings = Findings("text", "every row has a text", {"train": 3}, {"train": 2}, lengths={"train": {"input": {"p50": 1}}})
    assert Findings(**json.loads(json.dumps(findings.as_dict()))) == findings


def test_labels_are_counted_by_split_most_frequent_first():
    def rows(names: str) -> list[Row]:
        return [LabelRow(text="x", label=name) for name in names]

    found = labels({"train": rows("babca"), "test": rows("c"), "validation": [], "plain": [TextRow(text="x")]})
    assert found == {"train": {"a": 2, "b": 2, "c": 1}, "test": {"c": 1}}
    assert list(found["train"]) == ["a", "b", "c"]  # equal counts in the order of the alphabet


def test_lengths_are_quantiles_of_characters():
    rows = [PromptRow(prompt="x" * size, completion="é" * (2 * size)) for size in range(100, -1, -1)]
    found = lengths({"train": rows, "test": []})
    assert found == {"train": {"input": {"p50": 50, "p95": 95, "max": 100}, "answer": {"p50": 100, "p95": 190, "max": 200}}}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (PromptRow(prompt="say </s> now", completion="x"), "read as plain text: </s> (1)"),
        (PromptRow(prompt="x", completion="<|im_start|>"), "<|im_start|> (1)"),
        (TextRow(text="[INST] hi [/INST]"), "read as plain text: [/INST] (1), [INST] (1)"),
        (TextRow(text="zero\u200bwidth"), "cannot be seen"),
        (TextRow(text="left \u202e thgir"), "cannot be seen"),
        (PromptRow(prompt=" \n", completion="x"), "have an empty input"),
        (ChatRow(messages=(USER, ANSWER, USER)), "end with a message that nothing answers"),
        (ChatRow(messages=(USER, USER, ANSWER)), "two user messages or two answers in a row"),
        (ChatRow(messages=(USER, SYSTEM, ANSWER)), "a system message that is not the first"),
        (PreferenceRow(messages=(USER, ANSWER, ANSWER), chosen="a", rejected="b"), "two answers in a row"),
    ],
    ids=str,
)
def test_a_row_that_may_not_be_meant_is_remarked_on(row: Row, sentence: str):
    (said,) = remarks([row])
    assert said.startswith("1 row(s) ")
    assert sentence in said


@pytest.mark.parametrize(
    "row",
    [
        PromptRow(prompt="a < b and b > c, <p>html</p>", completion="[x]"),
        TextRow(text="zwj 👩\u200d💻 stays"),
        ChatRow(messages=(SYSTEM, USER, ANSWER)),
        PreferenceRow(messages=(USER,), chosen="a", rejected="b"),
    ],
    ids=str,
)
def test_an_ordinary_row_is_not_remarked_on(row: Row):
    assert remarks([row]) == []


def test_remarks_count_rows_and_not_places():
    rows = [TextRow(text="</s></s></s> <s>"), TextRow(text="</s>"), TextRow(text="fine")]
    (said,) = remarks(rows)
    assert said.startswith("2 rows hold")
    assert "</s> (2)" in said
    assert "<s> (1)" in said
