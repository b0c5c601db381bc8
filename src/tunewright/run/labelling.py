"""Labels from rules: rows and labelling functions to rows with probable labels, with an account of what the rules are worth.

No model is loaded and nothing is trained here; `tunewright tune` reads what is written.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunewright.core.errors import ConfigurationError, DataError, listed
from tunewright.core.scores import Score
from tunewright.core.storage import write_text
from tunewright.data.labelling.analysis import Analysis, alike, analyse
from tunewright.data.labelling.label_model import Fitted, best_N, fit, majority_NC
from tunewright.data.labelling.rules import Rules, load_functions
from tunewright.data.labelling.settings import LabelModel
from tunewright.data.labelling.votes import Votes, relabelled, unlabelled, vote
from tunewright.data.ledger import Drop, Ledger
from tunewright.data.reading import Loaded, read_rows
from tunewright.data.rows import LabelRow, Row, SoftLabelRow
from tunewright.data.sources import Record, records

if TYPE_CHECKING:
    from tunewright.metrics.statistics.paired import Difference

DIGITS = 6  # of a probability that is written
PEEKED = 100  # rows from which a file's columns are told


class Compared(NamedTuple):
    """Label model and majority vote on the rows whose labels are known and on which any function votes.

    Args:
        rows: with known labels.
        covered: of these, those that are voted on; all that follows is about them.
        majority: accuracy of the majority vote, ties going to the label with most votes in all rows.
        model: accuracy of the label model.
        difference: model minus majority.
    """

    rows: int
    covered: int
    majority: Score
    model: Score
    difference: Difference


class Labelled(NamedTuple):
    """What came of a labelling.

    Args:
        out: the file that was written.
        ledger: its file of rows left out, with the reason of each; None where there is none.
        written: rows written.
        left_out: the rows on which no function votes, and those that could not be read.
        analysis: what the functions do.
        fitted: what the label model believes of them.
        compared: with known labels; None without any.
        notes: what should be known, as sentences.
    """

    out: Path
    ledger: Path | None
    written: int
    left_out: Ledger
    analysis: Analysis
    fitted: Fitted
    compared: Compared | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        compared = self.compared
        measured = None
        if compared is not None:
            measured = {name: getattr(compared, name)._asdict() for name in ("majority", "model", "difference")}
            measured |= {"rows": compared.rows, "covered": compared.covered}
        return {
            "out": str(self.out),
            "ledger": None if self.ledger is None else str(self.ledger),
            "written": self.written,
            "left_out": {"count": len(self.left_out), "rows": [drop.where for drop in self.left_out]},
            **{name: getattr(self.analysis, name) for name in ("rows", "coverage", "overlaps", "conflicts")},
            "functions": [one._asdict() | {"believed": self.fitted.accuracies[one.name]} for one in self.analysis.functions],
            "balance": dict(zip(self.fitted.labels, self.fitted.balance, strict=True)),
            "estimation": {"accuracies": self.fitted.kind, "steps": self.fitted.steps, "converged": self.fitted.converged},
            "gold": measured,
            "notes": list(self.notes),
        }


class _Known(NamedTuple):
    """Votes on rows whose labels are known, and those labels."""

    votes: Votes
    labels: tuple[str, ...]


def label(data: str, functions: Sequence[Path], out: Path, *, gold: str | None = None, columns: Mapping[str, str]) -> Labelled:
    """Let labelling functions vote on rows, and write the rows with the probability of each label.

    Args:
        data: the rows to label: texts, or pairs with `second_text`. Labels that they have are shown to no function and to no model;
            they only serve as known labels where no `gold` is given.
        functions: files of labelling functions, YAML or Python.
        out: the file to write (.jsonl); rows on which nothing votes are not in it, and are listed beside it.
        gold: a few rows with known labels, to measure with.
        columns: names of columns in either file and the fields that they are.

    Raises:
        ConfigurationError: the functions, or where to write, are not usable.
        DataError: the rows are no texts, no function votes on any, or the known labels are others than the functions give.
    """
    out = out if out.suffix else out.with_suffix(".jsonl")
    _require_place(out)
    rules = load_functions(functions)
    loaded, marked = _read(data, gold, columns)
    votes = vote(rules.functions, loaded.rows, rules.labels)
    known = _known(rules, votes, loaded.rows, marked)
    if known is not None:
        labels = rules.labels or tuple(sorted({*votes.labels, *known.votes.labels}))
        votes, known = relabelled(votes, labels), known._replace(votes=relabelled(known.votes, labels))
    covered_N = votes.covered_N()
    if not covered_N.any():
        raise DataError(_why_silent(votes), where=data, hint="Look at the patterns and keywords, and at the column that is read.")
    fitted = fit(votes, rules.model or LabelModel())
    analysis = analyse(votes) if known is None else analyse(votes, known.votes, known.labels)
    compared = None if known is None else _compared(known, votes, fitted)
    left = [Drop(row.where, "no_vote", "no function votes on it", "train") for row in itertools.compress(loaded.rows, ~covered_N)]
    left_out = Ledger((*loaded.ledger, *left))
    written = _lines(loaded.rows, votes, fitted)
    write_text(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in written))
    ledger = out.with_suffix(".left_out.jsonl") if len(left_out) else None
    if ledger is not None:
        left_out.write(ledger)
    own = ("the labels in the data serve as known ones; no function saw them",) if known is not None and gold is None else ()
    notes = (*own, *_notes(analysis, fitted, votes, known))
    return Labelled(out, ledger, len(written), left_out, analysis, fitted, compared, notes)


def _require_place(out: Path) -> None:
    if out.suffix != ".jsonl":
        raise ConfigurationError("rows with probabilities are written as JSON Lines", where=str(out), allowed=(".jsonl",))
    if not out.parent.is_dir():
        raise ConfigurationError("there is no such folder", where=str(out.parent), hint="Make it first.")
    for place in (out, out.with_suffix(".left_out.jsonl")):
        if place.exists() or place.is_symlink():
            raise ConfigurationError("exists already; nothing is ever overwritten", where=str(place), hint="Choose another name.")


def _read(data: str, gold: str | None, columns: Mapping[str, str]) -> tuple[Loaded, list[Row] | None]:
    """The rows to label, and those with known labels."""
    there = {place: _columns_of(place) for place in (data, gold) if place is not None}
    # A column may stand in one of the two files only; what stands in neither is refused where the data are read.
    nowhere = {column for column in columns if not any(column in found for found in there.values())}
    named = {
        place: {column: field for column, field in columns.items() if column in found or column in nowhere}
        for place, found in there.items()
    }
    loaded = read_rows(data, columns=named[data])
    if gold is None:
        return loaded, None
    marked = read_rows(gold, columns=named[gold]).rows
    if not isinstance(marked[0], LabelRow):
        hint = "Give rows with a text and a label."
        raise DataError(f"rows of shape '{marked[0].shape}' have no known label", where=gold, allowed=("text_label",), hint=hint)
    return loaded, marked


def _columns_of(place: str) -> set[str]:
    first = itertools.islice((item for item in records(place) if isinstance(item, Record)), PEEKED)
    return {column for record in first for column in record.value}


def _known(rules: Rules, votes: Votes, rows: Sequence[Row], marked: Sequence[Row] | None) -> _Known | None:
    own = marked is None
    certain = [row for row in (rows if own else marked) if isinstance(row, LabelRow) and not isinstance(row, SoftLabelRow)]
    if not certain or len(certain) < len(rows if own else marked):
        return None
    labels = tuple(row.label for row in certain)
    found = votes if own else vote(rules.functions, certain, rules.labels)
    given = {*votes.labels, *found.labels}
    if not given & set(labels):
        strange = min(labels)
        problem = f"no known label is one that the functions give; the first in order is '{strange}'"
        hint = "Known labels and those of the functions are compared letter by letter."
        raise DataError(problem, where=certain[0].where.rsplit(":", 1)[0], allowed=sorted(given), given=strange, hint=hint)
    return _Known(found, labels)


def _compared(known: _Known, votes: Votes, fitted: Fitted) -> Compared | None:
    from tunewright.metrics.statistics.intervals import value_score
    from tunewright.metrics.statistics.paired import mcnemar

    covered_N = known.votes.covered_N()
    if not covered_N.any():
        return None
    wanted = list(itertools.compress(known.labels, covered_N))
    right = {}
    for name, probabilities_NC in (("majority", majority_NC(known.votes)), ("model", fitted.probabilities_NC(known.votes))):
        chosen_N = best_N(probabilities_NC, votes)[covered_N]
        right[name] = [fitted.labels[place] == label for place, label in zip(chosen_N.tolist(), wanted, strict=True)]
    scores = {name: value_score([float(one) for one in found]) for name, found in right.items()}
    difference = mcnemar(right["majority"], right["model"])
    return Compared(len(known.labels), len(wanted), scores["majority"], scores["model"], difference)


def _lines(rows: Sequence[Row], votes: Votes, fitted: Fitted) -> list[dict[str, Any]]:
    """The rows that are voted on, as they are written; columns that are not read stay."""
    probabilities_NC = fitted.probabilities_NC(votes)
    best = best_N(probabilities_NC, votes)
    lines = []
    for place in votes.covered_N().nonzero()[0].tolist():
        row = unlabelled(rows[place])
        shares = {name: round(share, DIGITS) for name, share in zip(fitted.labels, probabilities_NC[place].tolist(), strict=True)}
        texts = {"text": row.text, "second_text": row.second_text} if row.second_text else {"text": row.text}
        rest = {key: value for key, value in row.metadata.items() if key not in ("text", "second_text", "label", "distribution")}
        lines.append({**texts, "label": fitted.labels[best[place]], "distribution": shares, **rest})
    return lines


def _why_silent(votes: Votes) -> str:
    first = next(iter(votes.failures), None)
    if first is None:
        return f"none of the functions ({listed(votes.names)}) votes on any row"
    return f"no function votes on any row; '{first.function}' {first.problem} (at {first.where})"


def _notes(analysis: Analysis, fitted: Fitted, votes: Votes, known: _Known | None) -> list[str]:
    notes = []
    for one in analysis.functions:
        failed = f"'{one.name}' failed on {one.failures:,} rows, where it counts as abstaining; the first: {one.first_failure}"
        if one.failures:
            notes.append(failed)
        elif not one.votes:
            notes.append(f"'{one.name}' never votes")
        if one.votes and fitted.accuracies[one.name] < 1 / len(fitted.labels):
            notes.append(f"'{one.name}' is wrong more often than a guess would be, as the label model believes")
    notes += [f"'{one}' and '{other}' vote the same everywhere: the label model counts them as two" for one, other in alike(votes)]
    given = {name for one in analysis.functions for name in one.polarity}
    unused = [name for name in fitted.labels if name not in given]
    if unused:
        notes.append(f"no function gives the label {listed(unused)}")
    strange = sorted(set(known.labels) - set(fitted.labels)) if known is not None else []
    if strange:
        notes.append(f"known labels that no function gives count as wrong: {listed(strange)}")
    if not fitted.converged:
        notes.append(f"the label model has not converged in {fitted.steps} steps: raise `model.steps`")
    return notes
