"""Filters: what each finds, what is dropped and what stays."""

import pytest

from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.cleaning import Pool, clean, room
from tunewright.data.rows import ChatRow, LabelRow, Message, PreferenceRow, PromptRow, TextRow


def prompts(*pairs):
    return tuple(PromptRow(prompt=prompt, completion=answer, where=f"f:{i}") for i, (prompt, answer) in enumerate(pairs, start=1))


def labelled(*pairs):
    return tuple(LabelRow(text=text, label=label, where=f"f:{i}") for i, (text, label) in enumerate(pairs, start=1))


def dropped(pool, **actions):
    return [(drop.where, drop.kind) for drop in clean(pool, actions).drops]


def plenty(count):
    return tuple((f"question number {i} about {'abcdefghij'[i % 10] * 8}", f"answer {i}") for i in range(count))


@pytest.mark.parametrize("name", room.names())
def test_contract(name):
    entry = room[name]()
    assert entry.action in ("drop", "report")
    assert set(entry.roles) <= {"train", "validation", "test"}
    assert list(entry.judge(Pool(()))) == []
    pool = Pool(prompts(*plenty(12), ("question number 3", "")) * 2)
    places = [verdict.place for verdict in entry.judge(pool)]
    assert len(places) == len(set(places))
    assert places == [verdict.place for verdict in entry.judge(pool)]


@pytest.mark.parametrize("name", room.names())
def test_nothing_is_lost_and_off_means_off(name):
    rows = prompts(*plenty(30), ("x", ""), *plenty(3), ("question number 5", "another answer"))
    for action in ("drop", "report", "off"):
        cleaned = clean(Pool(rows), {name: action})
        assert len(cleaned.pool.rows) + len(cleaned.drops) == len(rows)
        assert (name in cleaned.found) == (action != "off")
        if action != "drop":
            assert not [drop for drop in cleaned.drops if drop.kind == name]


def test_exact_duplicates_name_the_first():
    cleaned = clean(Pool(prompts(("a", "b"), ("c", "d"), ("a", "b"), ("a", "b"))), {})
    assert [(drop.where, drop.message) for drop in cleaned.drops] == [("f:3", "is the same as f:1"), ("f:4", "is the same as f:1")]
    assert [row.where for row in cleaned.pool.rows] == ["f:1", "f:2"]
    assert cleaned.found["exact_duplicates"]["found"] == 2


def test_files_of_the_user_to_measure_with_stay_as_they_are():
    rows = prompts(("a", "b"), ("c", "d"), ("c", "d"), ("e", " "), ("g", "h"))
    cleaned = clean(Pool(rows, ("train", "test", "test", "test", "test")), {})
    assert [(drop.where, drop.kind) for drop in cleaned.drops] == [("f:4", "empty_answers")]
    assert cleaned.found["exact_duplicates"] == {
        "found": 1,
        "dropped": 0,
        "examples": [{"where": "f:3", "message": "is the same as f:2"}],
    }


def test_empty_answers_of_every_shape():
    call = Message(role="assistant", content="", extra={"tool_calls": [{}]})
    said = Message(role="user", content="a")
    rows = (
        PromptRow(prompt="a", completion=" \n", where="1"),
        LabelRow(text="a", label="", where="2"),
        TextRow(text=" ", where="3"),
        ChatRow(messages=(said, Message(role="assistant", content="")), where="4"),
        ChatRow(messages=(said, call), where="kept"),
        PreferenceRow(messages=(said,), chosen="", rejected="b", where="5"),
        PreferenceRow(messages=(said,), chosen="b", rejected="", where="6"),
        *prompts(*plenty(6)),
    )
    assert [drop.where for drop in clean(Pool(rows), {}).drops] == ["1", "2", "3", "4", "5", "6"]


def test_mostly_empty_answers_stop_the_run():
    rows = prompts(*((f"q{i}", "" if i < 6 else "a") for i in range(10)))
    with pytest.raises(DataError, match=r"f: 6 of 10 answers are empty \(60 %; first: f:1, f:2, f:3\). .*--data.columns"):
        clean(Pool(rows), {})


def test_conflicts_are_reported_and_dropped_only_if_asked():
    pool = Pool(labelled(("good", "pos"), ("good", "neg"), ("good", "pos "), ("bad", "neg"), (" bad", "pos"), ("fine", "pos")))
    found = clean(pool, {}).found["conflicting_labels"]
    assert (found["found"], found["dropped"]) == (5, 0)
    assert found["examples"][0] == {"where": "f:1", "message": "answers 'pos' where f:2 answers 'neg' to the same input"}
    rows = labelled(("good", "pos"), ("good", "pos"), ("good", "neg"))
    assert dropped(Pool(rows), conflicting_labels="drop", exact_duplicates="off") == [("f:3", "conflicting_labels")]


def test_pairs_conflict_only_the_other_way_round():
    said = (Message(role="user", content="a"),)
    pairs = [("x", "y"), ("x", "z"), ("y", "x")]
    rows = tuple(PreferenceRow(messages=said, chosen=a, rejected=b, where=str(i)) for i, (a, b) in enumerate(pairs))
    found = clean(Pool(rows), {}).found["conflicting_labels"]
    assert [example["where"] for example in found["examples"]] == ["0", "2"]


def test_leakage_is_taken_out_of_train_and_the_test_stays():
    text = "the quick brown fox jumps over the lazy dog and runs into the deep dark wood"
    rows = prompts(
        (text, "a"), (text.upper(), "b"), (text + "s", "c"), ("something else", "d"), (text, "e"), ("something  else", "f")
    )
    pool = Pool(rows, ("train", "train", "train", "validation", "test", "test"))
    assert dropped(pool) == [(f"f:{i}", "leakage") for i in (1, 2, 3, 4)]
    messages = [drop.message for drop in clean(pool, {}).drops]
    assert "its input equals that of f:5, a row of the test split" in messages
    assert "its input nearly equals that of f:5, a row of the test split" in messages
    assert dropped(Pool(rows, pool.roles, similarity=0)) == [("f:1", "leakage"), ("f:2", "leakage"), ("f:4", "leakage")]
    assert dropped(pool, leakage="report") == []


def test_misspelt_filters_are_named():
    with pytest.raises(ConfigurationError, match=r"there is no filter 'near_duplicate'. Did you mean 'near_duplicates'"):
        clean(Pool(()), {"near_duplicate": "drop"})
