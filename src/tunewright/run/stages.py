"""The stages of a run once it is set up, in the order in which `finetune` calls them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.core.errors import GraderError, Interrupted
from tunewright.engine.placement import Placement
from tunewright.evaluation.measuring import LOSS, direction, quick
from tunewright.evaluation.task import Answer
from tunewright.run import records
from tunewright.run.account import account
from tunewright.run.workshop import Workshop
from tunewright.training import checkpoints
from tunewright.training.around import Best, checkpointed, stop_early, validated, watched
from tunewright.training.loop import Step, fit, require_finite
from tunewright.training.rollouts import Rollouts, alarmed

if TYPE_CHECKING:
    from tunewright.evaluation.report.schema import Report


def measure_base(shop: Workshop) -> None:
    """The base on validation, before anything is trained: the first point of the curve."""
    with shop.stage("Measure the base on validation"), shop.tuning.disabled():
        shop.base_validation = validate(shop)
        records.update(shop)
        shop.narrator.say(", ".join(f"{name} {value:.4g}" for name, value in shop.base_validation.items()))


def validate(shop: Workshop) -> dict[str, float]:
    """Loss, metrics where answers need not be written, and the metric that is watched, on the validation rows."""
    rows, monitor = shop.validation_rows(), shop.run.training.monitor
    free: tuple[str, ...] = shop.metrics if shop.objective.reads or not shop.objective.writes else ()
    names = list(dict.fromkeys([*free, *([monitor] if monitor != LOSS else [])]))
    answers = shop.approach("tuned").answer(rows, written=len(rows) if names else 0)
    return quick(answers, rows, names)


def tune(shop: Workshop, stop_asked: Callable[[], bool]) -> Best:
    """The loop with everything around it, from the last checkpoint if there is one; ends with the best parameters in place."""
    training, folder, placement = shop.run.training, shop.folder, shop.placement
    best, source = Best(training.monitor, direction(training.monitor)), shop.source
    with shop.stage("Tune"), _resumable(folder.path):
        found = checkpoints.restore(folder.checkpoints, shop.engine, best, placement)
        folder.forget_after(found.step)
        for refused in found.refused:
            shop.warn(f"Passed over a damaged checkpoint: {refused}")
        if not found.finished:
            made: deque[Step] = deque(maxlen=1)
            steps = watched(fit(shop.engine, shop.aided.loss, source, shop.pace, found.step, placement), made.append)
            steps = watched(steps, shop.aided.tell)
            steps = alarmed(steps, source, best, shop.warn) if isinstance(source, Rollouts) else steps
            steps = validated(steps, training.validate_every or source.per_epoch, lambda: validate(shop))
            steps = stop_early(steps, best, shop.engine, training.patience)
            # Logged before the checkpoint: a line too many is dropped on resume, a missing one could not be made up.
            steps = watched(steps, lambda step: records.log(shop, step))
            save, asked = partial(records.checkpoint, shop, best=best), partial(_asked, placement, stop_asked)
            for _ in _kept_at_failure(checkpointed(steps, training.save_every, save, asked), shop, made, save):
                pass
        if shop.engine.prefix is not None and shop.engine.prefix.counts.read:
            shop.narrator.say(shop.engine.prefix.counts.sentence())
        if best.parameters:
            shop.engine.put_back(best.parameters)
        warn_if_useless(shop, best)
        require_finite(shop.engine, placement)
        calibrate(shop)
        records.save_tuning(shop)
    return best


def calibrate(shop: Workshop) -> None:
    """What the objective chooses on validation once training is over, thresholds for example; the test knows it as it will stay."""
    with shop.placement.guarded(), shop.placement.readable(), shop.engine.evaluating():
        shop.objective.calibrate(shop.engine, shop.renderer, shop.validation_rows())


def _kept_at_failure(steps: Iterator[Step], shop: Workshop, made: Sequence[Step], save: Callable[[Step], None]) -> Iterator[Step]:
    """Where a grader fails, the last step that was made is saved, so that the run can go on once the grader is mended."""
    try:
        yield from steps
    except GraderError as error:
        if not made or shop.placement.process.world > 1:  # others wait elsewhere, and a checkpoint is written together
            raise
        save(made[-1])
        hint = f"{error.hint} Steps up to {made[-1].number} are kept; go on with: tunewright resume {shop.folder.path}"
        raise GraderError(error.problem, where=error.where, hint=hint) from None


def _asked(placement: Placement, stop_asked: Callable[[], bool]) -> bool:
    """Whichever process is asked to stop, all of them stop after the same step."""
    return placement.any(stop_asked())


def warn_if_useless(shop: Workshop, best: Best) -> None:
    """Say so when no validation was better than the base's own: a learning rate that blows up without ever becoming NaN."""
    base = shop.base_validation.get(best.monitor)
    if base is None or best.value is None or shop.has_new_head:
        return
    if best.value < base if best.higher_is_better else best.value > base:
        rate = shop.run.training.learning_rate
        values = f"{best.monitor} was {base:.4g} for the base and {best.value:.4g} at best"
        shop.warn(f"Training made validation worse from the start: {values}. Lower the learning rate (it was {rate:.3g}).")


@contextmanager
def _resumable(path: Path) -> Iterator[None]:
    """An interruption from within says which run it is and how to go on with it."""
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(stop.problem, where=str(path), hint=f"Continue with: tunewright resume {path}") from None


def test_once(shop: Workshop) -> tuple[Sequence[Answer], Sequence[Answer]]:
    """The test rows, for the first and only time: what the base and the tuned model answer to the same ones."""
    with shop.stage("Test once"):
        rows, written = shop.dataset.test, shop.run.evaluation.written
        after = shop.approach("tuned").answer(rows, written)
        with shop.tuning.disabled():
            before = shop.baseline().answer(rows, written)
    return before, after


def report(shop: Workshop, best: Best, before: Sequence[Answer], after: Sequence[Answer]) -> Report:
    """Count, compare, and write the report in all its forms; of several processes the first one does, and tells the others."""
    from tunewright.evaluation.report.schema import Report

    with shop.stage("Report"):
        found = account(shop, best, before, after) if shop.placement.leads else None
    if found is not None:
        records.finish(shop, found, before, after)
    told = shop.placement.tell(found.model_dump_json() if found is not None else None)
    return Report.model_validate_json(told) if found is None else found
