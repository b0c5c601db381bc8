"""Answers, kept row by row: what anyone needs to check a number or to compare two runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tunewright.core.storage import write_text
from tunewright.data.rows import Row
from tunewright.evaluation.report.schema import Rows, ShownRow
from tunewright.evaluation.task import Answer

SHOWN = 6  # best and worst rows in the report
LONGEST = 1500  # characters of a prompt that are shown


def write(path: Path, rows: Sequence[Row], base: Sequence[Answer] | None, tuned: Sequence[Answer]) -> None:
    """One JSON object a row: where it came from, what was asked and wanted, what both answered."""
    lines = []
    for index, (row, answer) in enumerate(zip(rows, tuned, strict=True)):
        line = {
            "where": row.where,
            "prompt": row.input_text(),
            "reference": row.target_text(),
            "tuned": answer.text,
            "tuned_loss": answer.loss,
        }
        if base is not None:
            line |= {"base": base[index].text, "base_loss": base[index].loss}
        if answer.confidence is not None:
            line["confidence"] = answer.confidence
        if answer.details:
            line["details"] = answer.details
        if answer.scores:
            line["tuned_scores"] = dict(answer.scores)
            line |= {} if base is None else {"base_scores": dict(base[index].scores)}
        lines.append(json.dumps(line, ensure_ascii=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(lines) + "\n")


def best_and_worst(rows: Sequence[Row], base: Sequence[Answer] | None, tuned: Sequence[Answer]) -> Rows:
    """The rows with the smallest and the largest loss among those that were answered in words."""
    usable = [index for index, answer in enumerate(tuned) if answer.text is not None and answer.loss is not None]
    order = sorted(usable, key=lambda index: tuned[index].loss or 0.0)
    half = min(SHOWN, len(order) // 2)

    def shown(index: int) -> ShownRow:
        return ShownRow(
            prompt=rows[index].input_text()[-LONGEST:],
            reference=rows[index].target_text(),
            base_answer=None if base is None else base[index].text,
            tuned_answer=tuned[index].text or "",
            where=rows[index].where,
            score=tuned[index].loss,
        )

    return Rows(worst=tuple(shown(i) for i in order[::-1][:half]), best=tuple(shown(i) for i in order[:half]), measured_by="loss")
