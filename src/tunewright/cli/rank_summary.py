"""What came of a ranking by hand, in words."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tunewright.cli.terminal import Outcome
from tunewright.run.ranking import tally

if TYPE_CHECKING:
    from tunewright.core.scores import Score
    from tunewright.run.ranking import Record, Tally
    from tunewright.run.ranking.journal import Sitting


def facts(sitting: Sitting) -> list[tuple[str, str]]:
    """What the answers say and where they are, as names and values."""
    pairs = sitting.journal.pairs()
    many = f"{pairs:,} pair{'' if pairs == 1 else 's'}"
    return [
        *_facts(tally(sitting.ranking)),
        ("written", f"{many} in {sitting.journal.output}, every answer in {sitting.journal.log}"),
    ]


def next_command(sitting: Sitting) -> str:
    """What to do with the pairs; empty while there are none."""
    return f"tunewright tune {shlex.quote(str(sitting.journal.output))} --objective dpo" if sitting.journal.pairs() else ""


def outcome(sitting: Sitting) -> Outcome:
    """What came of a sitting."""
    from rich.console import Group
    from rich.text import Text

    from tunewright.cli.findings import pairs

    command = next_command(sitting)
    data = tally(sitting.ranking).as_dict() | {
        "pairs": sitting.journal.pairs(),
        "output": str(sitting.journal.output),
        "log": str(sitting.journal.log),
        "next": command,
        "notes": list(sitting.notes),
    }
    body = [Text(), pairs(facts(sitting))]
    return Outcome(data, Group(*body, *([Text(), Text.assemble(("next  ", "dim"), command)] if command else [])))


def _facts(found: Tally) -> list[tuple[str, str]]:
    parts = [f"{found.decided:,} decided"]
    for count, name in ((found.ties, "tied"), (found.both_bad, "neither good"), (found.skipped, "skipped")):
        parts += [f"{count:,} {name}"] if count else []
    waiting = f"; {found.remaining:,} more wait, and the same command goes on" if found.remaining else ""
    facts = [("answered", f"{found.answered:,}: {', '.join(parts)}{waiting}")]
    facts += [(f"{one.source} preferred", _record(one)) for one in found.records]
    if found.left is not None:
        habit = "" if found.left.low <= 0.5 <= found.left.high else "; sides are drawn, so this is a habit"
        facts.append(("left (A) preferred", f"{_percent(found.left)}{habit}"))
    if found.agreement is not None:
        facts.append(("agreement", f"{_percent(found.agreement)} asked twice got the same answer"))
    return facts


def _record(one: Record) -> str:
    beside = f", {one.undecided:,} undecided" if one.undecided else ""
    if one.rate is None:
        return f"nothing decided{beside}"
    return f"{_percent(one.rate)}{beside}"


def _percent(score: Score) -> str:
    value, low, high, count = score
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {count:,}"
