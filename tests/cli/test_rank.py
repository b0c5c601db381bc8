"""`rank` in a terminal and through a pipe: what is shown, what a key does, what is kept however it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunewright.cli.rank_terminal import visible

ROWS = [{"prompt": f"prompt {number}", "responses": [f"good {number}", f"bad {number}"]} for number in range(12)]
CALL = ("rank", "answers.jsonl", "-o", "ranked.jsonl")
PIPE = "import sys; from tunewright.cli import main; sys.exit(main())"


@pytest.fixture
def answers(desk: Path) -> Path:
    path = desk / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def typed(answers: Path, say: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Call `rank` with these lines on standard input."""

    def call(text: str, *words: str) -> object:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return say(*CALL, *words)

    return call


def kept(name: str = "ranked.jsonl") -> list[dict[str, str]]:
    path = Path(name)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_sitting_from_question_to_command(typed: Callable) -> None:
    found = typed("a\nright\nt\nn\ns\n=\n")
    assert found.code == 0
    assert "question 1 of 12" in found.err
    assert "a ← A is better" in found.err
    # Who gave an answer is not to be seen while one is judged.
    assert "answer 1" not in found.err
    for part in ("6: 2 decided, 2 tied, 1 neither good, 1 skipped; 6 more wait", "answer 1 preferred", "2 pairs in ranked.jsonl"):
        assert part in found.out
    assert found.out.rstrip().endswith("next  tunewright tune ranked.jsonl --objective dpo")
    assert [line["answer"] for line in kept("ranked.log.jsonl")] == ["left", "right", "tie", "both_bad", "skip", "tie"]
    assert [line["left"] for line in kept()] == ["chosen", "rejected"]


def test_the_next_sitting_goes_on_and_can_take_back(typed: Callable) -> None:
    typed("a\nb\nq\na\n")
    assert len(kept()) == 2
    found = typed("u\nu\nu\nB\nq\n")
    assert "question 3 of 12" in found.err
    assert "There is nothing to take back." in found.err
    assert len(kept()) == 1
    data = typed("q\n", "--json").data
    assert (data["answered"], data["remaining"], data["pairs"], data["next"]) == (
        1,
        11,
        1,
        "tunewright tune ranked.jsonl --objective dpo",
    )


def test_an_unknown_key_answers_nothing(typed: Callable) -> None:
    found = typed("x\n\nbetter\n")
    assert found.err.count("neither is good") == 4
    assert "nothing" not in found.out
    assert not Path("ranked.log.jsonl").exists()
    assert "next" not in found.out


def test_questions_asked_twice_show_agreement(typed: Callable) -> None:
    found = typed("a\n" * 24, "--repeat-share", "1")
    # Whoever always takes the left one contradicts himself each time, and has a habit.
    assert "0.0 % [0.0, 24.2] of 12 asked twice" in found.out
    assert "100.0 % [75.8, 100.0] of 12; sides are drawn, so this is a habit" in found.out
    assert len(kept()) == 12


def test_the_seed_draws_the_sides(typed: Callable, tmp_path: Path) -> None:
    seen = {typed("q\n", "--seed", str(seed)).err for seed in (1, 1, 2, 3)}
    assert len(seen) == 3


def test_pairs_are_tuned_on(typed: Callable, say: Callable) -> None:
    typed("a\n" * 12)
    found = say("tune", "ranked.jsonl", "--objective", "dpo", "--base", "llama", "--threads", "1", "--training.max_steps", "2")
    assert found.code == 0, found.err


WRONG = {
    "rank answers.jsonl": ("output", "is missing"),
    "rank nowhere.jsonl -o ranked.jsonl": ("nowhere.jsonl: there is no such file",),
    "rank answers.jsonl -o ranked.csv": ("ranked.csv: pairs are written as JSON Lines",),
    "rank answers.jsonl -o answers.jsonl": ("answers.jsonl:1: holds rows that are no pairs",),
    "rank answers.jsonl -o ranked.jsonl --repeat-share 2": ("--repeat-share: should be from 0 to 1, got 2.0",),
    "rank answers.jsonl -o ranked.jsonl --port 99999": ("--port: should be from 0 to 65535, got 99999",),
    "rank answers.jsonl -o ranked.jsonl --answers good": ("the column 'good' is missing (it has prompt, responses)",),
    "rank answers.jsonl pairs.jsonl -o out.jsonl": ("no column holds answers",),
    "rank llama -o ranked.jsonl": ("llama: is not a run folder",),
    "rank answers.jsonl -o ranked.jsonl --browsr": ("Did you mean '--browser'?",),
}


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize("words", WRONG)
def test_wrong_requests_are_named(say: Callable, words: str) -> None:
    found = say(*words.split())
    assert found.code == 2
    for part in WRONG[words]:
        assert part in found.err
    assert not list(Path().glob("*.log.jsonl"))


def test_what_would_steer_a_terminal_is_not_sent_to_it() -> None:
    assert visible("a\x1b[2J\x07b\r\nc\td\x9b1m") == "a�[2J�b\nc\td�1m"


class Terminal:
    """`rank` in a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self.handle, other = pty.openpty()
        environment = {**os.environ, "COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PIPE, *CALL],
            cwd=folder,
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment,
            # Who runs the tests in the background of a shell has interrupts ignored, and a child inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(other)
        self.seen = ""

    def expect(self, text: str) -> None:
        """Read until `text` is on the screen, from where the last one was."""
        end = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} is not in {self.seen!r}"
            if select.select([self.handle], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.handle, 65536).decode("utf-8", "replace")
                except OSError:  # the other end is closed
                    assert text in self.seen, self.seen
        self.seen = self.seen.partition(text)[2]

    def press(self, keys: bytes) -> None:
        """Send keys."""
        os.write(self.handle, keys)


@pytest.fixture
def terminal(answers: Path) -> Iterator[Terminal]:
    made = Terminal(answers.parent)
    yield made
    made.process.kill()
    made.process.wait()
    os.close(made.handle)


def test_keys_of_a_terminal_answer_at_once_and_an_interrupt_keeps_all(terminal: Terminal) -> None:
    terminal.expect("question 1 of 12")
    terminal.press(b"\x1b[D")
    terminal.expect("question 2 of 12")
    # On the disk before anybody leaves.
    assert [line["left"] for line in kept()] == ["chosen"]
    terminal.press(b"\x1b[C")
    terminal.expect("question 3 of 12")
    terminal.press(b"t")
    terminal.expect("question 4 of 12")
    terminal.process.send_signal(signal.SIGINT)
    terminal.expect("3: 2 decided, 1 tied")
    assert terminal.process.wait(20) == 0
    assert [line["left"] for line in kept()] == ["chosen", "rejected"]


def test_a_killed_ranking_loses_nothing(terminal: Terminal, typed: Callable) -> None:
    terminal.expect("question 1 of 12")
    terminal.press(b"ab")
    terminal.expect("question 3 of 12")
    terminal.process.kill()
    terminal.process.wait()
    found = typed("q\n")
    assert "question 3 of 12" in found.err
    assert len(kept()) == 2
