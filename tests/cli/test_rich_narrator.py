"""What a run looks like while it goes: on a terminal, and where there is none."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tunewright.cli import rich_narrator
from tunewright.cli.rich_narrator import RichNarrator
from tunewright.core.errors import Interrupted

FACTS = {"loss": 1.25, "learning_rate": 3e-4, "tokens_per_second": 12_300.0}


def told(terminal: bool, width: int = 100) -> tuple[RichNarrator, io.StringIO]:
    page = io.StringIO()
    return RichNarrator(Console(file=page, force_terminal=terminal, width=width, color_system=None)), page


def a_run(narrator: RichNarrator, validations: int = 1) -> None:
    narrator.stage("Load the base")
    narrator.say("tiny: 38 k parameters")
    narrator.warn("The disk is nearly full.")
    narrator.stage("Tune")
    for step in range(1, 2 * validations + 1):
        narrator.progress(step, 100, FACTS if step % 2 else FACTS | {"validation loss": 0.5, "validation macro_f1": 0.75})


def test_without_a_terminal_every_fact_is_a_plain_line() -> None:
    narrator, page = told(terminal=False)
    with narrator:
        a_run(narrator)
    lines = page.getvalue().splitlines()
    assert lines[:4] == ["Load the base", "  tiny: 38 k parameters", "  ! The disk is nearly full.", "Tune"]
    assert lines[4] == "  step   2   validation  loss 0.5  macro f1 0.75"
    assert "\x1b" not in page.getvalue()


def test_plain_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rich_narrator, "PLAIN_EVERY", 0.0)
    narrator, page = told(terminal=False)
    with narrator:
        narrator.stage("Tune")
        narrator.progress(10, 100, FACTS)
        narrator.progress(20, 100, FACTS)
    assert "  step 20 of 100  loss 1.2500  lr 3.0e-04  12.3 k tok/s  " in page.getvalue()
    assert page.getvalue().rstrip().endswith("left")


def test_on_a_terminal_a_finished_stage_stays_with_its_mark_and_seconds() -> None:
    narrator, page = told(terminal=True)
    with narrator:
        a_run(narrator)
    text = page.getvalue()
    assert "✓ Load the base 0.0 s" in text
    assert "  ! The disk is nearly full." in text
    assert "✓ Tune 0.0 s" in text
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_while_it_runs_there_is_a_bar_with_loss_rate_speed_and_time_left() -> None:
    narrator, _ = told(terminal=True)
    narrator.stage("Tune")
    narrator.progress(1, 100, FACTS)
    narrator.progress(2, 100, FACTS)
    page = io.StringIO()
    Console(file=page, width=100, force_terminal=True).print(narrator)
    bar = page.getvalue().splitlines()[1]
    assert "━" in bar
    for part in ("2/100", "loss 1.2500", "lr 3.0e-04", "12.3 k tok/s", "left"):
        assert part in bar


def test_a_stage_that_fails_says_so_and_gives_the_terminal_back() -> None:
    narrator, page = told(terminal=True)
    narrator.__enter__()
    narrator.stage("Tune")
    narrator.__exit__(KeyError, KeyError(), None)
    assert "✗ Tune" in page.getvalue()
    assert page.getvalue().rstrip().endswith("\x1b[?25h")


def test_only_the_last_validations_stay_on_the_screen() -> None:
    narrator, page = told(terminal=True)
    with narrator:
        a_run(narrator, validations=rich_narrator.VALIDATIONS_SHOWN + 3)
    final = page.getvalue().rpartition("✓ Tune")[2]
    assert final.count("validation  loss") == rich_narrator.VALIDATIONS_SHOWN
    assert "… 3 validations before" in final


def test_time_left_counts_from_where_a_resumed_run_began() -> None:
    narrator, _ = told(terminal=True)
    narrator.stage("Tune")
    narrator.progress(90, 100, FACTS)
    assert narrator.bar is not None
    assert "left" not in narrator.bar.sentence()  # one report says nothing about speed
    narrator.progress(91, 100, FACTS)
    assert "left" in narrator.bar.sentence()


def test_what_a_signal_says_is_drawn_with_the_next_frame_and_an_interruption_is_no_failure() -> None:
    narrator, page = told(terminal=True)
    narrator.stage("Tune")
    narrator.interject("Stopping after this step.", last=False)
    shown = io.StringIO()
    Console(file=shown, width=100, force_terminal=True).print(narrator)
    assert "Stopping after this step." in shown.getvalue()
    narrator.close(Interrupted)
    assert "■ Tune" in page.getvalue()
    assert "Stopping" not in page.getvalue()
