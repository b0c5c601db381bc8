"""Rankings and ratings as pairs: which two of a prompt's answers stand against each other.

Pairs are made of rows that are split already, so all pairs of a prompt are on one side. They carry their ranking as `group`, which
keeps them together wherever rows are divided again. The difference of two ratings becomes the pair's `margin` in its metadata,
which `reward` learns to keep.

Source: all pairs: Ouyang et al., "InstructGPT", arXiv 2203.02155, section 3.5; best against worst: Tunstall et al., "Zephyr",
arXiv 2310.16944, section 4 (best against another one), and the least difference as in Cui et al., arXiv 2310.01377.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from pydantic import Field

from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.ledger import Drop, Findings, Ledger, lengths
from tunewright.data.rows import PreferenceRow, RankingRow, RatingRow, Row

NO_PAIR = "no_pair"


class Pairing(Strict):
    """How rankings and ratings become pairs; a word alone is `take`.

    Args:
        take: `all` pairs of a prompt's answers, the `best_worst` one, or `neighbours` in the order.
        least_difference: of two ratings, below which the two answers make no pair; equal ratings never do.
    """

    take: Literal["all", "best_worst", "neighbours"] = "all"
    least_difference: float = Field(default=0.0, ge=0)


def as_pairing(value: Any) -> Any:
    """The word alone says which pairs are taken."""
    return {"take": value} if isinstance(value, str) else value


class Pairs(NamedTuple):
    """The rows of all splits as pairs, and what is known about them."""

    splits: dict[str, list[Row]]
    ledger: Ledger
    findings: Findings


def as_pairs(splits: Mapping[str, Sequence[Row]], pairing: Pairing, ledger: Ledger, findings: Findings) -> Pairs:
    """Every ranking of every split as its pairs; one that gives none goes into the ledger.

    Raises:
        ConfigurationError: a least difference was asked for and the rows hold an order without numbers.
        DataError: the rows are no rankings, or no training pair is left.
    """
    made: dict[str, list[Row]] = {}
    drops: list[Drop] = []
    for split, rows in splits.items():
        made[split] = []
        for row in rows:
            found = list(pairs_of(_ranking(row, pairing), pairing))
            made[split] += found
            if not found:
                problem = f"no two of its answers differ by {pairing.least_difference:g} or more"
                drops.append(Drop(row.where, NO_PAIR, problem, split))
    if splits.get("train") and not made["train"]:
        first = splits["train"][0].where.rsplit(":", 1)[0]
        hint = f"It is {pairing.least_difference:g}; lower it."
        raise DataError("no two answers differ by the least difference", where=first, hint=f"`data.pairs.least_difference`: {hint}")
    counts = {split: f"{len(rows):,} {split}" for split, rows in made.items() if rows}
    note = f"{sum(map(len, splits.values())):,} rows of shape {findings.shape} gave {', '.join(counts.values())} pairs"
    ledger = Ledger((*ledger, *drops))
    findings = replace(
        findings,
        shape=PreferenceRow.shape,
        why=f"rows of shape {findings.shape} as pairs ({pairing.take.replace('_', ' against ')})",
        kept={split: len(rows) for split, rows in made.items()},
        dropped=ledger.by_kind(),
        lengths=lengths(made),
        notes=[*findings.notes, note],
    )
    return Pairs(made, ledger, findings)


def pairs_of(row: RankingRow, pairing: Pairing) -> Iterator[PreferenceRow]:
    """The pairs of one ranking, the better answer chosen."""
    scores = row.scores if isinstance(row, RatingRow) else None
    for better, worse in _places(len(row.answers), pairing.take):
        difference = None if scores is None else scores[better] - scores[worse]
        if difference is not None and (difference <= 0 or difference < pairing.least_difference):
            continue
        yield PreferenceRow(
            messages=row.messages,
            chosen=row.answers[better],
            rejected=row.answers[worse],
            tools=row.tools,
            where=row.where,
            group=row.group or row.key(),
            weight=row.weight,
            metadata=row.metadata if difference is None else {**row.metadata, "margin": difference},
        )


def _places(count: int, take: str) -> list[tuple[int, int]]:
    if take == "best_worst":
        return [(0, count - 1)]
    return list(itertools.pairwise(range(count)) if take == "neighbours" else itertools.combinations(range(count), 2))


def _ranking(row: Row, pairing: Pairing) -> RankingRow:
    if not isinstance(row, RankingRow):
        shapes = (RankingRow.shape, RatingRow.shape)
        problem = f"rows of shape '{row.shape}' hold no answers to make pairs of"
        raise DataError(problem, where=row.where, allowed=shapes, given=row.shape, hint="Leave out `data.pairs`.")
    if pairing.least_difference and not isinstance(row, RatingRow):
        problem = "a ranking has no numbers that could differ by it"
        hint = "Leave it out, or give ratings (`scores`)."
        raise ConfigurationError(problem, where="data.pairs.least_difference", hint=hint)
    return row
