"""The frozen part of a run's base: found once everything is attached and decided, and said in a sentence."""

from __future__ import annotations

from tunewright.core.narrator import Narrator
from tunewright.engine.engine import Engine
from tunewright.engine.prefix.frozen import FrozenPrefix, fill, freeze
from tunewright.engine.settings import Cache
from tunewright.training.loop import Plan


def keep_frozen(engine: Engine, settings: Cache, plan: Plan, narrator: Narrator) -> FrozenPrefix | None:
    """What the engine's `prefix` is to be; None where something is trained from the first block on.

    With `at_once`, the first epoch's rows are put through the lower blocks here.

    Args:
        engine: with its method, head, precision and placement as they will be; without a frozen prefix yet.
    """
    frozen = freeze(engine, settings)
    if frozen is None:
        return None
    if frozen.place is not None and any(tree.varies for tree in plan.trees):
        frozen.stop("every epoch hides other parts of the rows, so that hardly a state is asked for twice")
    narrator.say(frozen.sentence(sum(tree.size for tree in plan.trees)))
    if settings.when == "at_once" and frozen.place is not None:
        steps = range(min(plan.per_epoch, plan.total))
        fill(frozen, engine, (engine.collate(trees) for step in steps for trees in plan.micro_batches(step)))
    return frozen
