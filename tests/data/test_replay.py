"""Replay: the task's rows as they are, general ones up to their share, and both told apart."""

import json
import random
from pathlib import Path

import pytest

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.reading import DataConfig, Dataset, read
from tunewright.data.replay import Replay, as_replay, is_replayed, learned_text, pieces
from tunewright.data.rows import ChatRow, Message, PromptRow, TextRow

WORDS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay")


def write(path: Path, count: int, **fields: str) -> str:
    draw = random.Random(str(fields))
    rows = [
        {name: f"{begins} {number} {' '.join(draw.choices(WORDS, k=9))}" for name, begins in fields.items()}
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def task(tmp_path: Path) -> str:
    return write(tmp_path / "task.jsonl", 60, prompt="ask", completion="say")


@pytest.fixture
def general(tmp_path: Path) -> str:
    return write(tmp_path / "general.jsonl", 30, text="general")


def mixed(task: str, replay: object, seed: int = 0, **settings: object) -> Dataset:
    return read(build(DataConfig, {"train": task, "replay": replay, "near_duplicates": 0, **settings}), seed)


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.5])
def test_general_rows_come_on_top_up_to_their_share(task: str, general: str, share: float):
    bare, both = read(build(DataConfig, {"train": task, "near_duplicates": 0}), 0), mixed(task, {"train": general, "share": share})
    own, more = ([row for row in both.train if is_replayed(row) is kept] for kept in (False, True))
    assert own == bare.train
    assert all(isinstance(row, TextRow) for row in more)
    assert len(more) == round(len(own) * share / (1 - share))
    assert both.validation == bare.validation  # general rows have no say in when training stops
    assert [row for row in both.test if not is_replayed(row)] == bare.test
    assert sum(map(is_replayed, both.test)) == 3
    assert both.shape == PromptRow.shape
    assert both.findings.kept == {name: len(rows) for name, rows in both.splits().items()}
    assert any(f"{len(more)} of {len(both.train)} training rows" in note for note in both.findings.notes)
    assert not {row.input_text() for row in both.train} & {row.input_text() for row in both.test}


def test_rows_are_repeated_before_the_share_is_missed(task: str, general: str):
    found = mixed(task, {"train": general, "share": 0.75})
    texts = [row.input_text() for row in found.train if is_replayed(row)]
    counts = [texts.count(text) for text in set(texts)]
    assert len(texts) == 3 * (len(found.train) - len(texts))
    assert max(counts) - min(counts) <= 1
    assert any("of them repeated" in note for note in found.findings.notes)


def test_which_rows_are_replayed_depends_on_the_seed_alone(task: str, general: str, tmp_path: Path):
    one, again = (mixed(task, {"train": general}, bad_rows_limit=limit) for limit in (0.05, 0.5))
    assert one.train == again.train
    apart = {name: write(tmp_path / f"{name}.jsonl", 9, prompt=name, completion="b") for name in ("validation", "test")}
    replay = {"train": general, "test": write(tmp_path / "more.jsonl", 9, text="more"), "share": 0.1}
    first, other = ([row.input_text() for row in mixed(task, replay, seed, **apart).train] for seed in (0, 1))
    assert first[:60] == other[:60]  # with files of their own for the rest, the task's rows stay
    assert set(first[60:]) != set(other[60:])


@pytest.mark.parametrize("given", [None, 0.5])
def test_general_tokens_weigh_by_how_much_is_learned_of_both(tmp_path: Path, given: float | None):
    """48 rows with answers of 1 character, 16 texts of 50: 800 b / (48 + 800 b) = 1/4, and sqrt(b) is the weight."""
    task = tmp_path / "task.jsonl"
    task.write_text("".join(json.dumps({"prompt": f"{number} {'p' * number}", "completion": "x"}) + "\n" for number in range(60)))
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"{number:050d}"}) + "\n" for number in range(40)))
    found = mixed(str(task), {"train": str(texts), "share": 0.25, "weight": given})
    own, more = ([row.weight for row in found.train if is_replayed(row) is kept] for kept in (False, True))
    assert (len(own), set(own), len(more)) == (48, {1.0}, 16)
    assert more == pytest.approx([given or (48 / (3 * 16 * 50)) ** 0.5] * 16)


def test_a_weight_is_never_above_that_of_the_task(tmp_path: Path, task: str):
    short = write(tmp_path / "short.jsonl", 30, text="t")
    found = mixed(write(tmp_path / "long.jsonl", 30, text="long " * 40), {"train": short, "share": 0.5})
    assert {row.weight for row in found.train} == {1.0}
    said = [Message(role="assistant", content="that"), Message(role="assistant", content="no", weight=0)]
    chat = ChatRow(messages=(Message(role="user", content="what"), *said))
    assert learned_text(chat) == "that"


def test_a_mixture_is_replayed_beside_too(task: str, general: str, tmp_path: Path):
    other = write(tmp_path / "other.jsonl", 40, prompt="what", completion="that")
    parts = [{"name": "one", "train": task}, {"name": "two", "train": other}]
    found = read(build(DataConfig, {"mixture": parts, "replay": general, "near_duplicates": 0}), 0)
    assert {row.metadata.get("task") for row in found.train} == {"one", "two", None}
    assert sum(map(is_replayed, found.train)) == round(0.25 * sum(not is_replayed(row) for row in found.train))
    assert set(found.findings.parts) == {"one", "two"}


def test_long_texts_are_cut_at_white_space_and_nothing_is_lost():
    text = "\n".join(f"line {number} of a long text" for number in range(40))
    found = pieces(TextRow(text=text, where="f:1"), 100)
    assert all(len(row.text) <= 100 for row in found)
    assert {row.where for row in found} == {"f:1"}
    assert " ".join(row.text for row in found).split() == text.split()
    assert len(found) <= 2 * len(text) / 100
    long = PromptRow(prompt="x " * 99, completion="y")
    assert pieces(long, 100) == [long]
    assert [row.text for row in pieces(TextRow(text="w" * 300), 100)] == ["w" * 300]


def test_a_file_alone_is_what_is_replayed(general: str):
    assert build(Replay, as_replay(general)) == Replay(train=general)


@pytest.mark.parametrize(("settings", "message"), [({"share": 1.0}, "share"), ({"shares": 0.1}, "shares"), ({"piece": 3}, "piece")])
def test_settings_that_cannot_be_are_refused(general: str, settings: dict[str, object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        build(DataConfig, {"train": general, "replay": {"train": general, **settings}})


def test_an_error_in_the_general_rows_says_so(task: str, tmp_path: Path):
    with pytest.raises(DataError, match="the general rows of `replay`"):
        mixed(task, str(tmp_path / "nowhere.jsonl"))
