"""`python`: a user's function behind limits. One process serves many answers; what it does wrong concerns one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tunewright.core.errors import ConfigurationError, GraderError
from tunewright.data.rows import PromptRow
from tunewright.graders import Grader, made
from tunewright.graders._grading import graded

SOURCE = """
import os, sys, time

calls = 0

def grade(sample, item):
    global calls
    calls += 1
    text = sample["output_text"]
    print("this is no answer")
    if text == "raise":
        raise ValueError("not\\nlike this")
    if text == "exit":
        sys.exit("bye")
    if text == "hang":
        time.sleep(60)
    if text == "die":
        os._exit(3)
    if text == "memory":
        return len(bytearray(1 << 32))
    if text == "disk":
        with open("file", "w") as file:
            file.write("x" * 100)
    if text == "text":
        return "0.5"
    if text == "nan":
        return float("nan")
    if text == "secret":
        return "TUNEWRIGHT_SECRET" in os.environ
    if text == "item":
        return len(item["prompt"]) + item["level"]
    return calls
"""


@pytest.fixture
def grader() -> Grader:
    return made({"name": "python", "source": SOURCE, "time_limit": 1})


def test_one_process_serves_many_calls(row: PromptRow, grader: Grader) -> None:
    assert graded(grader, [(row, "a"), (row, "b"), (row, "item")]).values == [1.0, 2.0, len(row.prompt) + 2.0]
    assert graded(grader, [(row, "a")]).values == [1.0]  # and ends with the context


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("raise", "raised ValueError: not like this"),
        ("exit", "raised SystemExit: bye"),
        ("memory", "raised MemoryError"),
        ("disk", "raised OSError"),
        ("text", r"gave '0\.5' \(str\), which is no number"),
        ("nan", "gave nan, which is no finite number"),
    ],
)
def test_a_failure_is_one_answers_affair(row: PromptRow, grader: Grader, answer: str, said: str) -> None:
    with pytest.raises(GraderError, match=rf"sums\.jsonl:3: the grader 'python' {said}"):
        graded(grader, [(row, answer)])
    found = graded(grader, [(row, "a"), (row, answer), (row, "b")], "zero")
    assert found.values == [1.0, 0.0, 3.0]


@pytest.mark.parametrize(("answer", "said"), [("hang", "took longer than 1 s"), ("die", r"ended its process \(exit code 3")])
def test_one_that_hangs_or_dies_is_started_anew(row: PromptRow, grader: Grader, answer: str, said: str) -> None:
    began = time.monotonic()
    found = graded(grader, [(row, answer), (row, "a"), (row, "b")], "zero")
    assert found.values == [0.0, 1.0, 2.0]
    assert len(found.failed) == 1
    assert said.replace("\\", "") in found.failed[0]
    assert time.monotonic() - began < 20


def test_the_environment_stays_outside(row: PromptRow, grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_SECRET", "key")
    assert graded(grader, [(row, "secret")]).values == [0.0]


def test_no_process_is_left_behind(row: PromptRow, grader: Grader) -> None:
    before = children()
    graded(grader, [(row, "hang"), (row, "a")], "zero")
    assert children() == before


def children() -> set[str]:
    """The processes that this one has started."""
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split())


def test_the_text_of_a_file_stays_with_the_settings(row: PromptRow, tmp_path: Path) -> None:
    file = tmp_path / "grade.py"
    file.write_text("def grade(sample, item):\n    return len(sample['output_text'])\n", encoding="utf-8")
    grader = made({"name": "python", "file": str(file)})
    kept = grader.model_dump(mode="json")
    file.unlink()
    again = made({"name": "python", **kept})
    again.check(row)
    assert graded(again, [(row, "four")]).values == [4.0]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def grade(sample, item)\n", "cannot be loaded.*SyntaxError"),
        ("import no_such_module\n", "cannot be loaded.*ModuleNotFoundError"),
        ("def score(sample, item):\n    return 1\n", "cannot be loaded.*there is no function 'grade' in it"),
    ],
)
def test_code_that_cannot_work_is_refused_before_anything_is_trained(row: PromptRow, source: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        made({"name": "python", "source": source}).check(row)


def test_no_code_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no code"):
        made("python")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        made({"name": "python", "file": str(tmp_path / "missing.py")})
