"""From answers to measures: quick values while training, measures with intervals and a paired test at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tunewright.data.rows import Row
from tunewright.evaluation.calibration import PROBABILITIES, calibrated, claims
from tunewright.evaluation.report.schema import Measure
from tunewright.evaluation.task import Answer
from tunewright.metrics import Metric
from tunewright.metrics import room as metrics
from tunewright.metrics.statistics.intervals import mean_score, score, value_score
from tunewright.metrics.statistics.paired import Difference, compare, compare_means, compare_rows
from tunewright.metrics.statistics.resampling import perplexity

LOSS = "loss"
SCORED = {"reward": "Mean reward"}
"""What answers bring with them (`Answer.scores`), by name, with its title; more is better."""
FOUND = {"masked_accuracy": "Accuracy at hidden words"}
"""The same for what is a share of an answer's tokens."""


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
    values |= {name: sum(scored) / len(scored) for name in SCORED if (scored := _scored(name, answers))}
    values |= {name: _share(name, answers) for name in FOUND if _scored(name, answers)}
    known = [index for index, answer in enumerate(answers) if answer.text is not None and rows[index].has_answer()]
    texts = [answers[index].text or "" for index in known]
    for name in [one for one in names if one not in SCORED] if known else ():
        metric = metrics[name]()
        if metric.task == PROBABILITIES:
            claimed = claims(answers, rows)
            values |= {name: metric.measure(*claimed)} if claimed.said else {}
            continue
        values[name] = metric.measure(texts, _references(metric, texts, [rows[index] for index in known]))
    return values


def direction(name: str) -> bool:
    """Whether more of `name` is better. Raises `UnknownNameError` for a name that is no metric."""
    return name in SCORED or name in FOUND or (name != LOSS and metrics[name].higher_is_better)


def title(name: str) -> str:
    """What `name` is called in a report."""
    return "loss" if name == LOSS else SCORED.get(name) or FOUND.get(name) or metrics[name].title


def in_percent(name: str) -> bool:
    """Whether `name` is shown as a share."""
    return name in FOUND or (name != LOSS and name not in SCORED and metrics[name].percent)


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
    found = [one for name in SCORED if (one := _of_scores(name, base, tuned, seed, split)) is not None]
    written = [index for index, answer in enumerate(tuned) if answer.text is not None and rows[index].has_answer()]
    asked = [rows[index] for index in written]
    after = [tuned[index].text or "" for index in written]
    before = None if base is None else [base[index].text or "" for index in written]
    for name in [one for one in names if one not in SCORED] if written else ():
        metric = metrics[name]()
        if metric.task == PROBABILITIES:
            own = calibrated(name, metric, (base, tuned), rows, seed, split)
            found += [] if own is None else [own]
            continue
        wanted = _references(metric, after, asked)
        found.append(
            Measure(
                metric=name,
                title=metric.title,
                split=split,
                base=None if before is None else score(metric, before, _references(metric, before, asked), seed),
                tuned=score(metric, after, wanted, seed),
                difference=None if before is None else _compared(metric, before, after, asked, seed),
                higher_is_better=metric.higher_is_better,
                percent=metric.percent,
            )
        )
    loss = _loss(base, tuned, seed, split)
    if loss is None:
        return found
    # Of plain text nothing else is known than how well its tokens are foreseen, so that is said in the field's own terms too.
    plain = not names or not any(row.has_answer() for row in rows)
    beside = [_perplexity(base, tuned, seed, split)] if plain else []
    shares = [one for name in FOUND if (one := _found(name, base, tuned, seed, split)) is not None]
    return [*found, loss, *[one for one in beside if one is not None], *shares]


def by_task(found: Sequence[Measure], title: str, held_out: bool) -> list[Measure]:
    """Measures of the rows of one task, as those of a part beside the whole."""
    split = f"held-out {title}" if held_out else title
    return [measure.model_copy(update={"role": "part", "split": split}) for measure in found]


def retained(found: Sequence[Measure], title: str) -> list[Measure]:
    """The loss among measures of rows that are not of the task: it says what was forgotten."""
    return [one.model_copy(update={"role": "retention", "split": title}) for one in found if one.metric == LOSS]


