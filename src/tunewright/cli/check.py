"""`check`: what the data are, before any model is asked to learn them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome

if TYPE_CHECKING:
    from tunewright.data.reading import Dataset
    from tunewright.finetune import Run
    from tunewright.run.targets import Planted


def check(*tokens: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]) -> Outcome:
    """Read the data and say what was found; with --base also what would be learned.

    Args:
        tokens: the data, and settings as flags; see `tunewright check --help`.
    """
    from tunewright.cli.flags import parse
    from tunewright.cli.settings_help import asks_for_help, settings_help

    if asks_for_help(tokens):
        return settings_help("check")
    asked = parse(tokens)
    run = asked.run()
    with_base = "base" in asked.given or "base" in asked.data
    from tunewright.data.reading import read

    if with_base:
        from tunewright.models.sources import resolve

        resolve(run.base)
    dataset = read(run.data, run.seed)
    return _outcome(run, dataset, _planted(run, dataset) if with_base else None)


def _planted(run: Run, dataset: Dataset) -> Planted:
    from tunewright.cli.terminal import narrator
    from tunewright.run.targets import look

    with narrator() as told:
        told.stage(f"Render the rows with the tokenizer of {run.base}")
        return look(run, dataset)[0]


def _outcome(run: Run, dataset: Dataset, planted: Planted | None) -> Outcome:
    from tunewright.cli.findings import findings_shown, first_rows
    from tunewright.data.templates.dressing import is_prompted

    first = [
        {"where": row.where, "input": row.input_text(), "target": row.target_text()}
        | {key: row.metadata[key] for key in ("task", "template", "wording") if is_prompted(row) and key in row.metadata}
        for row in first_rows(dataset)
    ]
    data = {
        "data": run.data.source,
        "shape": dataset.shape,
        "findings": dataset.findings.as_dict(),
        "splits": {name: len(rows) for name, rows in dataset.splits().items()},
        "dropped": dataset.ledger.counts(),
        "first_rows": first,
    }
    if planted is not None:
        data |= {"base": run.base, "targets": planted.counts.as_dict()}
    return Outcome(data, findings_shown(run.data.source, dataset, planted))
