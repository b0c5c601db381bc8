"""The charts of the report as inline SVG: no script, no network, colours from the page's style (light and dark)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from tunewright.core.scores import Score
from tunewright.evaluation.report.scales import Point, Scale, around, rounded_out, smoothed, thinned, tick_text
from tunewright.evaluation.report.schema import Measure, Scatter, Series
from tunewright.evaluation.report.wording import value_text

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 18, 36
NOISY = 60  # a curve of more points than this is drawn faint, with its running mean on top


class Line(NamedTuple):
    """One curve of a chart and the class that colours it (`tuned`, `base`, `third`)."""

    series: Series
    colour: str


def line_chart(lines: Sequence[Line], described: str, mark: int | None = None) -> Markup:
    """Curves over steps on common axes; empty where nothing was measured.

    Args:
        lines: curves of one unit.
        described: what the chart shows, for screen readers.
        mark: a step to mark as the one whose weights were kept.
    """
    drawn = [(line, points) for line in lines if (points := line.series.points())]
    if not drawn:
        return Markup("")
    percent = drawn[0][0].series.percent
    steps = [x for _, points in drawn for x, _ in points]
    x_low, x_high = (0.0 if min(steps) <= 0.2 * max(steps) else float(min(steps))), float(max(steps))
    across = Scale(x_low, x_high if x_high > x_low else x_low + 1, LEFT, WIDTH - RIGHT)
    up = Scale(*around((y for _, points in drawn for _, y in points), percent), HEIGHT - BOTTOM, TOP)
    parts = [_axes(across, up, percent)]
    if mark is not None and across.low <= mark <= across.high:
        parts.append(_kept_mark(across(mark)))
    parts += [_curve(line, points, across, up) for line, points in drawn]
    return _figure(WIDTH, HEIGHT, described, parts)


def _axes(across: Scale, up: Scale, percent: bool) -> Markup:
    bottom = HEIGHT - BOTTOM
    parts = [Markup('<text class="axis" x="{}" y="{}" text-anchor="end">step</text>').format(WIDTH - RIGHT, HEIGHT - 4)]
    for value in up.ticks():
        y = up(value)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y))
        label = tick_text(value, percent)
        parts.append(Markup('<text class="axis" x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT - 8, y + 4, label))
    for value in across.ticks(6):
        if value == int(value):
            label = Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{:,}</text>')
            parts.append(label.format(across(value), bottom + 17, int(value)))
    parts.append(Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, bottom, bottom))
    return Markup("").join(parts)


def _kept_mark(x: float) -> Markup:
    anchor = "end" if x > WIDTH - 40 else "middle"
    line = Markup('<line class="kept" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x, x, TOP - 2, HEIGHT - BOTTOM)
    label = Markup('<text class="axis" x="{}" y="{}" text-anchor="{}">kept</text>').format(x, TOP - 6, anchor)
    return line + label


def _curve(line: Line, points: Sequence[Point], across: Scale, up: Scale) -> Markup:
    few = thinned(points)
    if len(points) > NOISY:
        faint = _path(few, across, up, f"line {line.colour} faint")
        return faint + _path(smoothed(few), across, up, f"line {line.colour}")
    path = _path(few, across, up, f"line {line.colour}") if len(few) > 1 else Markup("")
    dot = Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"><title>{}</title></circle>')
    if len(points) > 30:
        return path
    names = [f"{line.series.title}, step {x:,}: {value_text(y, line.series.percent)}" for x, y in few]
    return path + Markup("").join(dot.format(line.colour, across(x), up(y), name) for (x, y), name in zip(few, names, strict=True))


def _path(points: Sequence[Point], across: Scale, up: Scale, style: str) -> Markup:
    places = " ".join(f"{across(x)},{up(y)}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(style, places)


PLOT_WIDTH, PLOT_ROW = 300, 48


def plot_range(measures: Sequence[Measure]) -> tuple[float, float]:
    """The common range of the interval plots of measures in one unit."""
    ends = [end for one in measures for score in (one.base, one.tuned) if score for end in (score.low, score.high)]
    return rounded_out(*around(ends, share=all(measure.percent for measure in measures)))


def interval_plot(measure: Measure, ends: tuple[float, float], with_axis: bool) -> Markup:
    """Before and after as dots with whiskers for the 95 % interval, over the range `ends`."""
    across = Scale(*ends, 18, PLOT_WIDTH - 18)
    height = PLOT_ROW + (16 if with_axis else 0)
    parts: list[Markup] = []
    for value in across.ticks(4):
        parts.append(Markup('<line class="grid" x1="{0}" x2="{0}" y1="2" y2="{1}"/>').format(across(value), PLOT_ROW - 2))
        if with_axis:
            label = Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>')
            parts.append(label.format(across(value), height - 3, tick_text(value, measure.percent)))
    rows = [("before", "base", measure.base, 15), ("after", "tuned", measure.tuned, 33)]
    words = []
    for when, colour, score, y in rows:
        if score is not None:
            parts.append(_whisker(score, colour, across, y))
            low, high = value_text(score.low, measure.percent), value_text(score.high, measure.percent)
            words.append(f"{when} {value_text(score.value, measure.percent)}, interval {low} to {high}")
    return _figure(PLOT_WIDTH, height, f"{measure.title}: {'; '.join(words)}", parts)


def _whisker(score: Score, colour: str, across: Scale, y: int) -> Markup:
    low, high = across(score.low), across(score.high)
    line = Markup('<line class="whisker {}" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(colour, low, high, y=y)
    caps = Markup("").join(
        Markup('<line class="whisker {}" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(colour, y - 6, y + 6, x=x)
        for x in (low, high)
    )
    return line + caps + Markup('<circle class="dot {}" cx="{}" cy="{}" r="4"/>').format(colour, across(score.value), y)


def bar(share: float, described: str = "", marks: Sequence[float] = ()) -> Markup:
    """One horizontal bar of `share` of the width; `marks` are thin strokes to compare with (the shares in other splits)."""
    parts = [Markup('<rect class="bar" x="0" y="2" width="{}" height="10" rx="1"/>').format(round(1000 * min(share, 1.0), 1))]
    for number, mark in enumerate(marks):
        x = round(1000 * min(mark, 1.0), 1)
        parts.append(Markup('<line class="mark m{}" x1="{x}" x2="{x}" y1="0" y2="14"/>').format(number, x=x))
    name = Markup('role="img" aria-label="{}"').format(described) if described else Markup('aria-hidden="true"')
    body = Markup("").join(parts)
    return Markup('<svg class="bar-svg" viewBox="0 0 1000 14" preserveAspectRatio="none" {}>{}</svg>').format(name, body)


def columns(counts: Mapping[str, int], described: str) -> Markup:
    """Many labels as thin columns, most frequent first; hovering names them."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if not ordered:
        return Markup("")
    width, height, top = 920, 150, max(max(counts.values()), 1)
    across = Scale(0, len(ordered), LEFT - 8, width)
    up = Scale(0, top * 1.05, height - 4, 8)
    parts = []
    for value in up.ticks(4):
        y = up(value)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(LEFT - 8, width, y=y))
        parts.append(Markup('<text class="axis" x="{}" y="{}" text-anchor="end">{:,.0f}</text>').format(LEFT - 14, y + 4, value))
    thick = round(max(1.0, (width - LEFT) / len(ordered) * 0.78), 1)
    shape = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}: {:,}</title></rect>')
    for place, (label, count) in enumerate(ordered):
        parts.append(shape.format(across(place), up(count), thick, round(up(0) - up(count), 1), label, count))
    return _figure(width, height, described, parts)


