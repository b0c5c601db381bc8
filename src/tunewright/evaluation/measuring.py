"""From answers to measures: quick values while training, measures with intervals and a paired test at the end."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.data.rows import Row
from tunewright.evaluation.report.schema import Measure
from tunewright.evaluation.task import Answer
from tunewright.metrics import room as metrics
from tunewright.metrics.statistics.intervals import mean_score, score
from tunewright.metrics.statistics.paired import compare, compare_means

LOSS = "loss"


def mean_loss(answers: Sequence[Answer]) -> float | None:
    """The mean loss per token over all answers that have one."""
    scored = [(answer.loss, answer.tokens) for answer in answers if answer.loss is not None]
    return sum(loss * tokens for loss, tokens in scored) / sum(tokens for _, tokens in scored) if scored else None


def quick(answers: Sequence[Answer], rows: Sequence[Row], names: Sequence[str]) -> dict[str, float]:
    """Loss and metrics as plain numbers, for validation."""
    values = {}
    loss = mean_loss(answers)
    if loss is not None:
        values[LOSS] = loss
    written = [(answer.text, row.target_text()) for answer, row in zip(answers, rows, strict=True) if answer.text is not None]
    for name in names if written else ():
        values[name] = metrics[name]().measure([text for text, _ in written], [reference for _, reference in written])
    return values


def direction(name: str) -> bool:
    """Whether more of `name` is better. Raises `UnknownNameError` for a name that is no metric."""
    return False if name == LOSS else metrics[name].higher_is_better


def measures(
    names: Sequence[str],
    base: Sequence[Answer] | None,
    tuned: Sequence[Answer],
    rows: Sequence[Row],
    seed: int,
    split: str = "test",
) -> list[Measure]:
    """Every metric and the loss, before and after, on the same rows.

    Args:
        base: None when there is nothing to compare with (`evaluate MODEL DATA`).
    """
    found = []
    written = [index for index, answer in enumerate(tuned) if answer.text is not None and rows[index].target_text()]
    references = [rows[index].target_text() for index in written]
    after = [tuned[index].text or "" for index in written]
    before = None if base is None else [base[index].text or "" for index in written]
    for name in names if written else ():
        metric = metrics[name]()
        found.append(
            Measure(
                metric=name,
                title=metric.title,
                split=split,
                base=None if before is None else score(metric, before, references, seed),
                tuned=score(metric, after, references, seed),
                difference=None if before is None else compare(metric, before, after, references, seed),
                higher_is_better=metric.higher_is_better,
                percent=metric.percent,
            )
        )
    loss = _loss(base, tuned, seed, split)
    return found if loss is None else [*found, loss]


def _loss(base: Sequence[Answer] | None, tuned: Sequence[Answer], seed: int, split: str) -> Measure | None:
    known = [index for index, answer in enumerate(tuned) if answer.loss is not None]
    if not known:
        return None
    after = [tuned[index].loss or 0.0 for index in known]
    weights = [float(tuned[index].tokens) for index in known]
    before = (
        None if base is None or any(base[index].loss is None for index in known) else [base[index].loss or 0.0 for index in known]
    )
    return Measure(
        metric=LOSS,
        title="Loss per token" if any(weight > 1 for weight in weights) else "Loss",
        split=split,
        base=None if before is None else mean_score(before, weights, seed),
        tuned=mean_score(after, weights, seed),
        difference=None if before is None else compare_means(before, after, weights, seed),
        higher_is_better=False,
        percent=False,
    )
