"""`selftest`: whether this installation computes what it should on this machine."""

from __future__ import annotations

from tunewright.cli.terminal import Outcome, narrator


def selftest() -> Outcome:
    """Check on this machine that the promises hold: packed = alone, resumed = uninterrupted, merged = attached, and so on."""
    from rich.table import Table
    from rich.text import Text

    from tunewright.core.units import seconds_text

    with narrator() as told:
        from tunewright.testing.selftest import run

        checks = run(told)
    table = Table.grid(padding=(0, 2))
    for check in checks:
        mark = Text("✓", style="green") if check.passed else Text("✗", style="bold red")
        difference = "" if check.difference is None else f"{check.difference:.1e}"
        table.add_row(
            mark,
            Text(check.name),
            Text(difference, style="dim"),
            Text(check.detail, style="dim"),
            Text(seconds_text(check.seconds), style="dim"),
        )
    failed = sum(not check.passed for check in checks)
    facts = [
        {"name": one.name, "passed": one.passed, "difference": one.difference, "detail": one.detail, "seconds": one.seconds}
        for one in checks
    ]
    return Outcome({"passed": not failed, "checks": facts}, table, exit_code=1 if failed else 0)
