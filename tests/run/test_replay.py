"""Replay from files to the report: what was not to be lost is measured apart, and less of it is."""

from pathlib import Path

import pytest

from tunewright import examples
from tunewright.core.errors import ConfigurationError
from tunewright.core.runs import existing
from tunewright.data.replay import GENERAL, is_replayed
from tunewright.evaluation.report.schema import Measure
from tunewright.finetune import finetune
from tunewright.run.records import kept_dataset

from .conftest import describe, spelling, write


def general(report_measures: tuple[Measure, ...]) -> Measure:
    (found,) = [one for one in report_measures if one.role == "retention"]
    assert (found.metric, found.split) == ("loss", GENERAL)
    return found


def test_general_text_is_forgotten_less_where_it_is_replayed(tmp_path: Path):
    """The embedded base knows the town's stories; spelling made-up words makes it forget, and a tenth of stories keeps them."""
    stories = [line for line in examples.path("town.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    learned, tested = (
        write(tmp_path / f"{name}.jsonl", [{"text": one} for one in some])
        for name, some in (("learned", stories[:20]), ("tested", stories[50:]))
    )
    training = {"max_steps": 16, "batch_size": 8, "learning_rate": 5e-3, "validate_every": 16}
    rises, tasks = [], []
    for number, share in enumerate((0.0, 0.3)):
        replay = {"train": str(learned), "test": str(tested), "share": share}
        data = {"train": str(spelling(tmp_path)), "replay": replay, "validation_share": 0.1, "test_share": 0.2}
        run = describe(tmp_path, "embedded", tmp_path, name=f"run{number}", training=training, data=data, evaluation={"written": 0})
        report = finetune(run).report
        kept = general(report.measures)
        assert kept.difference is not None
        assert kept.tuned.count == len(stories[50:])
        rises.append(kept.difference.value)
        tasks.append(next(one for one in report.measures if one.metric == "loss" and one.role == "task"))
    assert rises[0] > 0.1
    assert rises[1] < 0.5 * rises[0]
    assert all(task.base is not None and task.tuned.value < 0.7 * task.base.value for task in tasks)


def test_the_verdict_is_about_the_task_and_answers_are_as_long_as_its_own(base, pairs: Path, tmp_path: Path):
    texts = write(tmp_path / "texts.jsonl", [{"text": f"some text about {number} " * 20} for number in range(20)])
    data = {"train": str(pairs), "replay": str(texts), "validation_share": 0.2, "test_share": 0.2, "near_duplicates": 0}
    run = describe(tmp_path, base("llama"), pairs, data=data, training={"max_steps": 2}, evaluation={"written": 9})
    result = finetune(run)
    assert result.report.measures[0].role == "task"
    kept = kept_dataset(existing(result.folder))
    assert result.report.measures[0].tuned.count == sum(not is_replayed(row) for row in kept.test) == 4
    assert general(result.report.measures).tuned.count == 4
    settings = existing(result.folder).settings.read_text(encoding="utf-8")
    assert "max_new_tokens: 14" in settings  # the longest spelling and its end, and not the texts
    assert sum(map(is_replayed, kept.train)) == 4


def test_an_objective_that_learns_no_text_says_so(base, labelled: Path, tmp_path: Path):
    texts = write(tmp_path / "texts.jsonl", [{"text": f"some text about {number}"} for number in range(20)])
    run = describe(tmp_path, base("bert"), labelled, data={"train": str(labelled), "replay": str(texts)})
    with pytest.raises(ConfigurationError, match="rows of shape 'text' are replayed, and 'classification' cannot learn them"):
        finetune(run)
