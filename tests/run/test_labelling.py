"""Rows and rules to rows with probable labels: what is written, what is left out, what is measured, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.ledger import Ledger
from tunewright.run.labelling import Labelled, label

RULES = """
functions:
  praise: {keywords: [lovely, fine], label: pos}
  scold: {keywords: [awful], label: neg}
  moan: {patterns: ['too \\w+'], label: neg}
  never: {keywords: [unseen], label: neg}
"""
TEXTS = [
    "a lovely day",
    "an awful day",
    "too long and awful",
    "a day",
    "fine but too long",
    "lovely and fine",
    "a fine one",
    "awful",
]
TRUE = ["pos", "neg", "neg", "neg", "neg", "pos", "pos", "neg"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(RULES, encoding="utf-8")
    write("texts.jsonl", [{"text": text, "id": number} for number, text in enumerate(TEXTS)])
    write("gold.jsonl", [{"text": text, "label": name} for text, name in zip(TEXTS, TRUE, strict=True)])
    return tmp_path


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def made(
    data: str = "texts.jsonl", *, out: str = "out.jsonl", gold: str | None = None, files: tuple[str, ...] = ("rules.yaml",)
) -> Labelled:
    return label(data, [Path(name) for name in files], Path(out), gold=gold, columns={})


@pytest.mark.usefixtures("desk")
def test_rows_with_votes_are_written_and_the_others_listed():
    found = made()
    rows = read(Path("out.jsonl"))
    assert [row["id"] for row in rows] == [0, 1, 2, 4, 5, 6, 7]
    assert list(rows[0]) == ["text", "label", "distribution", "id"]
    assert [row["label"] for row in rows] == ["pos", "neg", "neg", rows[3]["label"], "pos", "pos", "neg"]
    for row in rows:
        assert list(row["distribution"]) == ["neg", "pos"]
        assert sum(row["distribution"].values()) == pytest.approx(1, abs=2e-6)
        assert row["distribution"][row["label"]] >= 0.5
    assert (found.written, [drop.where for drop in found.left_out]) == (7, ["texts.jsonl:4"])
    assert found.ledger == Path("out.left_out.jsonl")
    assert Ledger.read(found.ledger).counts() == {"no_vote": 1}
    assert "'never' never votes" in found.notes
    assert found.compared is None


@pytest.mark.usefixtures("desk")
def test_known_labels_measure_and_change_nothing():
    found = made(gold="gold.jsonl")
    plain = made(out="plain.jsonl")
    assert read(Path("out.jsonl")) == read(Path("plain.jsonl"))
    assert found.fitted.accuracies == plain.fitted.accuracies
    assert found.compared is not None
    assert (found.compared.rows, found.compared.covered) == (8, 7)
    # `fine but too long` is a tie; more votes are for neg or pos: 4 to 4, and then the first label, neg, which is right.
    assert found.compared.majority.value == 1
    assert found.compared.majority.low < 1
    assert 6 / 7 <= found.compared.model.value <= 1
    judged = {one.name: (one.right, one.judged) for one in found.analysis.functions}
    assert judged == {"praise": (3, 4), "scold": (3, 3), "moan": (2, 2), "never": (0, 0)}


@pytest.mark.usefixtures("desk")
def test_labels_in_the_data_are_only_measured_with():
    found = made("gold.jsonl")
    assert found.compared is not None
    assert found.compared.rows == 8
    assert any("labels in the data serve as known ones" in note for note in found.notes)
    assert [row["text"] for row in read(Path("out.jsonl"))] == [text for text in TEXTS if text != "a day"]
    facts = json.loads(json.dumps(found.as_dict()))
    assert facts["gold"]["majority"]["count"] == 7
    assert facts["estimation"]["accuracies"] == "class_conditional"
    assert facts["left_out"] == {"count": 1, "rows": ["gold.jsonl:4"]}


@pytest.mark.usefixtures("desk")
def test_python_and_rules_together_with_what_failed():
    code = "def odd(row):\n    return {'a lovely day': 'pos'}[row.text]\n"
    code += "def long(row):\n    return 'neg' if len(row.text) > 14 else None\n"
    Path("lfs.py").write_text(code, encoding="utf-8")
    found = made(files=("rules.yaml", "lfs.py"))
    assert [one.name for one in found.analysis.functions] == ["praise", "scold", "moan", "never", "odd", "long"]
    (note,) = [note for note in found.notes if "failed" in note]
    assert note == (
        "'odd' failed on 7 rows, where it counts as abstaining; the first: texts.jsonl:2: raised KeyError: 'an awful day'"
    )


@pytest.mark.usefixtures("desk")
def test_columns_may_stand_in_one_file_only():
    write("reviews.jsonl", [{"review": text} for text in TEXTS])
    found = label("reviews.jsonl", [Path("rules.yaml")], Path("out.jsonl"), gold="gold.jsonl", columns={"review": "text"})
    assert found.written == 7
    with pytest.raises(ConfigurationError, match=r"no column 'revue'.*Did you mean 'review'"):
        label("reviews.jsonl", [Path("rules.yaml")], Path("o.jsonl"), gold="gold.jsonl", columns={"revue": "text"})


@pytest.mark.usefixtures("desk")
def test_rows_that_cannot_be_read_are_in_the_ledger_too():
    write("texts.jsonl", [*({"text": f"{text} {n}"} for n in range(4) for text in TEXTS), {"text": None}])
    found = made()
    assert found.left_out.counts() == {"no_vote": 4, "null": 1}


@pytest.mark.usefixtures("desk")
def test_what_stops_a_labelling_writes_nothing():
    Path("silent.yaml").write_text(
        "functions: {a: {keywords: [zebra], label: x}, b: {keywords: [yak], label: y}}", encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"texts.jsonl: none of the functions \(a, b\) votes on any row"):
        made(files=("silent.yaml",))
    Path("broken.py").write_text("def f(row):\n    return row.txt\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'f' raised AttributeError: .*texts.jsonl:1"):
        made(files=("broken.py",))
    write("numbers.jsonl", [{"text": "a lovely day", "label": name} for name in ("0", "1")])
    with pytest.raises(DataError, match=r"numbers.jsonl: no known label is one that the functions give.*'0'"):
        made(gold="numbers.jsonl")
    with pytest.raises(DataError, match=r"texts.jsonl: rows of shape 'text' have no known label"):
        made(gold="texts.jsonl")
    write("pairs.jsonl", [{"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match=r"pairs.jsonl:1: a row of shape 'prompt_completion' is no text to label"):
        made("pairs.jsonl")
    assert not Path("out.jsonl").exists()


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("rules.yaml", r"rules.yaml: rows with probabilities are written as JSON Lines"),
        ("gold.jsonl", r"gold.jsonl: exists already; nothing is ever overwritten"),
        ("nowhere/out.jsonl", r"nowhere: there is no such folder"),
    ],
)
def test_places_that_cannot_be_written(out: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        made(out=out)
