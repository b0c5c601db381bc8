"""The planner: which trees share an optimizer step, and which of those share one row of tokens.

Pure arithmetic on lengths. A plan is a function of (trees, batch_size, token_budget, seed, epoch) and of nothing that happened
before, so a run starts again at any step without replay. Loss and gradients do not depend on how a step is cut into
micro-batches (a loss is a sum, divided once by the count of the whole step), so the cut is free to be the cheapest one.

Not covered: spreading a step over several machines; the caller deals the micro-batches of a step out by rank.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

from tunewright.core.errors import ConfigurationError
from tunewright.core.seeds import shuffled
from tunewright.data.forest import Tree


class Cost(NamedTuple):
    """What a tree costs: `tokens` decide what fits, `area` (query-key pairs of attention) breaks ties."""

    tokens: int
    area: int


def cost(tree: Tree) -> Cost:
    """The cost of one tree. A segment of n tokens behind a path of d tokens has an area of n * (d + n)."""
    if len(tree.segments) == 1:
        tokens = len(tree.segments[0].tokens)
        return Cost(tokens, tokens * tokens)
    ends: list[int] = []
    tokens = area = 0
    for segment in tree.segments:
        own = len(segment.tokens)
        ends.append(own + (0 if segment.parent is None else ends[segment.parent]))
        tokens += own
        area += own * ends[-1]
    return Cost(tokens, area)


def pack(costs: Sequence[Cost], token_budget: int) -> list[list[int]]:
    """Micro-batches of at most `token_budget` tokens, by best-fit decreasing.

    Trees are taken from the longest to the shortest, and each goes to the fullest micro-batch that still has room (of equally full
    ones, the one with the least attention). A tree above the budget gets a micro-batch of its own: refusing or cutting it is
    rendering's decision, made earlier and reported.

    Args:
        costs: one for each tree.
        token_budget: tokens that a micro-batch may hold.

    Returns:
        Indexes into `costs`, each exactly once. The heaviest micro-batch stands first, so that memory that does not suffice
        shows at once; within a micro-batch the order is that of `costs`.
    """
    micro: list[list[int]] = []
    areas: list[int] = []
    rooms: list[tuple[int, int, int]] = []  # (tokens left, area so far, which micro-batch), kept sorted
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index].tokens, -costs[index].area, index)):
        tokens, area = costs[index]
        place = bisect_left(rooms, (tokens, -1, -1))
        if place < len(rooms):
            left, filled, chosen = rooms.pop(place)
        else:
            left, filled, chosen = token_budget, 0, len(micro)
            micro.append([])
            areas.append(0)
        micro[chosen].append(index)
        areas[chosen] = filled + area
        if left - tokens > 0:
            insort(rooms, (left - tokens, filled + area, chosen))
    totals = [sum(costs[index].tokens for index in batch) for batch in micro]
    order = sorted(range(len(micro)), key=lambda which: (-totals[which], -areas[which], min(micro[which])))
    return [sorted(micro[which]) for which in order]


def steps(trees: Sequence[Tree], *, batch_size: int, token_budget: int, seed: int, epoch: int) -> list[list[list[int]]]:
    """The plan of one epoch: optimizer steps, each a list of micro-batches, each a list of indexes into `trees`.

    The order of the epoch is drawn from (seed, epoch). `batch_size` consecutive trees make one step; the last step may be smaller
    and is kept.

    Args:
        trees: everything that is trained on, in the order of the rows.
        batch_size: trees an optimizer step.
        token_budget: tokens a micro-batch.
        seed: the seed of the run.
        epoch: counted from 0.

    Raises:
        ConfigurationError: `batch_size` or `token_budget` is below 1.
    """
    return plan([cost(tree) for tree in trees], batch_size=batch_size, token_budget=token_budget, seed=seed, epoch=epoch)


def plan(costs: Sequence[Cost], *, batch_size: int, token_budget: int, seed: int, epoch: int) -> list[list[list[int]]]:
    """`steps` for costs that are already known: they are the same in every epoch."""
    _positive("batch_size", batch_size)
    _positive("token_budget", token_budget)
    order = shuffled(len(costs), seed, "order", epoch)
    epoch_steps = []
    for start in range(0, len(order), batch_size):
        members = order[start : start + batch_size]
        packed = pack([costs[index] for index in members], token_budget)
        epoch_steps.append([[members[place] for place in batch] for batch in packed])
    return epoch_steps


def batches_for(trees: Sequence[Tree], token_budget: int) -> list[list[int]]:
    """Micro-batches over everything at once, for evaluation, where no step has to be kept together.

    Raises:
        ConfigurationError: `token_budget` is below 1.
    """
    _positive("token_budget", token_budget)
    return pack([cost(tree) for tree in trees], token_budget)


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigurationError(f"{name} must be at least 1, got {value}", where=name)
