"""The account of a run: findings in words, and every number the one that the run's own files hold."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.scores import Score
from tunewright.data.ledger import Findings
from tunewright.data.stored import read_rows
from tunewright.evaluation.report.schema import Measure, Report
from tunewright.finetune import Result, finetune
from tunewright.run.account import data_of, telling_first

from .conftest import describe, spelling, write


def findings(**given: Any) -> Findings:
    return Findings("text", "every row has `text`", {"train": 9, "test": 3}, {"train": 7, "validation": 1, "test": 2}, **given)


def found(count: int, dropped: int = 0, examples: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {"found": count, "dropped": dropped, "examples": list(examples)}


def test_counts_are_added_up_over_splits():
    data = data_of("a.jsonl", findings(notes=["said as it is"]))
    assert (data.source, data.shape, data.read, data.kept) == ("a.jsonl", "text (every row has `text`)", 12, 10)
    assert list(data.splits.items()) == [("train", 7), ("validation", 1), ("test", 2)]
    assert data.notes == ("said as it is",)


@pytest.mark.parametrize(("words", "first"), [(3, "exact_match"), (25, "exact_match"), (26, "loss")])
def test_the_verdict_is_about_the_loss_where_answers_are_paragraphs(words: int, first: str):
    one = Score(0.5, 0.4, 0.6, 9)
    found = [Measure(metric=name, title=name, tuned=one) for name in ("exact_match", "rouge1", "loss")]
    ordered = telling_first(found, ["word", "word " * words, "word " * 99])
    assert ordered[0].metric == first
    assert {measure.metric for measure in ordered} == {"exact_match", "rouge1", "loss"}


@pytest.mark.parametrize(
    ("name", "place"), [("exact_duplicates", "duplicates"), ("near_duplicates", "duplicates"), ("leakage", "leakage")]
)
def test_each_finding_stands_in_its_place(name: str, place: str):
    data = data_of("", findings(found={name: found(3, 2, ("a.jsonl:1",))}))
    (finding,) = getattr(data, place)
    assert (finding.name, finding.count, finding.action) == (name.replace("_", " "), 3, "2 dropped")
    assert finding.examples == ("a.jsonl:1",)
    assert {"duplicates", "leakage"} - {place} == {other for other in ("duplicates", "leakage") if not getattr(data, other)}
    assert data.notes == ()


def test_what_was_kept_is_said_to_be_kept():
    data = data_of("", findings(found={"near_duplicates": found(3), "leakage": found(2)}))
    assert data.duplicates[0].action == "kept, on one side of each split"
    assert data.leakage[0].action == "kept"


def test_other_findings_become_notes_before_the_rest():
    data = data_of("", findings(found={"conflicting_labels": found(4), "empty_answers": found(2, 2)}, notes=["last"]))
    assert data.notes == ("conflicting labels: 4 (kept)", "empty answers: 2 (2 dropped)", "last")
    assert data.duplicates == data.leakage == ()


def test_a_filter_that_found_nothing_is_not_mentioned():
    data = data_of("", findings(found={"exact_duplicates": found(0), "conflicting_labels": found(0)}))
    assert (data.duplicates, data.notes) == ((), ())


def test_dropped_rows_show_examples_as_one_line():
    example = {"where": "a.jsonl:4", "message": "the line is cut", "split": "train"}
    (finding,) = data_of("", findings(dropped={"bad_json": {"count": 8, "examples": [example, "plain"]}})).dropped
    assert (finding.name, finding.count, finding.action) == ("bad json", 8, "dropped")
    assert finding.examples == ("a.jsonl:4; the line is cut; train", "plain")


def test_lengths_are_those_of_inputs():
    sides = {"input": {"p50": 5, "p95": 8, "max": 9}, "answer": {"p50": 1, "p95": 1, "max": 1}}
    lengths = data_of("", findings(lengths={"train": sides})).lengths["train"]
    assert (lengths.median, lengths.percentile_95, lengths.longest, lengths.unit) == (5, 8, 9, "characters of input")


# ---- a finished run --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(base: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Result:
    root = tmp_path_factory.mktemp("told")
    return finetune(describe(root, base("llama"), spelling(root)))


@pytest.fixture(scope="module")
def labelled_run(base: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Result:
    root = tmp_path_factory.mktemp("labelled")
    rows = [{"text": f"{'good' if number % 3 else 'bad'} {number}", "label": "yn"[number % 3 == 0]} for number in range(30)]
    rows += [rows[0], {"text": "no label"}]
    return finetune(describe(root, base("bert"), write(root / "labels.jsonl", rows)))


def steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def test_every_section_is_filled(told: Result):
    report = told.report
    for section in Report.model_fields:
        if section not in ("baseline_note", "confusion", "warnings"):
            assert getattr(report, section), section
    assert report == Report.model_validate_json((told.folder / "report.json").read_text())
    assert report.verdict.headline
    assert (report.subject.method, report.subject.objective, report.subject.task) == ("lora", "sft", "generation")
    assert report.confusion is None
    assert (report.baseline_note, report.warnings) == ("", ())


def test_tokens_and_time_are_those_of_the_steps(told: Result):
    lines, cost = steps(told.folder), told.report.cost
    assert cost.tokens == sum(line["tokens"] for line in lines) > 0
    assert cost.tokens_per_second == pytest.approx(cost.tokens / sum(line["seconds"] for line in lines))
    assert cost.stages["Tune"] > sum(line["seconds"] for line in lines)
    assert {"Load the base", "Test once"} <= set(cost.stages)
    assert 0 < cost.trainable_parameters < cost.total_parameters


def test_curves_are_those_of_the_steps_and_begin_with_the_base(told: Result):
    lines, curves = steps(told.folder), told.report.curves
    numbers = tuple(line["number"] for line in lines)
    for series, key in (
        *((curves.train_loss, "loss"), (curves.learning_rate, "learning_rate")),
        (curves.gradient_norm, "gradient_norm"),
    ):
        assert (series.steps, series.values) == (numbers, tuple(line[key] for line in lines))
    manifest = json.loads((told.folder / "manifest.json").read_text())
    (loss,) = curves.validation
    assert loss.steps == (0, 2, 4, 6)
    assert loss.values[0] == manifest["base_validation"]["loss"]
    assert loss.values[1:] == tuple(line["validation"]["loss"] for line in lines if line["validation"])


def test_the_kept_step_is_the_best_on_validation(told: Result):
    (loss,) = told.report.curves.validation
    trained = dict(zip(loss.steps[1:], loss.values[1:], strict=True))
    assert told.report.curves.kept_step == min(trained, key=lambda step: trained[step])


def test_targets_are_counted_over_the_training_rows(told: Result):
    rows = read_rows(told.folder / "data" / "train.jsonl")
    targets = told.report.targets
    assert (targets.rows, targets.rows_without_targets, targets.truncated_rows) == (len(rows), 0, 0)
    assert targets.trained_tokens == sum(len(row.target_text()) + 1 for row in rows)
    assert targets.trained_tokens < targets.tokens
    assert targets.packing_efficiency is not None
    assert 0 < targets.packing_efficiency <= 1


def test_settings_give_a_reason_for_what_was_chosen(told: Result):
    settings = told.report.settings
    assert set(settings.reasons) == {"method.rank"}
    assert settings.values["method"]["rank"] == 8
    assert settings.reasons == json.loads((told.folder / "manifest.json").read_text())["reasons"]


def test_hashes_are_those_of_the_manifest(told: Result):
    hashes = json.loads((told.folder / "manifest.json").read_text())["hashes"]
    assert told.report.environment.hashes == hashes
    assert {"base", "code", "data/train", "data/validation", "data/test"} == set(hashes)


def test_measures_are_those_of_the_predictions(told: Result):
    lines = [json.loads(line) for line in (told.folder / "predictions" / "test.jsonl").read_text().splitlines()]
    match, loss = told.report.measures
    written = [line for line in lines if line["tuned"] is not None]
    assert match.tuned.count == len(written) == 3
    assert match.tuned.value == sum(line["tuned"] == line["reference"] for line in written) / 3
    tokens = [len(line["reference"]) + 1 for line in lines]
    for score, key in ((loss.tuned, "tuned_loss"), (loss.base, "base_loss")):
        assert score is not None
        mean = sum(line[key] * count for line, count in zip(lines, tokens, strict=True)) / sum(tokens)
        assert score.value == pytest.approx(mean)
        assert score.count == len(lines)


def test_labels_have_a_table_that_agrees_with_the_predictions(labelled_run: Result):
    lines = [json.loads(line) for line in (labelled_run.folder / "predictions" / "test.jsonl").read_text().splitlines()]
    table = labelled_run.report.confusion
    assert table is not None
    pairs = Counter((line["reference"], line["tuned"]) for line in lines)
    assert table.tuned == tuple(tuple(pairs[wanted, given] for given in table.labels) for wanted in table.labels)
    majority = Counter(row.target_text() for row in read_rows(labelled_run.folder / "data" / "train.jsonl")).most_common(1)[0][0]
    assert {line["base"] for line in lines} == {majority}
    assert "most frequent label" in labelled_run.report.baseline_note


def test_what_became_of_the_rows_adds_up(labelled_run: Result):
    data = labelled_run.report.data
    ledger = (labelled_run.folder / "data" / "ledger.jsonl").read_text().splitlines()
    assert data.read == 32
    assert data.kept == data.read - len(ledger)
    assert data.kept == sum(data.splits.values()) == sum(sum(counts.values()) for counts in data.labels.values())
    assert sum(finding.count for finding in data.dropped) == len(ledger) >= 1
