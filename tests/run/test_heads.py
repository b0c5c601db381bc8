"""New task heads from rows to a report: on encoders and decoders, by several methods, cached, saved and opened again."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.stored import read_rows
from tunewright.evaluation.opening import open_model
from tunewright.evaluation.report.schema import Report
from tunewright.finetune import Run, finetune
from tunewright.models.heads import Head
from tunewright.models.heads.multi_label import MultiLabelHead
from tunewright.models.heads.regression import RegressionHead

from .conftest import WORDS, losses, write

TAGS = {"ant": "B-X", "bee": "I-X"}


def texts() -> list[str]:
    draw = random.Random(3)
    return [f"{' '.join(draw.sample(WORDS, 4))} {number}" for number in range(36)]


def rows_of(task: str) -> list[dict[str, Any]]:
    if task == "multi_label":
        return [{"text": text, "labels": [word for word in ("ant", "bee", "cat") if word in text]} for text in texts()]
    if task == "regression":
        return [{"text": text, "score": 100 + 5.0 * text.count("a")} for text in texts()]
    if task == "token_classification":
        return [{"tokens": text.split(), "tags": [TAGS.get(word, "O") for word in text.split()]} for text in texts()]
    words = [text.split()[number % 4] for number, text in enumerate(texts())]
    return [
        {"question": f"{word}?", "context": text, "answers": {"text": [word], "answer_start": [text.index(word)]}}
        for word, text in zip(words, texts(), strict=True)
    ]


@pytest.fixture
def headed(tmp_path: Path, described: Callable[..., Run]) -> Callable[..., Run]:
    """A run of a task: `headed("regression", "bert", method="full")`; nothing of its metrics is set."""

    def make(task: str, family: str, **settings: Any) -> Run:
        return described(family, write(tmp_path / f"{task}.jsonl", rows_of(task)), evaluation={}, **settings)

    return make


@pytest.mark.parametrize(
    ("task", "family", "settings", "folder", "first"),
    [
        ("multi_label", "bert", {}, "adapter", "multi_label_micro_f1"),
        ("multi_label", "llama", {"method": "head"}, "model", "multi_label_micro_f1"),
        ("regression", "bert", {"method": "head", "cache": "at_once"}, "model", "mean_absolute_error"),
        ("regression", "gpt2", {}, "adapter", "mean_absolute_error"),
        ("token_classification", "bert", {"method": "full"}, "model", "entity_f1"),
        ("token_classification", "llama", {"cache": "at_once", "method": "head"}, "model", "entity_f1"),
        ("question_answering", "bert", {}, "adapter", "squad_exact_match"),
        ("question_answering", "llama", {"method": {"name": "selective", "last_blocks": 1}}, "model", "squad_exact_match"),
    ],
    ids=str,
)
def test_from_rows_to_report(task: str, family: str, settings: dict, folder: str, first: str, headed: Callable[..., Run]):
    run = headed(task, family, **settings)
    found = finetune(run)
    steps = losses(found.folder)
    assert len(steps) == 6
    assert first in steps[1][2]  # all rows are answered while training, since nothing has to be written
    report = Report.model_validate_json((found.folder / "report.json").read_text())
    assert (report.subject.task, report.measures[0].metric) == (task, first)
    assert report.measures[0].base is not None
    assert report.baseline_note.endswith(("them", "these tags", "numbers", "spans"))
    assert (report.rows.by_label is not None) == (task in ("multi_label", "token_classification"))
    assert (report.rows.scatter is not None) == (task == "regression")
    page = (found.folder / "report.html").read_text()
    assert ("Label by label" in page, "Predicted and true" in page) == (
        report.rows.by_label is not None,
        report.rows.scatter is not None,
    )
    assert isinstance(Head.load(found.folder / folder), Head)
    kept = [json.loads(line) for line in (found.folder / "predictions" / "test.jsonl").read_text().splitlines()]
    opened = open_model(str(found.folder))
    answers = opened.approach(run.evaluation.sampling).answer(read_rows(found.folder / "data" / "test.jsonl"), 0)
    assert [answer.text for answer in answers] == [line["tuned"] for line in kept]
    assert [answer.loss for answer in answers] == pytest.approx([line["tuned_loss"] for line in kept], abs=1e-4)
    assert all(line["details"] for line in kept)


@pytest.mark.parametrize(("task", "family"), [("token_classification", "bert"), ("question_answering", "llama")])
def test_cached_is_uncached(task: str, family: str, headed: Callable[..., Run]):
    """Heads on tokens read every hidden state, so the kept ones must be whole."""
    found = [losses(finetune(headed(task, family, name=cache, cache=cache, method="head")).folder) for cache in ("off", "at_once")]
    assert found[0] == found[1]


def test_what_is_chosen_on_validation_is_kept_with_the_head(headed: Callable[..., Run]):
    asked = {"name": "multi_label_classification", "threshold": "validation"}
    found = finetune(headed("multi_label", "bert", objective=asked))
    head = Head.load(found.folder / "adapter")
    assert isinstance(head, MultiLabelHead)
    assert len(set(head.thresholds)) == 1
    assert head.thresholds[0] != 0.5


def test_the_scale_is_in_the_run_file_and_with_the_head(headed: Callable[..., Run]):
    found = finetune(headed("regression", "bert"))
    head, opened = Head.load(found.folder / "adapter"), open_model(str(found.folder))
    rows = read_rows(found.folder / "data" / "train.jsonl")
    mean = sum(float(row.target_text()) for row in rows) / len(rows)
    assert isinstance(head, RegressionHead)
    assert head.means == pytest.approx((mean,))
    assert opened.settings["objective"]["means"] == pytest.approx([mean])
    assert opened.labels == ("number",)
