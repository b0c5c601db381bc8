import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from tunewright.core.scores import Score
from tunewright.evaluation.report import charts
from tunewright.evaluation.report.scales import Scale, around, rounded_out, smoothed, thinned, tick_text
from tunewright.evaluation.report.schema import Measure, Series

CURVES = {
    "constant": ([1, 2, 3], [2.0, 2.0, 2.0]),
    "zeros": ([1, 2], [0.0, 0.0]),
    "single": ([7], [0.5]),
    "single at step 0": ([0], [0.5]),
    "missing": ([1, 2, 3, 4], [1.0, None, None, 0.5]),
    "tiny": ([1, 2, 3], [1e-7, 3e-7, 2e-7]),
    "huge": ([1, 2, 3], [1e12, 5e12, 2e12]),
    "negative": ([1, 2, 3], [-3.0, -1.0, 2.0]),
    "long": (list(range(50_000)), [1 / (1 + step) for step in range(50_000)]),
    "late": ([100_000, 100_001], [0.2, 0.1]),
}


def numbers_within(svg):
    """Parse as XML; every coordinate must be a finite number within a little of the canvas."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = (float(part) for part in root.get("viewBox").split())
    for element in root.iter():
        limits = dict.fromkeys(("x", "x1", "x2", "cx"), width) | dict.fromkeys(("y", "y1", "y2", "cy"), height)
        for name, limit in limits.items():
            if (place := element.get(name)) is not None:
                assert math.isfinite(float(place))
                assert -5 <= float(place) <= limit + 5
        for place in re.findall(r"[-\w.]+", element.get("points", "")):
            assert math.isfinite(float(place))
    return root


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("percent", [False, True])
def test_curves_of_any_kind_are_drawn(name, percent):
    steps, values = CURVES[name]
    series = Series(title="Loss <b>", steps=steps, values=values, percent=percent)
    svg = charts.line_chart([charts.Line(series, "tuned")], "A <loss>", mark=steps[0])
    assert len(svg) < 40_000
    numbers_within(svg)


def test_nothing_measured_is_nothing_drawn():
    assert charts.line_chart([charts.Line(Series(title="x", steps=(1,), values=(None,)), "tuned")], "x") == ""


@pytest.mark.parametrize(
    ("base", "tuned"),
    [
        (None, Score(0.9, 0.8, 0.95, 10)),
        (Score(0, 0, 0.1, 10), Score(1, 0.9, 1, 10)),
        (Score(0.5, 0.5, 0.5, 1), Score(0.5, 0.5, 0.5, 1)),
        (Score(0, 0, 0, 1), Score(0, 0, 0, 1)),
    ],
)
@pytest.mark.parametrize("percent", [True, False])
def test_intervals_stay_in_the_plot(base, tuned, percent):
    measure = Measure(metric="m", title="M", base=base, tuned=tuned, percent=percent)
    ends = charts.plot_range([measure])
    assert ends[0] < ends[1]
    root = numbers_within(charts.interval_plot(measure, ends, with_axis=True))
    assert len(root.findall("circle")) == (1 if base is None else 2)


def test_bars_columns_and_maps_are_sound():
    numbers_within(charts.bar(1.7, marks=[0.5, 0.2]))
    numbers_within(charts.columns({"<a>": 3, "b": 0, "c": 700}, "labels"))
    assert charts.columns({}, "none") == ""
    root = numbers_within(charts.confusion_map([[3, 0], [1, 0]], ["<a>", "b"], "map"))
    assert [cell.get("class") for cell in root if cell.get("class").startswith("cell")] == ["cell h8", "cell h8 wrong"]


def test_shades_show_the_smallest_share():
    assert [charts.level(*pair) for pair in ((0, 10), (1, 1000), (5, 10), (10, 10), (0, 0))] == [0, 1, 4, 8, 0]


def test_scales_and_ticks():
    assert Scale(0, 1, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale(0, 10, 100, 0)(2.5) == 75
    assert rounded_out(0.12, 0.87) == pytest.approx((0.0, 1.0))
    low, high = around([0.99, 1.0], share=True)
    assert (low < 0.99, high) == (True, 1.0)
    assert [tick_text(value, False) for value in (0.0002, 0.5, 20000)] == ["2e\u22124", "0.5", "2e4"]


def test_long_curves_are_thinned_by_means():
    points = [(float(step), 1.0) for step in range(1000)]
    few = thinned(points)
    assert len(few) <= 240
    assert {y for _, y in few} == {1.0}
    assert [y for _, y in smoothed(points)] == pytest.approx([1.0] * 1000)
