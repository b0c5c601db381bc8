"""Where the weights of a run stand when it has several processes: the whole network on each, or a part of it on each."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tunewright.core.errors import ConfigurationError
from tunewright.core.units import bytes_text
from tunewright.engine.engine import Engine
from tunewright.engine.placement import Placement
from tunewright.methods import Tuning
from tunewright.training.estimate import Estimate
from tunewright.training.loop import Plan

FLOAT = 4  # bytes


def place(
    asked: Literal["auto", "replicate", "shard"], group: Placement, engine: Engine, tuning: Tuning, guess: Estimate
) -> tuple[Placement, Estimate, str]:
    """Put the network where it belongs; returns the placement, the estimate for each process, and the reason.

    Args:
        asked: the setting.
        group: the processes; one process has nothing to choose.
        guess: of a process that holds everything.

    Raises:
        ConfigurationError: an adapter was to be divided.
    """
    if group.process.world == 1:
        return group, guess, ""
    whole_weights = tuning.folder_name == "model"
    if asked == "shard" and not whole_weights:
        hint = "Leave it at `auto`: the base is replicated and only the adapter's gradients travel."
        raise ConfigurationError("only weights of the base are divided over processes, not adapters", where="placement", hint=hint)
    fits = guess.peak <= guess.available
    if asked == "replicate" or (asked == "auto" and (fits or not whole_weights)):
        why = f"{bytes_text(guess.peak)} fit on each process" if fits else "an adapter is not divided"
        return group, guess, f"replicate: {'as asked' if asked == 'replicate' else why}"
    # Imported here: one process never needs it, and it takes a while.
    from tunewright.engine.placement.sharded import Sharded

    sharded = Sharded(group.process, engine.model, engine.head)
    engine.parameters.update(sharded.divided(engine.parameters, engine.head))
    tuning.moved(engine.parameters)
    why = "as asked" if asked == "shard" else f"{bytes_text(guess.peak)} do not fit on one process"
    return sharded, _divided(guess, group.process.world), f"shard: {why}"


def _divided(guess: Estimate, world: int) -> Estimate:
    """The estimate of one process of `world`: weights, gradients, moments and copies are divided, activations are not."""
    training = guess.training // world
    saved = guess.training - training + FLOAT * guess.parameters * (world - 1) // world
    return replace(guess, training=training, peak=guess.peak - saved)


def idle(plan: Plan, group: Placement) -> list[str]:
    """A warning where steps have fewer micro-batches than there are processes, so that some do nothing."""
    world = group.process.world
    counts = [len(plan.micro_batches(step)) for step in range(min(plan.per_epoch, plan.total))]
    mean = sum(counts) / len(counts)
    if mean >= world:
        return []
    tokens = sum(tree.size for tree in plan.trees) / plan.per_epoch
    hint = f"`training.token_budget: {max(16, round(tokens / world))}` would give work to all."
    return [f"A step has {mean:.1f} micro-batches on average and there are {world} processes, so some wait. {hint}"]
