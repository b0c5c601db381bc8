"""What the report says label by label, and number by number: as plain data, from answers in the form of their task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunewright.data.rows import Row
from tunewright.evaluation.report.schema import ConfusionTables, LabelLine, LabelReport, Scatter
from tunewright.evaluation.task import Answer
from tunewright.metrics._entities import entities, has_entities
from tunewright.metrics._label_sets import label_set
from tunewright.metrics.statistics.confusion import confusion, label_order
from tunewright.metrics.statistics.per_label import Item, per_label
from tunewright.objectives import Task

POINTS = 400  # of a scatter plot
UNITS = {"multi_label": "rows", "entities": "entities", "tags": "words"}


def label_report(task: Task, rows: Sequence[Row], before: Sequence[Answer] | None, after: Sequence[Answer]) -> LabelReport | None:
    """Precision, recall and F1 of each label, type of entity or tag, before and after; None where a task has no such parts."""
    if task not in ("multi_label", "token_classification") or not rows:
        return None
    references = [row.target_text() for row in rows]
    kind = "multi_label" if task == "multi_label" else "entities" if _marks_entities(references) else "tags"
    wanted = [_items(kind, text) for text in references]
    tuned = per_label([_items(kind, answer.text or "") for answer in after], wanted)
    base = {} if before is None else {one.label: one for one in per_label([_items(kind, one.text or "") for one in before], wanted)}
    lines = tuple(
        LabelLine(
            label=one.label,
            count=one.count,
            precision=one.precision,
            recall=one.recall,
            f1=one.f1,
            base_f1=base[one.label].f1 if one.label in base else None if before is None else 0.0,
        )
        for one in tuned
    )
    return LabelReport(unit=UNITS[kind], lines=lines)


def _marks_entities(references: Iterable[str]) -> bool:
    return any(has_entities(text.split()) for text in references)


def _items(kind: str, text: str) -> list[Item]:
    if kind == "multi_label":
        return [(label, None) for label in label_set(text)]
    if kind == "entities":
        return [(one.kind, (one.first, one.last)) for one in entities(text.split())]
    return [(tag, place) for place, tag in enumerate(text.split())]


def confusion_tables(task: Task, rows: Sequence[Row], before: Sequence[Answer], after: Sequence[Answer]) -> ConfusionTables | None:
    """Which label was answered for which, before and after: of rows, or of words where every word has one."""
    if task not in ("classification", "token_classification") or not rows:
        return None
    by_word = task == "token_classification"
    references = [part for row in rows for part in (row.classes() if by_word else (row.target_text(),))]
    base, tuned = (
        [part for answer, row in zip(side, rows, strict=True) for part in _parts(answer.text or "", row, by_word)]
        for side in (before, after)
    )
    order = label_order(references, base, tuned)
    return ConfusionTables(
        labels=order, base=confusion(base, references, order).matrix, tuned=confusion(tuned, references, order).matrix
    )


def _parts(text: str, row: Row, by_word: bool) -> list[str]:
    if not by_word:
        return [text]
    count = len(row.classes())
    return [*text.split(), *[""] * count][:count]


def scatter(task: Task, rows: Sequence[Row], after: Sequence[Answer]) -> Scatter | None:
    """Predicted against true numbers (of the first target), at most `POINTS` of them, evenly taken; None for other tasks."""
    if task != "regression":
        return None
    pairs = [(row.target_text().split(), (answer.text or "").split()) for row, answer in zip(rows, after, strict=True)]
    known = [(float(right[0]), float(own[0])) for right, own in pairs if right and own]
    shown = known[:: max(1, -(-len(known) // POINTS))]
    return Scatter(wanted=tuple(right for right, _ in shown), answered=tuple(own for _, own in shown)) if shown else None
