"""What a rendered set teaches: counts for every report, and guards against sets that teach nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tunewright.core.errors import DataError
from tunewright.core.units import share_text
from tunewright.data.rendering.drafts import Rendered
from tunewright.data.rendering.refusals import REASONS, Refusal
from tunewright.data.rendering.renderer import Renderer

EXAMPLES_SHOWN = 5
MOST_UNKNOWN = 0.05
MOST_REFUSED = 0.5


@dataclass(frozen=True)
class Refused:
    """Rows refused for one reason: how many, where the first ones stand, and what the first message said."""

    reason: str
    rows: int
    where: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class TargetCounts:
    """What is trained on, as numbers that stand in every report.

    Args:
        rows: rows looked at.
        examples: trees made of them (a long text makes several).
        refused: rows that were not rendered, by reason, the most frequent first.
        tokens: tokens in all trees.
        trained: tokens that carry a loss.
        truncated_rows: rows of which tokens were cut away.
        truncated_tokens: how many tokens that were.
        answers_cut: rows of which tokens were cut that would have been learned.
        ended: examples that teach where the answer ends.
        unknown: tokens that the tokenizer does not know.
        control: control tokens that rows spelt and that were written as plain characters.
        length_p50: the median length of a tree, in tokens.
        length_p95: the length that 95 % of the trees do not exceed.
        length_max: the longest tree.
        notes: what was decided, as sentences.
    """

    rows: int = 0
    examples: int = 0
    refused: tuple[Refused, ...] = ()
    tokens: int = 0
    trained: int = 0
    truncated_rows: int = 0
    truncated_tokens: int = 0
    answers_cut: int = 0
    ended: int = 0
    unknown: int = 0
    control: int = 0
    length_p50: int = 0
    length_p95: int = 0
    length_max: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def share(self) -> float:
        """The part of all tokens that is learned."""
        return self.trained / self.tokens if self.tokens else 0.0

    @property
    def refused_rows(self) -> int:
        """Rows refused for any reason."""
        return sum(entry.rows for entry in self.refused)

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain data for JSON."""
        return {**asdict(self), "share": self.share, "refused_rows": self.refused_rows}


def audit(rendered: Iterable[Rendered | Refusal], renderer: Renderer) -> TargetCounts:
    """Count what `renderer.examples_of` gave, and refuse a set that cannot teach what its rows hold.

    Raises:
        DataError: no token would be learned; more than half of the rows were refused; no row teaches where an answer ends although
            the base has an end token; more than 5 % of the tokens are unknown to the tokenizer.
    """
    entries = list(rendered)
    counts = count(entries, renderer)
    if renderer.kind != "encoder":
        _guard_targets(counts, entries, renderer)
        _guard_end(counts, renderer)
    _guard_refusals(counts)
    if counts.tokens and counts.unknown > MOST_UNKNOWN * counts.tokens:
        share = share_text(counts.unknown, counts.tokens)
        hint = "The tokenizer does not cover this language or script: take another base."
        raise DataError(f"{share} of the tokens are unknown to the tokenizer (limit {MOST_UNKNOWN:.0%})", hint=hint)
    return counts


def count(entries: Sequence[Rendered | Refusal], renderer: Renderer) -> TargetCounts:
    """The counts alone, without the guards."""
    examples = [entry for entry in entries if isinstance(entry, Rendered)]
    refusals = [entry for entry in entries if isinstance(entry, Refusal)]
    lengths = sorted(example.tree.size for example in examples)
    per_row = {example.row: example for example in examples}
    cut = [example for example in per_row.values() if example.truncated]
    unknown = renderer.encoding.unknown
    # Byte-level tokenizers know every text; some name their end token as the unknown one all the same (GPT-2).
    has_unknown = unknown is not None and unknown not in (renderer.encoding.eos, renderer.encoding.bos)
    counts = TargetCounts(
        rows=len(per_row) + len(refusals),
        examples=len(examples),
        refused=_by_reason(refusals),
        tokens=sum(lengths),
        trained=sum(example.tree.trained for example in examples),
        truncated_rows=len(cut),
        truncated_tokens=sum(example.truncated for example in cut),
        answers_cut=sum(example.answer_cut > 0 for example in cut),
        ended=sum(example.ended for example in examples),
        unknown=sum(segment.tokens.count(unknown) for example in examples for segment in example.tree.segments)
        if has_unknown
        else 0,
        control=sum(example.control for example in per_row.values()),
        length_p50=_quantile(lengths, 0.5),
        length_p95=_quantile(lengths, 0.95),
        length_max=lengths[-1] if lengths else 0,
    )
    return TargetCounts(**{**vars(counts), "notes": _notes(counts, examples, renderer)})


