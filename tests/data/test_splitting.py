"""Splits: the right sizes, every label learned, nothing on two sides, the same whatever the order."""

import random
from collections import Counter

import pytest

from tunewright.core.errors import DataError
from tunewright.data.cleaning import Pool
from tunewright.data.rows import LabelRow, PromptRow
from tunewright.data.splitting import split

SHARES = {"validation": 0.1, "test": 0.1}


def text(i):
    return "".join(random.Random(i).choices("abcdefghijklmnopqrstuvwxyz ", k=40))


def prompts(count, group=None):
    return [PromptRow(prompt=text(i), completion=str(i), where=f"f:{i}", group=group and group(i)) for i in range(count)]


def labelled(**counts):
    return [
        LabelRow(text=text(f"{label}{i}"), label=label, where=f"f:{label}{i}")
        for label, count in counts.items()
        for i in range(count)
    ]


def places(splits):
    return {name: sorted(row.where for row in rows) for name, rows in splits.items()}


@pytest.mark.parametrize("count", [10, 11, 37, 100, 1000])
def test_sizes_and_nothing_lost(count):
    rows = prompts(count)
    splits = split(rows, SHARES, 1)
    assert sorted(places(splits)["train"] + places(splits)["validation"] + places(splits)["test"]) == sorted(
        row.where for row in rows
    )
    for name in SHARES:
        assert abs(len(splits[name]) - count / 10) < 1 or len(splits[name]) == 1


def test_the_same_for_every_order_and_another_for_another_seed():
    rows = prompts(200)
    first = split(rows, SHARES, 1)
    assert places(first) == places(split(random.Random(0).sample(rows, 200), SHARES, 1))
    assert places(first) == places(split(rows, SHARES, 1))
    assert places(first)["test"] != places(split(rows, SHARES, 2))["test"]
    assert [row.where for row in first["train"]] == [row.where for row in rows if row in first["train"]]


def test_the_draw_is_pinned():
    # A change here moves every user's test rows: it must be meant, and said in the changelog.
    assert places(split(prompts(30), SHARES, 0)) | {"train": []} == {
        "train": [],
        "validation": ["f:0", "f:10", "f:14"],
        "test": ["f:20", "f:26", "f:6"],
    }


def test_labels_keep_their_shares_and_rare_ones_are_learned():
    splits = split(labelled(a=500, b=300, c=20, d=3, e=1), SHARES, 3)
    counts = {name: Counter(row.label for row in rows) for name, rows in splits.items()}
    assert counts["test"]["a"] == 50
    assert counts["validation"]["b"] == 30
    assert counts["test"]["c"] == 2
    assert counts["train"]["e"] == 1
    assert set(counts["test"]) | set(counts["validation"]) <= set(counts["train"])


def test_many_small_labels_still_add_up():
    splits = split(labelled(**{f"l{i}": 4 for i in range(77)}), SHARES, 0)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 248, "validation": 30, "test": 30}


def test_groups_duplicates_and_equal_inputs_stay_on_one_side():
    rows = prompts(300, group=lambda i: f"user {i // 7}")
    rows += [PromptRow(prompt=row.prompt.upper() + " ", completion="other", where=row.where + "b") for row in rows[:50]]
    rows += [PromptRow(prompt=row.prompt + "!", completion="third", where=row.where + "c") for row in rows[60:90]]
    splits = split(Pool(tuple(rows), similarity=0.85), SHARES, 5)
    side = {row.where: name for name, members in splits.items() for row in members}
    groups = {}
    for row in rows:
        groups.setdefault(row.group, set()).add(side[row.where])
    assert all(len(sides) == 1 for group, sides in groups.items() if group)
    assert all(side[f"f:{i}"] == side[f"f:{i}b"] for i in range(50))
    assert all(side[f"f:{i}"] == side[f"f:{i}c"] for i in range(60, 90))
    assert all(splits.values())


def test_groups_never_hide_a_label_from_train():
    rows = [LabelRow(text=text(i), label=f"l{i // 10}", group=f"g{i // 5}", where=str(i)) for i in range(100)]
    for seed in range(5):
        splits = split(rows, {"validation": 0.2, "test": 0.2}, seed)
        known = {row.label for row in splits["train"]}
        assert all(row.label in known for name in SHARES for row in splits[name])


def test_large_groups_still_give_every_split_something():
    splits = split(prompts(100, group=lambda i: str(i // 20)), SHARES, 0)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 60, "validation": 20, "test": 20}


def test_shares_of_nothing():
    rows = prompts(3)
    assert split(rows, {"validation": 0.0, "test": 0}, 0) == {"train": rows, "validation": [], "test": []}


def test_too_few_rows_and_too_few_sets():
    with pytest.raises(DataError, match="f: there are 9 usable rows; at least 10 are needed to split off validation and test"):
        split(prompts(9), SHARES, 0)
    with pytest.raises(DataError, match=r"the 40 rows form 2 sets that must stay together \(the largest has 20 rows\)"):
        split(prompts(40, group=lambda i: str(i % 2)), SHARES, 0)
