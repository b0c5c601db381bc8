"""The planner: which trees share an optimizer step, which of those share one row of tokens, and which rank computes what.

Pure arithmetic on lengths. A plan is a function of (trees, batch_size, token_budget, seed, epoch) and of nothing that happened
before, so a run starts again at any step without replay. Loss and gradients do not depend on how a step is cut into
micro-batches (a loss is a sum, divided once by the count of the whole step), so the cut is free to be the cheapest one.

The cost model is  seconds ~ tokens + area / pairs:  products of weights and states grow with the tokens, attention grows with the
*area*, the query-key pairs; `pairs` of them cost as much as one token does elsewhere.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from tunewright.core.errors import ConfigurationError
from tunewright.core.seeds import shuffled
from tunewright.data.forest import Tree

PAIRS = 2048  # query-key pairs worth one token in a small model; see `Cost.price`


class Cost(NamedTuple):
    """What a tree (or a micro-batch) costs: `tokens`, and `area`, the query-key pairs of attention."""

    tokens: int
    area: int

    def price(self, pairs: int = PAIRS) -> float:
        """The cost as one number, in tokens: proportional to the seconds it takes.

        Args:
            pairs: query-key pairs that cost as much as one token; about 3 times the width of a model. (A block spends about
                24 width^2 operations on a token and 4 width on a pair, and attention runs at about half the speed.)
        """
        return self.tokens + self.area / pairs


def total(costs: Sequence[Cost], members: Sequence[int]) -> Cost:
    """The cost of a micro-batch: the sum over its members, given as indexes into `costs`."""
    return Cost(sum(costs[index].tokens for index in members), sum(costs[index].area for index in members))


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


def pack(costs: Sequence[Cost], token_budget: int, area_budget: int | None = None) -> list[list[int]]:
    """Micro-batches of at most `token_budget` tokens and `area_budget` pairs, by best-fit decreasing.

    Trees are taken from the longest to the shortest, and each goes to the fullest micro-batch that still has room (of equally full
    ones, the one with the least attention). A tree above a budget gets a micro-batch of its own: refusing or cutting it is
    rendering's decision, made earlier and reported.

    Args:
        costs: one for each tree.
        token_budget: tokens that a micro-batch may hold.
        area_budget: query-key pairs that it may hold. The default, `PAIRS` for each token of the budget, lets attention cost as
            much as everything else in a full micro-batch: of two full ones, none is more than twice as expensive as the other,
            unless one tree alone is.

    Returns:
        Indexes into `costs`, each exactly once. The heaviest micro-batch stands first, so that memory that does not suffice
        shows at once; within a micro-batch the order is that of `costs`.
    """
    limit = token_budget * PAIRS if area_budget is None else area_budget
    micro: list[list[int]] = []
    rooms: list[tuple[int, int, int]] = []  # (tokens left, area so far, which micro-batch), kept sorted
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index].tokens, -costs[index].area, index)):
        tokens, area = costs[index]
        place = _room(rooms, tokens, limit - area)
        if place is not None:
            left, filled, chosen = rooms.pop(place)
        else:
            left, filled, chosen = token_budget, 0, len(micro)
            micro.append([])
        micro[chosen].append(index)
        if left - tokens > 0 and filled + area < limit:
            insort(rooms, (left - tokens, filled + area, chosen))
    heavy = [total(costs, batch) for batch in micro]
    order = sorted(range(len(micro)), key=lambda which: (-heavy[which].tokens, -heavy[which].area, min(micro[which])))
    return [sorted(micro[which]) for which in order]


LOOK = 64  # micro-batches with too much attention that are passed over before a new one is begun


def _room(rooms: list[tuple[int, int, int]], tokens: int, area: int) -> int | None:
    """The first place in `rooms` with room for `tokens` and no more than `area` in it."""
    first = bisect_left(rooms, (tokens, -1, -1))
    return next((place for place in range(first, min(first + LOOK, len(rooms))) if rooms[place][1] <= area), None)


def deal(costs: Sequence[float], world: int) -> list[list[int]]:
    """The micro-batches of one optimizer step, dealt evenly to ranks that work side by side.

    From the most to the least expensive, each goes to the rank with the least to do so far (longest processing time first: the
    busiest rank has at most 4/3 of the work of the best deal). Every rank gets one before any gets two.

    Source: Graham 1969, Bounds on multiprocessing timing anomalies.

    Args:
        costs: of each micro-batch, in any unit (`Cost.price`).
        world: how many ranks.

    Returns:
        For each rank, indexes into `costs`, rising; some ranks have none where there are fewer micro-batches than ranks.

    Raises:
        ConfigurationError: `world` is below 1.
    """
    _positive("world", world)
    dealt: list[list[int]] = [[] for _ in range(world)]
    waiting = [(0.0, 0, rank) for rank in range(world)]
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        load, held, rank = heappop(waiting)
        dealt[rank].append(index)
        heappush(waiting, (load + costs[index], held + 1, rank))
    return [sorted(mine) for mine in dealt]


def steps(
    trees: Sequence[Tree], *, batch_size: int, token_budget: int, seed: int, epoch: int, order: Sequence[int] | None = None
) -> list[list[list[int]]]:
    """The plan of one epoch: optimizer steps, each a list of micro-batches, each a list of indexes into `trees`.

    The order of the epoch is drawn from (seed, epoch), unless it is given. `batch_size` consecutive trees make one step; the last
    step may be smaller and is kept.

    Args:
        trees: everything that is trained on, in the order of the rows.
        batch_size: trees an optimizer step.
        token_budget: tokens a micro-batch.
        seed: the seed of the run.
        epoch: counted from 0.
        order: every index once, in the order of the epoch.

    Raises:
        ConfigurationError: `batch_size` or `token_budget` is below 1.
    """
    costs = [cost(tree) for tree in trees]
    return plan(costs, batch_size=batch_size, token_budget=token_budget, seed=seed, epoch=epoch, order=order)


def plan(
    costs: Sequence[Cost], *, batch_size: int, token_budget: int, seed: int, epoch: int, order: Sequence[int] | None = None
) -> list[list[list[int]]]:
    """`steps` for costs that are already known: they are the same in every epoch."""
    _positive("batch_size", batch_size)
    _positive("token_budget", token_budget)
    order = shuffled(len(costs), seed, "order", epoch) if order is None else order
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
