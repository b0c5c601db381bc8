"""The votes: every labelling function asked about every row.

Shape suffixes: N rows, F functions, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tunewright.core.errors import DataError, nearest
from tunewright.data.labelling.functions import LabellingFunction, attempted, quiet
from tunewright.data.rows import LabelRow, Row, TextRow

if TYPE_CHECKING:
    import numpy as np

ABSTAIN = -1


class Failure(NamedTuple):
    """A vote that came to nothing: the function, the row, and what it raised or gave. It counts as an abstention."""

    function: str
    where: str
    problem: str


@dataclass(frozen=True)
class Votes:
    """What the functions said.

    Args:
        names: of the functions, in order.
        labels: all labels, in order.
        votes_NF: for each row and function the index of the label it gave; `ABSTAIN` where it gave none.
        failures: votes that came to nothing.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    votes_NF: np.ndarray
    failures: tuple[Failure, ...] = ()

    def counts_NC(self) -> np.ndarray:
        """For each row how many functions gave each label."""
        import numpy as np

        return np.stack([(self.votes_NF == label).sum(axis=1) for label in range(len(self.labels))], axis=1)

    def covered_N(self) -> np.ndarray:
        """Whether any function gave a label."""
        return (self.votes_NF != ABSTAIN).any(axis=1)


def unlabelled(row: Row) -> LabelRow:
    """A row as labelling functions see it: text, second text and all other columns (`metadata`), never its label.

    Raises:
        DataError: the row is no text to label.
    """
    if not isinstance(row, TextRow | LabelRow):
        hint = "Name the column to label: `--columns '{YOUR_COLUMN: text}'`."
        raise DataError(
            f"a row of shape '{row.shape}' is no text to label", where=row.where, allowed=("text", "text_label"), hint=hint
        )
    metadata = dict(row.metadata)
    # A pair without a label is read as plain text with one column more.
    beside = row.second_text if isinstance(row, LabelRow) else metadata.pop("second_text", "")
    second = beside if isinstance(beside, str) else ""
    return LabelRow(text=row.text, second_text=second, label="", where=row.where, group=row.group, metadata=metadata)


def vote(functions: Sequence[LabellingFunction], rows: Sequence[Row], labels: Sequence[str] = ()) -> Votes:
    """Ask every function about every row.

    A function that raises, or gives what is no label, abstains on that row, and the failure is kept.

    Args:
        functions: with different names.
        rows: texts, or pairs of them.
        labels: all labels there are, in order; those that are given, sorted, when empty.

    Raises:
        DataError: a row is no text.
    """
    import numpy as np

    given: list[list[str | None]] = []
    failures: list[Failure] = []
    with quiet():
        for row in map(unlabelled, rows):
            found = [_answer(one, row, labels) for one in functions]
            given.append([answer if isinstance(answer, str) else None for answer in found])
            failures += [answer for answer in found if isinstance(answer, Failure)]
    everything = tuple(labels) or tuple(
        sorted(
            {label for one in functions for label in one.labels} | {label for line in given for label in line if label is not None}
        )
    )
    index = {label: place for place, label in enumerate(everything)}
    votes_NF = np.array([[ABSTAIN if label is None else index[label] for label in line] for line in given], dtype=np.int64)
    names = tuple(one.name for one in functions)
    return Votes(names, everything, votes_NF.reshape(len(rows), len(functions)), tuple(failures))


def relabelled(votes: Votes, labels: Sequence[str]) -> Votes:
    """The same votes, with the labels in another order or with more of them."""
    import numpy as np

    places = np.array([labels.index(label) for label in votes.labels] + [ABSTAIN], dtype=np.int64)
    return replace(votes, labels=tuple(labels), votes_NF=places[votes.votes_NF])


def _answer(function: LabellingFunction, row: LabelRow, labels: Sequence[str]) -> str | Failure | None:
    label, problem = attempted(function.call, row)
    if problem:
        return Failure(function.name, row.where, f"raised {problem}")
    if label is None:
        return None
    if not isinstance(label, str) or not label.strip():
        given = f"{label!r} ({type(label).__name__})"[:80]
        return Failure(function.name, row.where, f"gave {given}; it should give a label as text, or None")
    if labels and label not in labels:
        close = nearest(label, labels)
        guess = f" (did you mean '{close}'?)" if close else ""
        return Failure(function.name, row.where, f"gave '{label}', which is not among the labels{guess}")
    return label
