"""The verdict: what the measures allow one to say, in words, and no more."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.evaluation.report.schema import Curves, Measure, Outcome, Series, Verdict
from tunewright.evaluation.report.wording import THIN, bare_text, p_text, points, signed, value_text

SIGNIFICANT = 0.05
FEW_ROWS = 100  # below this an interval of a share is wider than about 20 points
CLEAR_RISE = 0.02  # of the range of a curve: less is noise of validation


def judge(measures: Sequence[Measure], curves: Curves | None = None, baseline_note: str = "") -> Verdict:
    """Say what tuning bought, by the first measure of the task.

    "Better" or "worse" needs both: p below 0.05 and an interval of the difference without zero. Everything else is "no
    measurable difference", with what the rows leave open.

    Args:
        measures: all measures of the report.
        curves: looked at for signs of overfitting.
        baseline_note: what stands for the base, where it is not the base itself.
    """
    task = [measure for measure in measures if measure.role == "task"]
    if not task:
        return Verdict(outcome="unmeasured", headline="Nothing was measured.", sentences=tuple(_overfitting(curves)))
    main = task[0]
    outcome = outcome_of(main)
    sentences = [_detail(main, outcome), *_others(task[1:], outcome), *_retention(measures)]
    if baseline_note and main.base is not None:
        sentences.append(f"“Before” is {baseline_note.rstrip('.')}.")
    sentences += [*_few_rows(main), *_overfitting(curves)]
    return Verdict(outcome=outcome, headline=_headline(main, outcome), sentences=tuple(one for one in sentences if one))


def outcome_of(measure: Measure) -> Outcome:
    """Better or worse only where test and interval agree that chance does not explain it."""
    difference = measure.difference
    if measure.base is None or difference is None:
        return "unmeasured"
    if difference.p >= SIGNIFICANT or difference.low <= 0 <= difference.high:
        return "unclear"
    return "better" if (difference.value > 0) == measure.higher_is_better else "worse"


def _headline(main: Measure, outcome: Outcome) -> str:
    tuned = value_text(main.tuned.value, main.percent)
    if main.base is None or outcome == "unmeasured":
        return f"{main.title} is {tuned} after tuning; there is no measured base to compare with."
    base = value_text(main.base.value, main.percent)
    if outcome == "unclear":
        return f"No measurable difference: {_inside(main.title)} was {base} before tuning and is {tuned} after."
    went = "rose" if main.tuned.value > main.base.value else "fell"
    lead = "Tuning helped" if outcome == "better" else "Tuning made it worse"
    return f"{lead}: {_inside(main.title)} {went} from {base} to {tuned}."


def _inside(title: str) -> str:
    """A title in mid-sentence: `Accuracy` loses its capital, `BLEU`, `chrF` and `ROUGE-L` keep theirs."""
    return title[0].lower() + title[1:] if title[1:2].islower() else title


def _detail(main: Measure, outcome: Outcome) -> str:
    rows = f"{main.tuned.count:,} {main.split} rows"
    difference = main.difference
    if outcome == "unmeasured" or difference is None:
        low, high = (bare_text(end, main.percent) for end in (main.tuned.low, main.tuned.high))
        return f"On {rows}; 95{THIN}% interval {low} to {high}. What tuning bought is unknown."
    unit = points(main)
    low, high = signed(difference.low, main.percent), signed(difference.high, main.percent)
    chance = f"{p_text(difference.p)}, {difference.test} test"
    if outcome == "unclear":
        return f"The {rows} leave open anything from {low} to {high}{unit} (95{THIN}% interval of the difference; {chance})."
    change = f"{signed(difference.value, main.percent)}{unit} (95{THIN}% interval {low} to {high}; {chance})"
    return f"The difference is {change} on the same {rows}."


def _others(measures: Sequence[Measure], outcome: Outcome) -> list[str]:
    """The other measures of the task: that they agree in a word, that they differ by name."""
    compared = [measure for measure in measures if measure.difference is not None]
    if not compared or outcome == "unmeasured":
        return []
    agree = [measure.title for measure in compared if outcome_of(measure) == outcome]
    apart = [measure for measure in compared if outcome_of(measure) != outcome]
    word = {"better": "improved as well", "worse": "got worse as well", "unclear": "did not move measurably either"}[outcome]
    return [
        *([f"{_listed(agree)} {word}."] if agree else []),
        *(f"{measure.title} {_MOVED[outcome_of(measure)]} ({_change(measure)})." for measure in apart),
    ]


_MOVED = {"better": "improved", "worse": "got worse", "unclear": "shows no measurable difference", "unmeasured": "was not compared"}


def _change(measure: Measure) -> str:
    difference = measure.difference
    if difference is None:
        return "no base"
    low, high = signed(difference.low, measure.percent), signed(difference.high, measure.percent)
    return f"{signed(difference.value, measure.percent)}{points(measure)}, interval {low} to {high}"


def _retention(measures: Sequence[Measure]) -> list[str]:
    """What was forgotten, if anything was looked at."""
    kept = [measure for measure in measures if measure.role == "retention" and measure.difference is not None]
    if not kept:
        return []
    lost = [measure for measure in kept if outcome_of(measure) == "worse"]
    if not lost:
        return [f"Nothing measurable was forgotten ({_listed([f'{_inside(one.title)} on {one.split}' for one in kept])})."]
    return [f"It forgot something: {_inside(one.title)} on {one.split} got worse ({_change(one)})." for one in lost]


def _few_rows(main: Measure) -> list[str]:
    if main.tuned.count >= FEW_ROWS:
        return []
    return [f"Only {main.tuned.count} rows were tested: small differences cannot be seen, and the intervals are rough."]


def _overfitting(curves: Curves | None) -> list[str]:
    """A sentence when, after validation was at its best, training went on improving while validation got worse."""
    if curves is None or not curves.validation:
        return []
    validation = curves.validation[0]
    seen = validation.points()
    if len(seen) < 3:
        return []
    best = (max if validation.higher_is_better else min)(seen, key=lambda point: point[1])
    last = seen[-1]
    spread = max(value for _, value in seen) - min(value for _, value in seen)
    train_then, train_last = _level(curves.train_loss, best[0]), _level(curves.train_loss, last[0])
    if abs(last[1] - best[1]) <= CLEAR_RISE * spread or train_then is None or train_last is None or train_last >= train_then:
        return []
    then, now = value_text(best[1], validation.percent), value_text(last[1], validation.percent)
    kept = f" The weights of step {curves.kept_step} were kept." if curves.kept_step is not None else ""
    return [
        f"A sign of overfitting: after step {best[0]} the training loss kept falling while {_inside(validation.title)} went from "
        f"{then} to {now}.{kept}"
    ]


def _level(series: Series, step: int) -> float | None:
    """The mean of the ten values up to a step: single losses jump too much to compare."""
    before = [value for at, value in series.points() if at <= step][-10:]
    return sum(before) / len(before) if before else None


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
