"""What a comparison asks for, how it goes on, and how runs are summed up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunewright.compare.methods import ASKED, MethodComparison, compare_methods, pooled, titles
from tunewright.compare.trial import MEASURED, Trial
from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError, Interrupted, RunFolderError
from tunewright.core.narrator import Narrator
from tunewright.core.scores import Score
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.testing.tiny import save_tiny


def trial(value: float = 0.5, **changed: object) -> Trial:
    facts = {
        "metric": "accuracy",
        "title": "Accuracy",
        "percent": True,
        "higher_is_better": True,
        "quality": Score(value, value - 0.1, value + 0.1, 40),
        "base": None,
        "parameters": 100,
        "share": 0.01,
        "peak_memory": 10**9,
        "seconds_per_thousand": 0.5,
        "bytes": 4000,
        "slow_down": 1.2,
        "forgetting": 0.1,
        "forgetting_kind": "loss",
    }
    return build(Trial, facts | changed)


def asked(folder: Path, base: str, **changed: object) -> MethodComparison:
    run = {"data": {"train": str(folder / "rows.jsonl")}, "base": base, "folder": str(folder), "name": "side-by-side"}
    return build(MethodComparison, {"run": run, "methods": ["lora", "full"], "repeats": 2, **changed})


def test_the_interval_counts_rows_and_runs() -> None:
    # Within: half-widths 0.1 are standard errors of 0.1 / 1.96. Between: values 0.4 and 0.6 have a variance of 0.02.
    found = pooled([Score(0.4, 0.3, 0.5, 10), Score(0.6, 0.5, 0.7, 10)])
    half = 1.959964 * (((0.1 / 1.959964) ** 2 + 0.02) / 2) ** 0.5
    assert found.value == pytest.approx(0.5)
    assert found.high - found.value == pytest.approx(half)
    assert found.count == 20
    alone = pooled([Score(0.4, 0.3, 0.5, 10)])
    assert alone == pytest.approx((0.4, 0.3, 0.5, 10))


def test_a_method_that_stands_twice_is_numbered() -> None:
    assert titles([LoRA(rank=4), Full(), LoRA(rank=8)]) == ["lora-1", "full", "lora-2"]


def test_misspelt_methods_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'lora'"):
        asked(tmp_path, "embedded", methods=["lroa"])
    with pytest.raises(ConfigurationError, match="methods"):
        asked(tmp_path, "embedded", methods=[])


class Said(Narrator):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_it_goes_on_with_what_stands_and_reports_what_failed(tmp_path: Path) -> None:
    """Three of four runs are done already; the fourth is really started, and refused, since its data are missing."""
    question, told = asked(tmp_path, str(save_tiny("llama", tmp_path / "llama"))), Said()
    place = tmp_path / "side-by-side"
    for name, value in (("lora-0", 0.5), ("lora-1", 0.7), ("full-0", 0.4)):
        (place / name).mkdir(parents=True)
        (place / name / MEASURED).write_text(json.dumps(trial(value).model_dump(mode="json")))
    (place / ASKED).write_text(json.dumps(question.model_dump(mode="json")))
    lora, full = compare_methods(question, told).entries
    assert lora.quality is not None
    assert lora.quality.value == pytest.approx(0.6)
    assert lora.typical(lambda one: one.parameters) == 100
    assert set(full.trials) == {0}
    assert "rows.jsonl" in full.failures[1]
    assert told.lines[-1].startswith("full, seed 1: failed (")
    assert not list(place.glob("*.request.json"))


def test_another_question_under_the_same_name_is_refused(tmp_path: Path) -> None:
    question = asked(tmp_path, "embedded")
    with pytest.raises(Interrupted, match="The same command"):
        compare_methods(question, stop_asked=lambda: True)
    with pytest.raises(RunFolderError, match="another comparison stands under this name"):
        compare_methods(asked(tmp_path, "embedded", repeats=3))
    (tmp_path / "full-folder").mkdir()
    (tmp_path / "full-folder" / "notes.txt").write_text("mine")
    other = question.model_copy(update={"run": question.run.model_copy(update={"name": "full-folder"})})
    with pytest.raises(RunFolderError, match="not empty"):
        compare_methods(other)


def test_it_needs_a_name(tmp_path: Path) -> None:
    question = asked(tmp_path, "embedded")
    with pytest.raises(ConfigurationError, match="needs a name"):
        compare_methods(question.model_copy(update={"run": question.run.model_copy(update={"name": None})}))


def test_an_unknown_cost_is_no_number() -> None:
    from tunewright.compare.methods import Compared

    entry = Compared("lora", LoRA(), {0: trial(peak_memory=None), 1: trial()}, {})
    assert entry.typical(lambda one: one.peak_memory) is None
    assert Compared("lora", LoRA(), {}, {0: "broke"}).quality is None