def _by_reason(refusals: Sequence[Refusal]) -> tuple[Refused, ...]:
    found: list[Refused] = []
    for reason, rows in Counter(refusal.reason for refusal in refusals).most_common():
        same = [refusal for refusal in refusals if refusal.reason == reason]
        where = tuple(refusal.where or f"row {refusal.row + 1}" for refusal in same[:EXAMPLES_SHOWN])
        found.append(Refused(reason, rows, where, same[0].message))
    return tuple(found)


def _quantile(ordered: Sequence[int], share: float) -> int:
    # The smallest length that at least this share of the trees does not exceed.
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)] if ordered else 0


def _notes(counts: TargetCounts, examples: Sequence[Rendered], renderer: Renderer) -> tuple[str, ...]:
    notes = [f"chat template: {renderer.template.name}"] if any(example.conversation for example in examples) else []
    encoding = renderer.encoding
    if encoding.eos is not None and encoding.pad == encoding.eos:
        notes.append("the padding token is the end token; targets are kept by position, so ends are learned all the same")
    if encoding.eos is None and renderer.kind != "encoder":
        notes.append("the tokenizer has no end token: the tuned model will not know where to stop")
    if counts.control:
        words = "control tokens that rows spell were written as plain characters (rendering.control_tokens: keep lets them through)"
        notes.append(f"{counts.control:,} {words}")
    if counts.answers_cut:
        notes.append(f"{counts.answers_cut:,} rows lost tokens that would have been learned")
    decided = Counter(note for example in examples for note in example.notes)
    notes += [f"{note} ({rows:,} rows)" for note, rows in decided.most_common()]
    return tuple(notes)


def _guard_targets(counts: TargetCounts, entries: Sequence[Rendered | Refusal], renderer: Renderer) -> None:
    if counts.trained:
        return
    if not entries:
        raise DataError("there are no rows to learn from")
    long = [entry for entry in entries if isinstance(entry, Refusal) and entry.prompt_tokens + entry.answer_tokens > 0]
    if len(long) * 2 > len(entries) and renderer.limit is not None:
        shortest = min(entry.prompt_tokens for entry in long)
        answer = min(entry.answer_tokens for entry in long)
        needed = max(entry.prompt_tokens + entry.answer_tokens for entry in long)
        refused = renderer.config.truncate == "refuse"
        what = "no row fits and truncate is 'refuse'" if refused else "every answer was cut away"
        problem = (
            f"{what}: max_tokens is {renderer.limit:,}, but the shortest prompt has {shortest:,} tokens"
            f" and the shortest answer {answer:,}"
        )
        raise DataError(problem, hint=f"max_tokens {needed:,} keeps every row whole, where the base reads so many.")
    first = counts.refused[0] if counts.refused else None
    reason = f"; {first.rows} rows: {first.message} ({', '.join(first.where)})" if first else ""
    raise DataError(f"no token of any row would be learned{reason}", hint="Check the columns and the roles of the rows.")


def _guard_refusals(counts: TargetCounts) -> None:
    if counts.refused_rows <= MOST_REFUSED * counts.rows:
        return
    parts = [
        f"{entry.rows} because {REASONS.get(entry.reason, entry.reason)} ({', '.join(entry.where)})" for entry in counts.refused
    ]
    problem = f"{counts.refused_rows:,} of {counts.rows:,} rows cannot be rendered: {'; '.join(parts)}"
    raise DataError(problem, hint=f"The first one says: {counts.refused[0].message}.")


def _guard_end(counts: TargetCounts, renderer: Renderer) -> None:
    if counts.ended or not counts.examples or renderer.encoding.eos is None:
        return
    if counts.answers_cut:
        hint = f"Raise max_tokens above {renderer.limit:,}, or set truncate to 'prompt'." if renderer.limit else ""
        raise DataError("no row teaches where an answer ends: the end of every answer was cut away", hint=hint)
    same = "; the padding token is the end token and was masked" if renderer.encoding.pad == renderer.encoding.eos else ""
    raise DataError(
        f"no row teaches where an answer ends{same}", hint="Use a chat template that ends answers, or the built-in 'plain'."
    )
