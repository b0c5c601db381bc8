"""Judged answers, rankings and ratings from a file to a report, and what a user may get wrong about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.configuration import build
from tunewright.core.errors import DataError
from tunewright.data.reading import read
from tunewright.data.rows import JudgedRow
from tunewright.data.stored import read_rows
from tunewright.evaluation.opening import open_model
from tunewright.finetune import Run, finetune
from tunewright.run.targets import objective_for

from .conftest import describe, write

WORDS = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"]


def prompts() -> list[str]:
    return [f"say {one} and {other}" for number, one in enumerate(WORDS) for other in WORDS[number + 1 :]]


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    rows = [
        {"prompt": text, "completion": text[4:9] if n % 2 else text[::-1][:6], "label": n % 2 == 1}
        for n, text in enumerate(prompts())
    ]
    return write(tmp_path / "judged.jsonl", rows)


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    rows = [{"prompt": text, "answers": [text[4:9], text[::-1][:6], "no"], "scores": [3, 1, 1]} for text in prompts()]
    return write(tmp_path / "rated.jsonl", rows)


@pytest.fixture
def described_by(tmp_path: Path, base: Callable[[str], str]) -> Callable[..., Run]:
    def run(rows: Path, **settings: Any) -> Run:
        given = settings.pop("data", {})
        found = describe(tmp_path, base("llama"), rows, evaluation={"written": 3}, **settings)
        data = {"train": str(rows), "validation_share": 0.2, "test_share": 0.2, **given}
        return build(Run, found.model_dump(mode="json", exclude_unset=True) | {"data": data})

    return run


def test_judged_answers_from_a_file_to_a_report(judged: Path, described_by: Callable[..., Run]) -> None:
    run = described_by(judged)
    folder, report = finetune(run)
    assert (report.subject.objective, report.subject.task) == ("kto", "preference")
    assert [measure.metric for measure in report.measures] == ["accuracy", "loss"]
    assert report.measures[1].base is not None
    assert report.measures[1].base.value == pytest.approx(0.5, abs=1e-4)
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert all(step["facts"]["reference_point"] >= 0 for step in steps)
    assert steps[-1]["loss"] < steps[0]["loss"]
    rows = read_rows(folder / "data" / "test.jsonl")
    lines = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    again = open_model(str(folder)).approach(run.evaluation.sampling).answer(rows, 0)
    assert [answer.text for answer in again] == [line["tuned"] for line in lines]
    assert [answer.loss for answer in again] == pytest.approx([line["tuned_loss"] for line in lines], rel=1e-4)


def test_each_split_has_its_share_of_both_judgements(judged: Path, described_by: Callable[..., Run]) -> None:
    dataset = read(described_by(judged).data, 3)
    for rows in dataset.splits().values():
        share = sum(row.label for row in rows if isinstance(row, JudgedRow)) / len(rows)
        assert 0.35 < share < 0.65


@pytest.mark.parametrize(("label", "known", "other"), [(True, "desirable", "undesirable"), (False, "undesirable", "desirable")])
def test_judgements_that_are_all_the_same_are_said(label: bool, known: str, other: str, tmp_path: Path) -> None:
    rows = [{"prompt": text, "completion": "yes", "label": label} for text in prompts()]
    path = write(tmp_path / "same.jsonl", rows)
    notes = read(build(Run, {"data": {"train": str(path)}}).data, 0).findings.notes
    assert f"every answer was found {known}: without {other} ones there is nothing that it is told apart from" in notes


def test_an_answer_judged_twice_is_a_conflict_and_two_answers_are_none(tmp_path: Path) -> None:
    rows = [
        {"prompt": text, "completion": f"answer {n}", "label": n % 2 == 0} for n, text in enumerate([*prompts(), *prompts()[:5]])
    ]
    rows.append({**rows[0], "label": not rows[0]["label"]})
    path = write(tmp_path / "twice.jsonl", rows)
    found = read(build(Run, {"data": {"train": str(path)}}).data, 0).findings.found["conflicting_labels"]
    assert found["found"] == 2
    assert "undesirable: answer 0" in found["examples"][0]["message"]


def test_an_empty_judged_answer_is_dropped(tmp_path: Path) -> None:
    rows = [{"prompt": text, "completion": "" if n == 2 else "yes", "label": n % 2 == 0} for n, text in enumerate(prompts())]
    dataset = read(build(Run, {"data": {"train": str(write(tmp_path / "empty.jsonl", rows))}}).data, 0)
    assert dataset.ledger.counts() == {"empty_answers": 1}


def test_rows_choose_their_objective_and_pairs_have_to_be_asked_for(rated: Path, described_by: Callable[..., Run]) -> None:
    run = described_by(rated)
    dataset = read(run.data, 0)
    assert type(objective_for(run, dataset)).__name__ == "Reward"
    with pytest.raises(DataError, match=r"shape 'rating' cannot serve this objective.*preference.*`data: \{pairs: all\}`"):
        objective_for(described_by(rated, objective="dpo"), dataset)
    paired = described_by(rated, objective="dpo", data={"pairs": "all"})
    assert type(objective_for(paired, read(paired.data, 0))).__name__ == "DPO"


def test_rankings_that_are_all_tied_are_refused_by_reward_and_say_why(rated: Path, described_by: Callable[..., Run]) -> None:
    with pytest.raises(DataError, match=r"no row is left to train on.*two of the answers have the same rating.*data.pairs"):
        finetune(described_by(rated, objective="reward"))


def test_pairs_of_ratings_from_a_file_to_a_report(rated: Path, described_by: Callable[..., Run]) -> None:
    run = described_by(rated, objective="kto", data={"pairs": {"take": "all", "least_difference": 2}}, training={"max_steps": 2})
    folder, report = finetune(run)
    assert [measure.metric for measure in report.measures] == ["accuracy", "loss"]
    assert report.data.shape.startswith("preference (rows of shape rating as pairs (all)")
    prompts = {split: {row.input_text() for row in read_rows(folder / "data" / f"{split}.jsonl")} for split in ("train", "test")}
    assert not prompts["train"] & prompts["test"]
