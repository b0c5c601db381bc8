"""Several methods on one base and one task: what each buys, and what it costs.

Repeat r of every method is a run with seed r: its own split of the rows, its own order, its own initialisation, the same for all
methods. So a difference between two methods is one of paired runs, and no method has seen easier rows than another.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, variance
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer

from tunewright.compare.trial import Trial, done
from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError, Interrupted, RunFolderError
from tunewright.core.narrator import SILENT, Narrator
from tunewright.core.scores import Score
from tunewright.core.storage import read_json, write_json
from tunewright.finetune import Run
from tunewright.methods import Method
from tunewright.methods import room as methods

ASKED = "comparison.json"
NORMAL = 1.959964  # of a standard deviation, on each side of the mean: 95 %
MADE = Annotated[Method, BeforeValidator(methods.make), PlainSerializer(methods.dump)]


class MethodComparison(Strict):
    """What is compared.

    Args:
        run: everything but the method and the seed; `run.name` and `run.folder` say where the comparison stands.
    """

    run: Run
    methods: tuple[MADE, ...] = Field(min_length=1, description="names, or mappings with `name` and settings")
    repeats: int = Field(default=3, ge=1, le=100, description="runs of each method, each with its own seed and split")
    general: Path | None = Field(default=None, description="general text to measure forgetting on; what ships when not given")


class Compared(NamedTuple):
    """One method's runs.

    Args:
        title: its name, with a number behind it where one method is compared with several settings.
        trials: those that went through, by seed; failures: what stopped the others, by seed.
    """

    title: str
    method: Method
    trials: dict[int, Trial]
    failures: dict[int, str]

    @property
    def quality(self) -> Score | None:
        """Over all trials; None where none went through."""
        if not self.trials:
            return None
        found = pooled([trial.quality for trial in self.trials.values()])
        share = next(iter(self.trials.values())).percent
        return found._replace(low=max(0.0, found.low), high=min(1.0, found.high)) if share else found

    def typical(self, what: Callable[[Trial], float | int | None]) -> float | None:
        """The mean over the trials; None where one of them does not know."""
        values = [what(trial) for trial in self.trials.values()]
        known = [float(value) for value in values if value is not None]
        return mean(known) if known and len(known) == len(values) else None


class Comparison(NamedTuple):
    """The outcome: where it stands, and each method in the order asked for."""

    folder: Path
    asked: MethodComparison
    entries: list[Compared]


def pooled(scores: Sequence[Score]) -> Score:
    """The mean of several scores, with an interval for both sources of doubt: the rows that were in the test, and the run.

    The variance of the mean is the variance between runs over their number, plus the mean variance within a run (from the width
    of its interval) over their number. Test rows of different splits overlap, so the second part is a little too small.
    """
    value, count = mean(score.value for score in scores), len(scores)
    within = mean(((score.high - score.low) / (2 * NORMAL)) ** 2 for score in scores)
    between = variance([score.value for score in scores]) if count > 1 else 0.0
    half = NORMAL * ((within + between) / count) ** 0.5
    return Score(value, value - half, value + half, sum(score.count for score in scores))


def titles(chosen: Sequence[Method]) -> list[str]:
    """The methods' names, numbered where one stands several times."""
    names = [methods.name_of(method) for method in chosen]
    return [f"{name}-{names[:place].count(name) + 1}" if names.count(name) > 1 else name for place, name in enumerate(names)]


def compare_methods(
    asked: MethodComparison, narrator: Narrator = SILENT, stop_asked: Callable[[], bool] = lambda: False
) -> Comparison:
    """Carry out a comparison, or go on with the one that stands under the same name.

    A method whose run fails is reported as such, and the others go on.

    Raises:
        RunFolderError: another comparison stands under this name.
        Interrupted: it was asked to stop; the same command goes on.
    """
    folder = _place(asked)
    found = [Compared(title, method, {}, {}) for title, method in zip(titles(asked.methods), asked.methods, strict=True)]
    narrator.stage(f"Compare {len(found)} methods, {asked.repeats} runs each")
    total, count = len(found) * asked.repeats, 0
    for seed in range(asked.run.seed, asked.run.seed + asked.repeats):
        for entry in found:
            if stop_asked():
                raise Interrupted("the comparison was stopped", where=str(folder), hint="The same command goes on with it.")
            _try(asked, entry, seed, folder)
            count += 1
            narrator.progress(count, total, {"last": f"{entry.title}-{seed}"})
            narrator.say(_sentence(entry, seed))
    return Comparison(folder, asked, found)


def _place(asked: MethodComparison) -> Path:
    """The folder of the comparison, with what was asked in it."""
    if asked.run.name is None:
        raise ConfigurationError("a comparison needs a name", where="name", hint="Give --name NAME; the same name goes on with it.")
    folder, wanted = asked.run.folder / asked.run.name, asked.model_dump(mode="json")
    path = folder / ASKED
    if path.is_file():
        if read_json(path) != wanted:
            raise RunFolderError(
                "another comparison stands under this name", where=str(folder), hint="Choose another --name, or ask for the same."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise RunFolderError(
            "exists and is not empty; nothing is ever overwritten", where=str(folder), hint="Choose another --name."
        )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
    return folder


def _try(asked: MethodComparison, entry: Compared, seed: int, folder: Path) -> None:
    """One run in a process of its own, unless its result stands already."""
    place = folder / f"{entry.title}-{seed}"
    if done(place) is None:
        run = asked.run.model_copy(update={"method": entry.method, "seed": seed, "folder": folder, "name": place.name})
        request = folder / f"{place.name}.request.json"
        general = str(asked.general) if asked.general is not None else None
        request.write_text(json.dumps({"run": run.model_dump(mode="json"), "general": general}), encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "-m", "tunewright.compare.trial", str(request)], capture_output=True, text=True, check=False
        )
        request.unlink()
        if ended.returncode:
            entry.failures[seed] = (ended.stderr.strip().splitlines() or [f"it ended with code {ended.returncode}"])[-1]
            return
    trial = done(place)
    assert trial is not None
    entry.trials[seed] = trial


def _sentence(entry: Compared, seed: int) -> str:
    if seed in entry.failures:
        return f"{entry.title}, seed {seed}: failed ({entry.failures[seed]})"
    trial = entry.trials[seed]
    return f"{entry.title}, seed {seed}: {trial.title} {trial.quality.value:.4g}"
