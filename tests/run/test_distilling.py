"""Teachers and students as whole runs: a classifier by its probabilities, a writer by its distributions and by its answers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.errors import BaseModelError, Interrupted
from tunewright.data.rows import LabelRow
from tunewright.engine.settings import Sampling
from tunewright.evaluation.opening import open_model
from tunewright.finetune import Run, finetune, resume
from tunewright.run.answering import How, answer, softened

from .conftest import WORDS, describe, losses, spelling, weights, write

TEXTS = [f"{' '.join(random.Random(number).choices(WORDS, k=4))} {number}" for number in range(60)]
LONG = {"max_steps": 60, "batch_size": 10, "learning_rate": 1e-2, "validate_every": 30}


def probabilities(folder: Path, texts: list[str]) -> list[dict[str, float]]:
    opened = open_model(str(folder))
    found = opened.approach(Sampling()).probabilities([LabelRow(text=text, label="") for text in texts])
    return [dict(one) for one in found if one is not None]


def apart(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """The mean distance in probability of the first label."""
    (first, *_) = one[0]
    return sum(abs(a[first] - b[first]) for a, b in zip(one, other, strict=True)) / len(one)


def test_a_classifier_comes_near_its_teacher_without_a_label(described: Callable[..., Run], labelled: Path, tmp_path: Path) -> None:
    training = {**LONG, "max_steps": 40, "validate_every": 40, "monitor": "loss"}
    head = {"name": "classification", "head": "new", "head_dropout": 0.0}
    teacher = finetune(described("bert", labelled, name="teacher", objective=head, training=training)).folder
    data = write(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    said = probabilities(teacher, TEXTS)
    for temperature, name in ((1.0, "plain"), (2.0, "soft")):
        how = How(probabilities=True, drawing={"temperature": temperature})
        assert answer(str(data), str(teacher), tmp_path / f"{name}.jsonl", how).written == len(TEXTS)
    plain, soft = ([json.loads(line)["distribution"] for line in (tmp_path / f"{one}.jsonl").open()] for one in ("plain", "soft"))
    assert apart(said, plain) < 1e-5
    assert apart([softened(one, 2.0) for one in said], soft) < 1e-5
    student = described("bert", tmp_path / "soft.jsonl", name="student", objective={**head, "temperature": 2.0}, training=training)
    unseen = [f"{text} again" for text in TEXTS]
    wanted, found = probabilities(teacher, unseen), probabilities(finetune(student).folder, unseen)
    constant = [dict.fromkeys(one, 0.5) for one in wanted]
    assert apart(wanted, found) < 0.5 * apart(wanted, constant)


@pytest.fixture(scope="module")
def writer(base: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned to spell."""
    root = tmp_path_factory.mktemp("writer")
    return finetune(describe(root, base("llama"), spelling(root), method="full", training={**LONG, "batch_size": 8})).folder


def test_a_writer_comes_near_its_teacher(described: Callable[..., Run], pairs: Path, writer: Path) -> None:
    settings = {"objective": {"name": "distillation", "teacher": str(writer)}, "method": {"name": "lora", "rank": 16}}
    found = finetune(described("llama", pairs, training={**LONG, "batch_size": 8, "max_steps": 40}, **settings))
    steps = losses(found.folder)
    assert steps[-1][1] < 0.3 * steps[0][1]
    (loss,) = [one for one in found.report.measures if one.metric == "loss"]
    assert loss.base is not None
    assert loss.tuned.value < 0.5 * loss.base.value  # what is measured is the distance from the teacher too
    opened = open_model(str(found.folder))
    assert opened.objective.others() == (str(writer),)


def test_what_is_kept_of_a_teacher_survives_a_stop(described: Callable[..., Run], pairs: Path, writer: Path) -> None:
    objective = {"name": "distillation", "teacher": str(writer), "top_k": 4, "temperature": 2.0}
    straight = finetune(described("llama", pairs, name="straight", objective=objective))
    stops = iter([False, False, True])
    with pytest.raises(Interrupted):
        finetune(described("llama", pairs, name="stopped", objective=objective), stop_asked=lambda: next(stops, True))
    found = resume(straight.folder.parent / "stopped")
    assert losses(found.folder) == losses(straight.folder)
    assert {name: value.tolist() for name, value in weights(found.folder).items()} == {
        name: value.tolist() for name, value in weights(straight.folder).items()
    }


def test_a_writer_is_distilled_by_its_answers(described: Callable[..., Run], pairs: Path, writer: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    data = write(tmp_path / "prompts.jsonl", [{"prompt": row["prompt"]} for row in rows])
    found = answer(str(data), str(writer), tmp_path / "told.jsonl", How(drawing={"max_new_tokens": 8}, unfinished=True))
    assert found.written == len(rows)
    finetune(described("llama", tmp_path / "told.jsonl", name="student"))
    assert losses(tmp_path / "runs" / "student")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"teacher": "a/folder/nowhere"}, "the teacher 'a/folder/nowhere' cannot be had: there is no such folder"),
        ({"teacher": "embedded"}, "the vocabulary of 'embedded' is another one"),
    ],
)
def test_a_teacher_that_cannot_be_one_leaves_no_run_behind(
    described: Callable[..., Run], pairs: Path, tmp_path: Path, settings: dict[str, Any], part: str
) -> None:
    run = described("llama", pairs, objective={"name": "distillation", **settings})
    with pytest.raises(BaseModelError, match=part):
        finetune(run)
    assert not (tmp_path / "runs" / "run").exists()
