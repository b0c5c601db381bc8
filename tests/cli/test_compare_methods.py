"""The verb `compare-methods`: what it refuses before anything loads, and what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunewright.cli import main
from tunewright.compare import methods
from tunewright.compare.methods import Compared, Comparison, MethodComparison
from tunewright.methods.lora import LoRA


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "lroa"], "Did you mean 'lora'"),
        (["--methods", "[{name: lora, rnk: 4}]"], "Did you mean 'rank'"),
        (["--method", "lora"], "--methods"),
        (["--seed", "3"], "seeds of its own"),
        (["--repeats", "0"], "repeats"),
        (["--general", "nowhere.txt"], "no such file"),
    ],
)
def test_wrong_requests_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert main(["compare-methods", "rows.jsonl", "--folder", str(tmp_path), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_it_shows_the_table_and_says_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[MethodComparison] = []

    def stand_in(asked: MethodComparison, *_rest: object) -> Comparison:
        questions.append(asked)
        return Comparison(tmp_path, asked, [Compared("lora", LoRA(), {}, {0: "the loss is nan"})])

    monkeypatch.setattr(methods, "compare_methods", stand_in)
    flags = ["--methods", "lora, full", "--repeats", "2", "--training.epochs", "1"]
    assert main(["compare-methods", "some/rows.jsonl", "--folder", str(tmp_path), "--json", *flags]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["methods"][0]["failures"] == {"0": "the loss is nan"}
    assert Path(found["page"]).is_file()
    (asked,) = questions
    assert asked.repeats == 2
    assert asked.run.name == "rows-methods"
    assert asked.run.training.epochs == 1
    assert len(asked.methods) == 2


def test_help_names_its_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare-methods", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--repeats" in text
    assert "--methods" in text