def scatter_plot(found: Scatter) -> Markup:
    """Predicted numbers over true ones, with the line on which they would be equal."""
    across = Scale(*around(found.wanted, share=False), LEFT, WIDTH - RIGHT)
    up = Scale(*around((*found.wanted, *found.answered), share=False), WIDTH - BOTTOM, TOP)
    parts = []
    for value in up.ticks():
        y, label = up(value), tick_text(value, False)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(LEFT, WIDTH - RIGHT, y=y))
        parts.append(Markup('<text class="axis" x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT - 8, y + 4, label))
    for value in across.ticks(6):
        place = (across(value), WIDTH - BOTTOM + 17, tick_text(value, False))
        parts.append(Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>').format(*place))
    ends = (max(across.low, up.low), min(across.high, up.high))
    line = Markup('<line class="kept" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    parts.append(line.format(across(ends[0]), up(ends[0]), across(ends[1]), up(ends[1])))
    dot = Markup('<circle class="dot tuned faint" cx="{}" cy="{}" r="3"><title>true {}, predicted {}</title></circle>')
    for right, own in zip(found.wanted, found.answered, strict=True):
        parts.append(dot.format(across(right), up(own), value_text(right, False), value_text(own, False)))
    described = f"Predicted over true numbers of {len(found.wanted)} rows; on the line they are equal"
    return _figure(WIDTH, WIDTH, described, parts)


MAP_SIZE = 420


def confusion_map(matrix: Sequence[Sequence[int]], labels: Sequence[str], described: str) -> Markup:
    """A matrix of many labels as shaded cells, each row shaded by shares of its reference; empty cells are not drawn."""
    cell = MAP_SIZE / len(labels)
    parts = [Markup('<rect class="map-ground" width="{0}" height="{0}"/>').format(MAP_SIZE)]
    shape = Markup('<rect class="cell h{}{}" x="{}" y="{}" width="{s}" height="{s}"><title>{} answered as {}: {}</title></rect>')
    for row, counts in enumerate(matrix):
        total = sum(counts)
        for column, count in enumerate(counts):
            if count:
                wrong = "" if row == column else " wrong"
                names = (labels[row], labels[column], count)
                place = (round(column * cell, 1), round(row * cell, 1))
                parts.append(shape.format(level(count, total), wrong, *place, *names, s=round(cell * 0.94, 2)))
    return _figure(MAP_SIZE, MAP_SIZE, described, parts)


def level(count: int, total: int) -> int:
    """The shade of a cell, 0 to 8, from its share of the row; anything above nothing is visible."""
    return 0 if not count else max(1, min(8, round(8 * count / total)))


def _figure(width: int, height: int, described: str, parts: Sequence[Markup]) -> Markup:
    body = Markup("").join(parts)
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, escape(described))
    return head + body + Markup("</svg>")
