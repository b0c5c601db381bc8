"""Rankings and ratings as pairs: which pairs, what they carry, on which side of a split they stand, and what cannot be paired."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.pairing import Pairing, pairs_of
from tunewright.data.reading import DataConfig, read, read_like
from tunewright.data.rows import Message, PreferenceRow, RankingRow, RatingRow

ASKED = (Message(role="user", content="Q"),)
RANKING = RankingRow(messages=ASKED, answers=("a", "b", "c"), where="f:3", metadata={"id": 7})
RATING = RatingRow(messages=ASKED, answers=("a", "b", "c", "d"), scores=(5.0, 4.5, 4.5, 1.0), where="f:3", tools=({"name": "t"},))

BETTER = {("w", "y"), ("w", "x"), ("w", "z"), ("y", "x"), ("y", "z"), ("x", "z")}


def made(row: RankingRow, **settings: Any) -> list[tuple[str, str, float | None]]:
    return [(pair.chosen, pair.rejected, pair.metadata.get("margin")) for pair in pairs_of(row, Pairing(**settings))]


@pytest.mark.parametrize(
    ("take", "pairs"),
    [("all", ["ab", "ac", "bc"]), ("best_worst", ["ac"]), ("neighbours", ["ab", "bc"])],
)
def test_which_pairs_a_ranking_gives(take: str, pairs: list[str]) -> None:
    assert made(RANKING, take=take) == [(better, worse, None) for better, worse in pairs]


@pytest.mark.parametrize(
    ("settings", "pairs"),
    [
        ({}, [("a", "b", 0.5), ("a", "c", 0.5), ("a", "d", 4.0), ("b", "d", 3.5), ("c", "d", 3.5)]),
        ({"least_difference": 1}, [("a", "d", 4.0), ("b", "d", 3.5), ("c", "d", 3.5)]),
        ({"least_difference": 0.5, "take": "neighbours"}, [("a", "b", 0.5), ("c", "d", 3.5)]),
        ({"take": "best_worst"}, [("a", "d", 4.0)]),
        ({"take": "best_worst", "least_difference": 4.5}, []),
    ],
)
def test_equal_ratings_are_not_compared_and_differences_are_kept(settings: dict[str, Any], pairs: list[Any]) -> None:
    assert made(RATING, **settings) == pairs


def test_a_pair_carries_what_its_ranking_had() -> None:
    first, *_ = pairs_of(RANKING, Pairing())
    assert (first.messages, first.where, first.metadata, first.group) == (ASKED, "f:3", {"id": 7}, RANKING.key())
    assert next(pairs_of(RATING, Pairing())).tools == ({"name": "t"},)
    grouped = RankingRow(messages=ASKED, answers=("a", "b"), group="an author")
    assert [pair.group for pair in pairs_of(grouped, Pairing())] == ["an author"]


@pytest.fixture
def rated(tmp_path: Path) -> Callable[..., Path]:
    """40 prompts with four rated answers each; `spread` is between neighbours."""

    def written(spread: float = 1.0, ranked: bool = False) -> Path:
        rows = []
        for number in range(40):
            answers = [f"answer {letter} to {number}" for letter in "wxyz"]
            said = {} if ranked else {"scores": [spread * place for place in (3, 1, 2, 0)]}
            rows.append({"prompt": f"what is thing number {number * 7919}?", "answers": answers, **said})
        path = tmp_path / f"rated{ranked}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return written


def test_no_prompt_stands_on_two_sides(rated: Callable[..., Path]) -> None:
    dataset = read(build(DataConfig, {"train": str(rated()), "pairs": "all", "test_share": 0.25}), seed=1)
    sides = {name: {row.input_text() for row in rows} for name, rows in dataset.splits().items()}
    assert [len(rows) for rows in dataset.splits().values()] == [26 * 6, 4 * 6, 10 * 6]
    assert not sides["train"] & sides["test"]
    assert not sides["train"] & sides["validation"]
    assert all(isinstance(row, PreferenceRow) and row.metadata["margin"] > 0 for row in dataset.train)
    assert dataset.shape == dataset.findings.shape == "preference"
    assert dataset.findings.kept == {"train": 156, "validation": 24, "test": 60}
    assert "40 rows of shape rating gave 156 train, 24 validation, 60 test pairs" in dataset.findings.notes
    assert {(row.chosen[7], row.rejected[7]) for row in dataset.train if isinstance(row, PreferenceRow)} == BETTER


def test_the_order_of_the_file_does_not_matter(rated: Callable[..., Path], tmp_path: Path) -> None:
    path = rated()
    lines = path.read_text().splitlines()
    (tmp_path / "turned.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    one, other = (
        read(build(DataConfig, {"train": str(place), "pairs": "all"}), seed=1) for place in (path, tmp_path / "turned.jsonl")
    )
    assert {row.key() for row in one.test} == {row.key() for row in other.test}


def test_a_mixture_is_paired_as_a_whole(rated: Callable[..., Path]) -> None:
    parts = [{"name": "one", "train": str(rated())}, {"name": "two", "train": str(rated(ranked=True)), "shape": "ranking"}]
    with pytest.raises(DataError, match=r"rows of shape 'rating'.*cannot be learned together"):
        read(build(DataConfig, {"mixture": parts, "pairs": "all"}), seed=1)
    dataset = read(build(DataConfig, {"mixture": parts[:1], "pairs": "best_worst"}), seed=1)
    assert {row.metadata["task"] for row in dataset.train} == {"one"}
    assert all(isinstance(row, PreferenceRow) for row in dataset.train)


def test_rankings_without_a_pair_are_counted(rated: Callable[..., Path], tmp_path: Path) -> None:
    path = rated()
    narrow = {"prompt": "a narrow one?", "answers": ["left side", "right side"], "scores": [1, 1.5]}
    path.write_text(path.read_text() + json.dumps(narrow) + "\n")
    settings = {"train": str(path), "pairs": {"take": "best_worst", "least_difference": 2}}
    dataset = read(build(DataConfig, settings), seed=1)
    assert dataset.ledger.counts() == {"no_pair": 1}
    assert next(iter(dataset.ledger)).message == "no two of its answers differ by 2 or more"
    assert sum(map(len, dataset.splits().values())) == 40


@pytest.mark.parametrize(
    ("pairs", "ranked", "kind", "message"),
    [
        ({"least_difference": 9}, False, DataError, "no two answers differ by the least difference"),
        ({"least_difference": 1}, True, ConfigurationError, "data.pairs.least_difference: a ranking has no numbers that could"),
        ("best", False, ConfigurationError, "best_worst"),
        ({"took": "all"}, False, ConfigurationError, "'took'.*take"),
    ],
)
def test_what_cannot_be_asked_for(
    pairs: Any, ranked: bool, kind: type[Exception], message: str, rated: Callable[..., Path]
) -> None:
    with pytest.raises(kind, match=message):
        read(build(DataConfig, {"train": str(rated(ranked=ranked)), "pairs": pairs}), seed=1)


def test_rows_without_several_answers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"say {number * 7919}", "completion": "x"}) + "\n" for number in range(30)))
    with pytest.raises(DataError, match=r"shape 'prompt_completion' hold no answers to make pairs of.*ranking, rating"):
        read(build(DataConfig, {"train": str(path), "pairs": "all"}), seed=1)


def test_a_file_that_is_measured_is_paired_as_the_runs_own(rated: Callable[..., Path], tmp_path: Path) -> None:
    settings = {"data": {"pairs": {"take": "neighbours", "least_difference": 0.0}}}
    found = read_like(rated(), settings)
    assert (len(found.rows), found.findings.shape) == (40 * 3, "preference")
    pair = tmp_path / "pair.jsonl"
    pair.write_text(json.dumps({"prompt": "Q", "chosen": "a", "rejected": "b"}) + "\n")
    assert [type(row) for row in read_like(pair, settings).rows] == [PreferenceRow]
