"""A mixture from files to the report: every task measured alone, what is held out never trained on."""

import json
from pathlib import Path

import pytest

from tunewright.core.configuration import build, read_file
from tunewright.core.runs import existing
from tunewright.data.stored import read_rows
from tunewright.evaluation.measuring import by_task
from tunewright.evaluation.report.html import render_html
from tunewright.evaluation.report.schema import Measure
from tunewright.finetune import Result, Run, finetune
from tunewright.run.records import kept_dataset

from .conftest import WORDS, describe, write


def texts(count: int, begins: str) -> list[str]:
    return [f"{begins} {WORDS[i % 8]} {WORDS[i // 8 % 8]} {WORDS[i // 3 % 8]} {i * i}" for i in range(count)]


@pytest.fixture(scope="module")
def mixed(base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Result]:
    """A run of four steps on two tasks, with two more held out."""
    root = tmp_path_factory.mktemp("mixed")
    files = {
        "mood": [{"text": text, "label": ("pos", "neg")[i % 2]} for i, text in enumerate(texts(30, "mood"))],
        "sums": [{"question": text, "answer": str(i)} for i, text in enumerate(texts(20, "sums"))],
        "kind": [{"text": text, "label": ("sea", "land")[i % 2]} for i, text in enumerate(texts(12, "kind"))],
        "twin": [
            {"text1": text, "text2": text[::-1], "label": ("same", "different")[i % 2]} for i, text in enumerate(texts(10, "twin"))
        ],
    }
    templates = {"mood": {"name": "sentiment", "shots": 1}, "sums": "arithmetic", "kind": "topic", "twin": "paraphrase"}
    parts = [
        {
            "name": name,
            "train": str(write(root / f"{name}.jsonl", rows)),
            "template": templates[name],
            "held_out": name in ("kind", "twin"),
        }
        for name, rows in files.items()
    ]
    data = {"mixture": {"parts": parts, "temperature": 2}, "validation_share": 0.2, "test_share": 0.2, "near_duplicates": 0}
    run = describe(root, base("llama"), root / "unused", training={"max_steps": 4}, data=data)
    run = build(Run, {**run.model_dump(mode="json"), "evaluation": {"written": 100, "sampling": {"max_new_tokens": 3}}})
    return run, finetune(run)


def test_every_task_is_measured_alone_with_intervals(mixed: tuple[Run, Result]) -> None:
    report = mixed[1].report
    parts = [one for one in report.measures if one.role == "part"]
    assert {one.split: one.tuned.count for one in parts if one.metric == "exact_match"} == {
        "mood": 6,
        "sums": 4,
        "held-out kind": 12,
        "held-out twin": 10,
        "held-out all tasks": 22,
    }
    whole = [one for one in report.measures if one.role == "task"]
    assert next(one for one in whole if one.metric == "exact_match").tuned.count == 10
    lacking = [one for one in parts if one.base is None or one.difference is None or one.tuned.low > one.tuned.value + 1e-9]
    assert lacking == []
    loss = {one.split: one for one in parts if one.metric == "loss"}
    assert set(loss) == {"mood", "sums", "held-out kind", "held-out twin", "held-out all tasks"}
    assert loss["mood"].tuned.value < loss["mood"].base.value
    assert report.data.source == "mixture of mood, sums, kind, twin"


def test_the_report_shows_the_tasks_apart(mixed: tuple[Run, Result]) -> None:
    page = render_html(mixed[1].report)
    assert "Task by task" in page
    assert "12 held-out kind rows" in page
    assert "held-out kind" in (mixed[1].folder / "README.md").read_text()


def test_what_is_held_out_is_in_no_row_that_was_kept_for_training(mixed: tuple[Run, Result]) -> None:
    folder = mixed[1].folder / "data"
    for split in ("train", "validation"):
        assert {row.metadata["task"] for row in read_rows(folder / f"{split}.jsonl")} == {"mood", "sums"}
    assert [row.metadata["task"] for row in read_rows(folder / "test.jsonl")[:4]] == ["mood", "sums", "kind", "twin"]


def test_a_run_that_goes_on_knows_its_parts(mixed: tuple[Run, Result]) -> None:
    run, result = mixed
    kept = kept_dataset(existing(result.folder))
    assert kept.findings.parts["kind"]["held_out"] is True
    assert kept.findings.parts["mood"]["share"] + kept.findings.parts["sums"]["share"] == pytest.approx(1)
    again = build(Run, read_file(result.folder / "run.yaml"))
    assert again.data == run.data
    assert json.loads((result.folder / "report.json").read_text())["measures"][-1]["role"] == "part"


def test_measures_of_a_part_keep_their_numbers() -> None:
    one = Measure(metric="loss", title="Loss", tuned=(1.0, 0.5, 1.5, 4), percent=False)
    assert [found.split for found in by_task([one], "a", held_out=True)] == ["held-out a"]
    assert by_task([one], "a", held_out=False)[0].tuned == one.tuned


def test_one_file_is_measured_through_the_template_of_its_run(base, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from tunewright.cli import main

    rows = [{"text": text, "label": ("pos", "neg")[i % 2]} for i, text in enumerate(texts(24, "mood"))]
    file = write(tmp_path / "mood.jsonl", rows)
    data = {"train": str(file), "template": "sentiment", "near_duplicates": 0}
    run = describe(tmp_path, base("llama"), file, training={"max_steps": 1}, data=data)
    folder = finetune(run).folder
    asked = tmp_path / "asked.jsonl"
    assert main(["evaluate", str(folder), str(file), "--written", "2", "--predictions", str(asked), "--json"]) == 0
    first = json.loads(asked.read_text().splitlines()[0])
    assert rows[0]["text"] in first["prompt"] != rows[0]["text"]
    assert json.loads(capsys.readouterr().out)["rows"] == 24
