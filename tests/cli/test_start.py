"""The door: help is quick and loads nothing, JSON is one object, exit codes hold, no traceback reaches the user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunewright.cli import QUIET, main, verbs
from tunewright.cli.terminal import Outcome, show

PROBE = """
import sys, time
from tunewright.cli import main
code = main(sys.argv[1:])
heavy = sorted({"torch", "transformers", "datasets", "sklearn", "scipy", "pandas"} & set(sys.modules))
print(f"PROBE {code} {time.process_time():.3f} {heavy}", file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["tune", "--help"], ["generate", "--help"], ["show", "--help"], ["--version"], []])
def test_help_loads_nothing_heavy_and_is_quick(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True, timeout=60, check=True)
    _, code, seconds, heavy = done.stderr.strip().splitlines()[-1].split(" ", 3)
    assert (code, heavy) == ("0", "[]")
    assert float(seconds) < 1.0  # CPU; measured 0.15 to 0.3, the rest is for machines that are busy or old
    assert done.stdout.strip()


FIRST_STEP = """
import gc, os, sys
from tunewright.cli import main
from tunewright.core.runs import RunFolder

def log(folder, line):
    early = {"nltk", "rouge_score", "sacrebleu", "sklearn", "pandas", "datasets", "peft"}
    found = sorted(early & set(sys.modules))
    print("PROBE", found, gc.isenabled(), gc.get_freeze_count() > 100_000, file=sys.stderr, flush=True)
    os._exit(0)

RunFolder.log = log
main(sys.argv[1:])
"""


def test_what_the_first_step_does_not_need_is_not_loaded_before_it(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {number} and one?", "completion": f" {number + 1}."} for number in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["tune", "rows.jsonl", "--folder", "runs", "--training.max_steps", "2", "--threads", "1"]
    done = subprocess.run([sys.executable, "-c", FIRST_STEP, *words], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    # The collector works again, and leaves out what the libraries have brought.
    assert done.stderr.strip().splitlines()[-1] == "PROBE [] True True"


def test_importing_the_package_loads_nothing_heavy() -> None:
    check = "import tunewright, sys; assert not {'torch', 'transformers', 'pydantic', 'cyclopts'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def test_every_verb_stands_in_the_help_and_in_a_file_of_its_own(say: Callable) -> None:
    shown = say("--help").out
    for names in verbs.VERBS.values():
        for name in names:
            assert f" {name} " in shown
            assert (Path(verbs.__file__).parent / f"{name.replace('-', '_')}.py").is_file()


@pytest.mark.parametrize(
    "verb", ["tune", "quickstart", "estimate", "check", "resume", "merge", "evaluate", "generate", "chat", "list", "selftest"]
)
def test_every_verb_explains_itself(say: Callable, verb: str) -> None:
    found = say(verb, "--help")
    assert found.code == 0
    assert f"tunewright {verb}" in found.out


@pytest.mark.parametrize("name", verbs.SHOWN)
def test_everything_that_can_be_shown_explains_itself(say: Callable, name: str) -> None:
    assert f"tunewright show {name}" in say("show", name, "--help").out


def test_help_for_programs_lists_every_setting(say: Callable) -> None:
    names = {one["name"] for one in say("tune", "--help", "--json").data["settings"]}
    assert {
        "base",
        "method.rank",
        "training.learning_rate",
        "data.test",
        "evaluation.sampling.temperature",
        "objective.head",
    } <= names


def test_flags_for_all_verbs_may_stand_anywhere_but_not_behind_two_dashes(say: Callable) -> None:
    assert say("--json", "list", "methods").data == say("list", "--json", "methods").data
    found = say("generate", "nowhere-at-all", "--", "--json")
    assert found.code == 2
    assert not found.out


def test_a_crash_is_one_line_with_the_traceback_in_a_file(say: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tokens: list[str]) -> Outcome:
        raise ZeroDivisionError("a bug\nof ours")

    monkeypatch.setattr(verbs, "dispatch", broken)
    found = say("list", "--json")
    assert found.code == 1
    assert found.data["error"] == "ZeroDivisionError"
    kept = Path(str(found.data["where"]))
    assert "Traceback" in kept.read_text()
    kept.unlink()
    found = say("list")
    assert found.err.startswith("✗ ZeroDivisionError: a bug\n")
    Path(found.err.split("traceback is in ")[1].strip().rstrip(".")).unlink()


def test_debug_shows_the_traceback(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "run", "nothing", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_control_c_ends_without_a_traceback(say: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(tokens: list[str]) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, "dispatch", pressed)
    assert say("list") == (1, "", "✗ Stopped.\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    code = "import sys; from tunewright.cli import main; sys.exit(main(['tune', '--help']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_libraries_are_told_to_be_quiet_unless_the_user_said_otherwise(say: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    say("--version")
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"


def test_json_holds_no_nan_and_survives_broken_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show(Outcome({"value": float("nan"), "text": "\ud800", "path": Path("a"), "many": (1, 2.5, None)}), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"value": None, "text": "\ud800", "path": "a", "many": [1, 2.5, None]}