def _references(metric: Metric, answers: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """What each answer is compared with: of several accepted answers the one that it comes nearest to, by this metric."""
    found = [row.target_text() for row in rows]
    several = [(index, accepted) for index, row in enumerate(rows) if len(accepted := row.accepted()) > 1]
    for index, accepted in several:
        values = metric.per_row([answers[index]] * len(accepted), accepted)
        if values is None:
            break  # a metric of all rows together has no nearest one
        found[index] = accepted[values.index(max(values) if metric.higher_is_better else min(values))]
    return found


def _compared(metric: Metric, before: Sequence[str], after: Sequence[str], rows: Sequence[Row], seed: int) -> Difference:
    """Base against tuned; where rows accept several answers, each side by its own nearest one."""
    wanted = _references(metric, after, rows)
    if not any(len(row.accepted()) > 1 for row in rows):
        return compare(metric, before, after, wanted, seed)
    values = metric.per_row(before, _references(metric, before, rows)), metric.per_row(after, wanted)
    if values[0] is None or values[1] is None:
        return compare(metric, before, after, wanted, seed)
    return compare_rows(values[0], values[1], seed)


def _scored(name: str, answers: Sequence[Answer]) -> list[float]:
    return [answer.scores[name] for answer in answers if name in answer.scores]


def _of_scores(name: str, base: Sequence[Answer] | None, tuned: Sequence[Answer], seed: int, split: str) -> Measure | None:
    """What the answers bring under one name, before and after; None where they bring nothing."""
    after, before = _scored(name, tuned), None if base is None else _scored(name, base)
    if not after:
        return None
    paired = before is not None and len(before) == len(after)
    return Measure(
        metric=name,
        title=SCORED[name],
        split=split,
        base=value_score(before, seed) if before and paired else None,
        tuned=value_score(after, seed),
        difference=compare_rows(before, after, seed) if before and paired else None,
        higher_is_better=True,
        percent=False,
    )


class _Losses(NamedTuple):
    """The losses of the rows that have one, with what each is the mean of; `before` is None where the base has not all of them."""

    before: list[float] | None
    after: list[float]
    weights: list[float]


def _losses(base: Sequence[Answer] | None, tuned: Sequence[Answer]) -> _Losses | None:
    known = [index for index, answer in enumerate(tuned) if answer.loss is not None]
    if not known:
        return None
    after = [tuned[index].loss or 0.0 for index in known]
    weights = [float(tuned[index].tokens) for index in known]
    lacking = base is None or any(base[index].loss is None for index in known)
    return _Losses(None if base is None or lacking else [base[index].loss or 0.0 for index in known], after, weights)


def _share(name: str, answers: Sequence[Answer]) -> float:
    """The share of all tokens of the answers."""
    counted = [(answer.scores[name], answer.tokens) for answer in answers if name in answer.scores]
    return sum(share * tokens for share, tokens in counted) / sum(tokens for _, tokens in counted)


def _found(name: str, base: Sequence[Answer] | None, tuned: Sequence[Answer], seed: int, split: str) -> Measure | None:
    """A share of tokens, before and after; None where the answers do not bring it."""
    known = [index for index, answer in enumerate(tuned) if name in answer.scores]
    if not known:
        return None
    after, weights = [tuned[index].scores[name] for index in known], [float(tuned[index].tokens) for index in known]
    lacking = base is None or any(name not in base[index].scores for index in known)
    before = None if base is None or lacking else [base[index].scores[name] for index in known]
    return Measure(
        metric=name,
        title=FOUND[name],
        split=split,
        base=None if before is None else mean_score(before, weights, seed),
        tuned=mean_score(after, weights, seed),
        difference=None if before is None else compare_means(before, after, weights, seed),
        higher_is_better=True,
        percent=True,
    )


def _perplexity(base: Sequence[Answer] | None, tuned: Sequence[Answer], seed: int, split: str) -> Measure | None:
    """exp(mean loss per token), where losses are means over tokens and nothing else was measured."""
    losses = _losses(base, tuned)
    if losses is None or not any(weight > 1 for weight in losses.weights):
        return None
    before, after, weights = losses
    return Measure(
        metric="perplexity",
        title="Perplexity",
        split=split,
        base=None if before is None else mean_score(before, weights, seed, of=perplexity),
        tuned=mean_score(after, weights, seed, of=perplexity),
        difference=None if before is None else compare_means(before, after, weights, seed, of=perplexity),
        higher_is_better=False,
        percent=False,
    )


def _loss(base: Sequence[Answer] | None, tuned: Sequence[Answer], seed: int, split: str) -> Measure | None:
    losses = _losses(base, tuned)
    if losses is None:
        return None
    before, after, weights = losses
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
