import io

import pytest
from rich.console import Console

from tunewright.evaluation.report.terminal import render_terminal


def printed(report, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render_terminal(report))
    return console.file.getvalue()


def test_verdict_and_numbers_are_printed(report):
    text = printed(report, 120)
    assert report.verdict.headline in text
    for measure in report.measures:
        assert measure.title in text
    assert "95 % interval" in text


@pytest.mark.parametrize("width", [80, 100])
def test_lines_fit(report, width):
    assert max(len(line) for line in printed(report, width).splitlines()) <= width


def test_without_a_base_the_interval_is_the_tuned_ones(label_report):
    alone = label_report.measures[0].model_copy(update={"base": None, "difference": None})
    text = printed(label_report.model_copy(update={"measures": (alone,)}), 100)
    line = next(line for line in text.splitlines() if "Accuracy" in line)
    assert " to " in line
    assert " - " in line
