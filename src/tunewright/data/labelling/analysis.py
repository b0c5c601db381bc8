"""What labelling functions do to rows: polarity, coverage, overlaps, conflicts, and accuracy where right labels are known.

Shape suffixes: N rows, F functions, C labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tunewright.data.labelling.votes import ABSTAIN, Votes

if TYPE_CHECKING:
    import numpy as np


class Conduct(NamedTuple):
    """What one function does; shares are of all rows.

    Args:
        name: of the function.
        polarity: the labels it gives.
        votes: on how many rows it votes.
        coverage: on which share of rows it votes.
        overlaps: on which share it votes and another one does too.
        conflicts: on which share it votes and another one votes differently.
        failures: on how many rows it raised or gave what is no label.
        first_failure: the first of these, with its row; empty where there is none.
        right: of its votes on rows whose label is known, how many are right.
        judged: how many those votes are.
    """

    name: str
    polarity: tuple[str, ...]
    votes: int
    coverage: float
    overlaps: float
    conflicts: float
    failures: int = 0
    first_failure: str = ""
    right: int = 0
    judged: int = 0


class Analysis(NamedTuple):
    """What all functions do together: shares of rows on which any, at least two, and disagreeing ones vote; and each alone."""

    rows: int
    coverage: float
    overlaps: float
    conflicts: float
    functions: tuple[Conduct, ...]

    def silent(self) -> list[str]:
        """The functions that never vote."""
        return [one.name for one in self.functions if not one.votes]


def analyse(votes: Votes, known: Votes | None = None, right: Sequence[str] = ()) -> Analysis:
    """Count what the functions do.

    Args:
        votes: of the rows to label.
        known: votes of rows whose labels are known.
        right: those labels.

    Source: the counts of Snorkel's `LFAnalysis`.
    """
    fired_NF = votes.votes_NF != ABSTAIN
    counts_NC = votes.counts_NC()
    several_N, disputed_N = fired_NF.sum(axis=1) > 1, (counts_NC > 0).sum(axis=1) > 1
    rows = len(fired_NF)
    failed = Counter(one.function for one in votes.failures)
    judged = {} if known is None else {name: _judged(known, place, right) for place, name in enumerate(known.names)}
    functions = []
    for place, name in enumerate(votes.names):
        fired_N = fired_NF[:, place]
        given = sorted(set(votes.votes_NF[fired_N, place].tolist()))
        conduct = Conduct(
            name=name,
            polarity=tuple(votes.labels[label] for label in given),
            votes=int(fired_N.sum()),
            coverage=_share(fired_N),
            overlaps=_share(fired_N & several_N),
            # With any two labels on a row, whoever votes there stands against somebody.
            conflicts=_share(fired_N & disputed_N),
            failures=failed[name],
            first_failure=next((f"{one.where}: {one.problem}" for one in votes.failures if one.function == name), ""),
        )
        hits, count = judged.get(name, (0, 0))
        functions.append(conduct._replace(right=hits, judged=count))
    return Analysis(rows, _share(fired_NF.any(axis=1)), _share(several_N), _share(disputed_N), tuple(functions))


def alike(votes: Votes, least: int = 10) -> list[tuple[str, str]]:
    """Pairs of functions that vote on the same rows and always agree: they are one source, and a label model counts two.

    Args:
        votes: of the rows to label.
        least: on how many rows they vote at least.
    """
    columns: dict[bytes, list[str]] = {}
    for place, name in enumerate(votes.names):
        column_N = votes.votes_NF[:, place]
        if (column_N != ABSTAIN).sum() >= least:
            columns.setdefault(column_N.tobytes(), []).append(name)
    return [(names[0], other) for names in columns.values() for other in names[1:]]


def _judged(known: Votes, place: int, right: Sequence[str]) -> tuple[int, int]:
    given = [(int(label), wanted) for label, wanted in zip(known.votes_NF[:, place], right, strict=True) if label != ABSTAIN]
    return sum(known.labels[label] == wanted for label, wanted in given), len(given)


def _share(which_N: np.ndarray) -> float:
    return float(which_N.mean()) if len(which_N) else 0.0
