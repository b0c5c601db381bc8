"""READ THIS FIRST: what a run is, and the whole of what one does, from top to bottom.

`Run` is the complete description; `finetune(run)` carries it out; `resume(folder)` goes on with one that stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator

from tunewright.core import runs
from tunewright.core.collector import set_aside
from tunewright.core.configuration import Strict, build, read_file
from tunewright.core.errors import UnknownNameError
from tunewright.core.narrator import SILENT, Narrator
from tunewright.core.surroundings import process
from tunewright.data.reading import DataConfig, read
from tunewright.data.rendering.settings import Rendering
from tunewright.engine.settings import Cache, Sampling
from tunewright.methods import Method
from tunewright.methods import room as methods
from tunewright.methods.lora import LoRA
from tunewright.metrics import room as metrics
from tunewright.models.facts import facts
from tunewright.models.sources import resolve
from tunewright.objectives import Objective
from tunewright.objectives import room as objectives
from tunewright.run.targets import decided, objective_for
from tunewright.training.settings import Training

if TYPE_CHECKING:
    from tunewright.evaluation.report.schema import Report


class Evaluation(Strict):
    """What is measured, and on how much."""

    metrics: tuple[str, ...] = Field((), description="names of metrics; the objective's own when empty")
    sampling: Sampling = Field(Sampling(), description="how answers are written")
    written: int = Field(200, ge=0, description="test rows for which an answer is written out; loss is measured on all")
    validation_rows: int = Field(1000, ge=1, description="most validation rows looked at while training")

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in metrics.names():
                raise UnknownNameError(f"there is no metric '{name}'", allowed=metrics.names(), given=name)
        return names


class Run(Strict):
    """The whole description of a run; a run file is this, and nothing else is an input."""

    data: DataConfig
    base: str = Field("embedded", description="hub id, folder, run, `minilm` or `embedded`")
    method: Annotated[Method, BeforeValidator(methods.make), PlainSerializer(methods.dump)] = LoRA()
    objective: Annotated[
        Objective | None,
        BeforeValidator(lambda value: None if value is None else objectives.make(value)),
        PlainSerializer(lambda value: None if value is None else objectives.dump(value)),
    ] = Field(None, description="by the rows when not given: classification for labels, sft for answers")
    rendering: Rendering = Rendering()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    cache: Cache = Field(Cache(), description="of the states below the lowest trained block: auto, off or at_once")
    seed: int = Field(0, ge=0, le=2**32)
    threads: int | None = Field(None, ge=1, description="CPU threads; measured when not given")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto takes a GPU when there is one")
    placement: Literal["auto", "replicate", "shard"] = Field(
        "auto", description="of several processes: the whole network on each, or a part; auto divides what does not fit on one"
    )
    name: str | None = Field(
        None, pattern=r"^[\w][\w.\- ]{0,99}$", description="of the run folder; from data and time when not given"
    )
    folder: Path = Field(Path("runs"), description="where run folders stand")


class Result(NamedTuple):
    """What came of a run: its folder and its report."""

    folder: Path
    report: Report


def finetune(run: Run, narrator: Narrator = SILENT, stop_asked: Callable[[], bool] = lambda: False) -> Result:
    """Carry out a run: read, split, load, estimate, measure, tune, test once, report.

    Started several times by `torchrun`, all processes do this together and return the same; the first one writes.

    Args:
        run: the description; what it leaves open is chosen, and recorded with its reason.
        narrator: is told what happens.
        stop_asked: looked at after every step; True ends the run at that step with a checkpoint.

    Raises:
        RequestError: something asked for cannot be done; found before training, and no run folder is left behind.
        DivergedError, StorageError, Interrupted: the run stopped; `resume` continues from its last checkpoint.
    """
    resolve(run.base)  # a misspelt base is found before anything is read
    folder = runs.create(run.folder, run.name, run.data.name or "run") if _leads() else runs.WatchedFolder(run.folder)
    with folder.locked(), ExitStack() as until_the_end:
        try:
            narrator.stage("Read and check the data")
            dataset = read(run.data, run.seed)
            decided(objective_for(run, dataset), facts(run.base).kind, dataset)
            narrator.say(f"{Path(run.data.source).name}: {dataset.sentence()}")
            if len(dataset.ledger):
                reasons = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in dataset.ledger.counts().items())
                narrator.warn(f"Dropped rows: {reasons}. The first: {next(iter(dataset.ledger)).where}")
            # Only now, when the data have said all that they can, does anything heavy load.
            narrator.stage("Load the libraries")
            until_the_end.enter_context(set_aside(_load_libraries))
            from tunewright.engine.placement.group import joined

            group = until_the_end.enter_context(joined(stop_asked))
            from tunewright.run import records, stages
            from tunewright.run.workshop import set_up

            folder.path = Path(group.tell(str(folder.path)))
            workshop = set_up(run, dataset, folder, narrator, group)
            records.begin(workshop)
        finally:
            folder.discard()  # unless it has become a run
        stages.measure_base(workshop)
        best = stages.tune(workshop, stop_asked)
        before, after = stages.test_once(workshop)
        return Result(folder.path, stages.report(workshop, best, before, after))


def resume(path: Path, narrator: Narrator = SILENT, stop_asked: Callable[[], bool] = lambda: False) -> Result:
    """Go on with a run that was stopped, killed or lost its power: the same bits as if it never had been.

    Raises:
        RunFolderError: there is no run at `path`, it is finished, or another process works in it.
        CheckpointError: its checkpoints are damaged.
        BaseModelError: its base is not what it was.
    """
    folder = runs.existing(path, _leads())
    folder.require_unfinished()
    with folder.locked(), ExitStack() as until_the_end:
        run = build(Run, read_file(folder.settings), str(folder.settings)).model_copy(
            update={"folder": path.parent, "name": path.name}
        )
        narrator.stage("Read the rows that the run kept")
        until_the_end.enter_context(set_aside(_load_libraries))
        from tunewright.engine.placement.group import joined
        from tunewright.run import records, stages
        from tunewright.run.workshop import set_up

        group = until_the_end.enter_context(joined(stop_asked))
        workshop = set_up(run, records.kept_dataset(folder), folder, narrator, group)
        records.carry_on(workshop)
        if not workshop.base_validation:
            stages.measure_base(workshop)
        best = stages.tune(workshop, stop_asked)
        before, after = stages.test_once(workshop)
        return Result(path, stages.report(workshop, best, before, after))


def _leads() -> bool:
    return process().rank == 0


def _load_libraries() -> None:
    """Everything heavy: torch, transformers, and what of ours stands on them."""
    import tunewright.run.stages  # noqa: F401
