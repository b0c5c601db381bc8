"""One run of a comparison, in a process of its own: `python -m tunewright.compare.trial REQUEST` (the comparison calls it).

A process of its own, because peak memory is a process's, and because a run that dies must not take the others with it. What was
measured stands in the run's folder (`trial.json`), so a comparison that was broken off goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tunewright.core.configuration import Strict, build
from tunewright.core.errors import TunewrightError
from tunewright.core.runs import RunFolder
from tunewright.core.scores import Score
from tunewright.core.storage import read_json, write_json
from tunewright.finetune import Run, finetune, resume

MEASURED = "trial.json"


class Trial(Strict):
    """What one run bought and cost.

    Args:
        metric: what quality is measured in; title, percent and higher_is_better belong to it.
        quality: on the test rows of this run's split; base: of what the run began with.
        share: of the base's parameters that are trained.
        peak_memory: of the whole run's process, bytes.
        seconds_per_thousand: training seconds for 1,000 tokens of the user's rows, validation not counted.
        slow_down: seconds of reading rows as a multiple of the base's.
        forgetting: see `costs.Forgetting`; in `forgetting_kind`.
    """

    metric: str
    title: str
    percent: bool
    higher_is_better: bool
    quality: Score
    base: Score | None
    parameters: int
    share: float
    peak_memory: int | None
    seconds_per_thousand: float
    bytes: int
    slow_down: float
    forgetting: float | None
    forgetting_kind: str


def done(folder: Path) -> Trial | None:
    """The trial that stands in a run's folder; None where it was not finished."""
    path = folder / MEASURED
    return build(Trial, read_json(path)) if path.is_file() else None


def carry_out(run: Run, general: Path | None) -> Trial:
    """Tune, or go on where it stopped; then measure what the report does not.

    Args:
        general: a file of general text; what ships when None.
    """
    folder = run.folder / str(run.name)
    found = RunFolder(folder)
    if not found.is_done:
        resume(folder) if found.is_run else finetune(run)
    from tunewright.compare import costs
    from tunewright.data.stored import read_rows
    from tunewright.evaluation.opening import open_model

    report = read_json(folder / "report.json")
    measure, cost = report["measures"][0], report["cost"]
    opened = open_model(str(folder))
    per_pass = costs.tokens_of(opened, read_rows(found.data / "train.jsonl"))
    slower = costs.slow_down(opened, read_rows(found.data / "test.jsonl"))
    lost = costs.forgetting(folder, run.base, costs.general_text(general, run.base))
    trial = Trial(
        **{key: measure[key] for key in ("metric", "title", "percent", "higher_is_better", "base")},
        quality=measure["tuned"],
        parameters=cost["trainable_parameters"],
        share=cost["trainable_parameters"] / cost["total_parameters"],
        peak_memory=cost["peak_memory"],
        seconds_per_thousand=costs.seconds_per_thousand(folder, per_pass),
        bytes=costs.bytes_of(folder),
        slow_down=slower,
        forgetting=lost.rise,
        forgetting_kind=lost.kind,
    )
    write_json(folder / MEASURED, trial.model_dump(mode="json"))
    return trial


def main(request: Path) -> int:
    """Carry out what a file asks for; an error of ours goes to standard error as one line, with exit code 1."""
    asked: dict[str, Any] = json.loads(request.read_text(encoding="utf-8"))
    try:
        carry_out(build(Run, asked["run"]), Path(asked["general"]) if asked["general"] else None)
    except TunewrightError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
