"""What objectives on answers that somebody compared share: a prompt with its answers as children, their log-probabilities, and
those of the base.

Shape suffixes: N targets, A answers, P pairs.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from tunewright.data.forest import Tree
from tunewright.data.packing import batches_for
from tunewright.data.rows import JudgedRow, PreferenceRow, RankingRow, Row
from tunewright.objectives import Objective, Reading, Task

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss

BUDGET = 4096  # tokens of one forward pass without gradients


class Answers(NamedTuple):
    """The answers of a batch one by one, in the order of its rows, all [A].

    Args:
        segments_A: which segment of the batch each answer is.
        log_A: log p(answer | prompt), summed over its tokens, float32; differentiable. count_A: its tokens.
        base_A: the same log-probability under the base, as the trees carry it; NaN where they do not.
    """

    segments_A: Tensor
    log_A: Tensor
    count_A: Tensor
    base_A: Tensor


class Pairs(NamedTuple):
    """The answers of a batch, all [P], float32.

    Args:
        chosen_P, rejected_P: log p(answer | prompt), summed over its tokens; differentiable.
        chosen_count_P, rejected_count_P: tokens of the answers.
        chosen_base_P, rejected_base_P: the same log-probabilities under the base; NaN where the objective does not ask for them.
    """

    chosen_P: Tensor
    rejected_P: Tensor
    chosen_count_P: Tensor
    rejected_count_P: Tensor
    chosen_base_P: Tensor
    rejected_base_P: Tensor

    @property
    def margin_P(self) -> Tensor:
        """How much more the answer that was chosen has gained over the base than the other: (c - c_base) - (r - r_base)."""
        return (self.chosen_P - self.chosen_base_P) - (self.rejected_P - self.rejected_base_P)

    @property
    def chosen_mean_P(self) -> Tensor:
        """log p of the chosen answer per token."""
        return self.chosen_P / self.chosen_count_P

    @property
    def rejected_mean_P(self) -> Tensor:
        """log p of the rejected answer per token."""
        return self.rejected_P / self.rejected_count_P


class PairObjective(Objective):
    """An objective on pairs: a subclass says what one pair costs.

    The prompt is the root of a tree and computed once for both answers. Where the base's log-probabilities are asked for, they are
    a constant of the row: computed once before training, with the tuning switched off, and carried by the tree.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (PreferenceRow,)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    task: ClassVar[Task] = "preference"
    pace: ClassVar[float] = 0.1  # at the rate of supervised tuning answers become unlikely one and all (docs/preferences.md)
    needs_base: ClassVar[bool] = True

    @abstractmethod
    def costs(self, pairs: Pairs) -> Tensor:
        """The loss of each pair, [P]."""

    def preference(self, pairs: Pairs) -> Tensor:
        """How much the model itself prefers the chosen answer, [P]; above zero where it agrees with whoever chose.

        By summed log-probabilities where the base is the yardstick of training, else per token, as the objective does.
        """
        return pairs.chosen_P - pairs.rejected_P if self.needs_base else pairs.chosen_mean_P - pairs.rejected_mean_P

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        return [_planted_pair(row, number, renderer) for number, row in enumerate(rows)]

    def prepare(self, engine: Engine, trees: Sequence[Tree]) -> list[Tree]:
        return with_base(engine, trees) if self.needs_base else list(trees)

    @property
    def reads(self) -> bool:
        return True

    def readings(self, engine: Engine, renderer: Renderer, rows: Sequence[Row]) -> list[Reading]:
        """For each row the answer that the model prefers, and what the pair costs; with the margin over the base in the details."""
        from tunewright.data.rendering import Refusal

        planted = [item for item in self.plant(rows, renderer) if not isinstance(item, Refusal)]
        trees = self.prepare(engine, [item.tree for item in planted])
        found = {}
        for chosen in batches_for(trees, BUDGET):
            pairs = pairs_of(engine, engine.collate([trees[index] for index in chosen]))
            columns = (self.preference(pairs), self.costs(pairs), pairs.margin_P)
            for index, *numbers in zip(chosen, *(column.tolist() for column in columns), strict=True):
                found[planted[index].row] = numbers
        return [_reading(row, found.get(number)) for number, row in enumerate(rows)]

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        from tunewright.engine.loss import Loss

        pairs = pairs_of(engine, batch)
        if self.needs_base and bool(pairs.margin_P.isnan().any()):
            base_P2 = of_the_base(engine, batch).view(-1, 2)
            pairs = pairs._replace(chosen_base_P=base_P2[:, 0], rejected_base_P=base_P2[:, 1])
        costs_P = self.costs(pairs)
        return Loss(costs_P.sum(), costs_P.new_tensor(float(len(costs_P))))


def _reading(row: Row, numbers: list[float] | None) -> Reading:
    if numbers is None or not isinstance(row, PreferenceRow):
        return Reading("")
    preference, cost, margin = numbers
    details = {"preference": preference} | ({} if math.isnan(margin) else {"margin": margin})
    loss = None if math.isnan(cost) else cost
    return Reading(row.chosen if preference > 0 else row.rejected, loss, 1, details=details)


def _planted_pair(row: Row, number: int, renderer: Renderer) -> Rendered | Refusal:
    from tunewright.data.rendering import Refusal

    if not isinstance(row, PreferenceRow):
        return Refusal("shape", f"a row of shape '{row.shape}' holds no pair of answers", row.where, number)
    return planted_answers(row, number, renderer)


def given(row: Row) -> tuple[str, ...]:
    """The answers that a row holds, the best one first; empty where it holds none that could be compared or judged."""
    if isinstance(row, PreferenceRow):
        return row.chosen, row.rejected
    if isinstance(row, RankingRow):
        return row.answers
    return (row.completion,) if isinstance(row, JudgedRow) else ()


def planted_answers(row: Row, number: int, renderer: Renderer) -> Rendered | Refusal:
    """Row `number` as a tree: the prompt, and a child for each of its answers, the best one first; or why it cannot be one."""
    from tunewright.data.rendering import Refusal, RowRefused

    answers = given(row)
    if not isinstance(row, PreferenceRow | RankingRow | JudgedRow):
        return Refusal("shape", f"a row of shape '{row.shape}' holds no answers to compare", row.where, number)
    if len({answer.strip() for answer in answers}) < len(answers):
        which = "the chosen and the rejected answer" if isinstance(row, PreferenceRow) else "two of the answers"
        return Refusal("equal_answers", f"{which} are the same", row.where, number)
    try:
        return replace(renderer.branched(row.messages, answers, tools=row.tools, row=number), where=row.where)
    except RowRefused as error:
        return replace(error.refusal, where=row.where, row=number)


def answers_in(engine: Engine, batch: Batch) -> Answers:
    """The answers of a batch: its segments with targets."""
    import torch

    from tunewright.engine.loss import segment_sums

    scores_N = engine.token_scores(batch).log_probability_N.float()
    segments_A = torch.unique(batch.owners_N)
    log_A = segment_sums(scores_N, batch)[segments_A]
    count_A = segment_sums(torch.ones_like(scores_N), batch)[segments_A]
    carried = batch.values_SK.shape[1] > 0
    base_A = batch.values_SK[segments_A, 0] if carried else scores_N.new_full((len(segments_A),), math.nan)
    return Answers(segments_A, log_A, count_A, base_A)


def pairs_of(engine: Engine, batch: Batch) -> Pairs:
    """The pairs of a batch whose trees have two answers each, in the order of its rows."""
    found = answers_in(engine, batch)  # chosen and rejected in turn
    columns = (column_A.view(-1, 2).unbind(1) for column_A in (found.log_A, found.count_A, found.base_A))
    return Pairs(*(side_P for pair in columns for side_P in pair))


def of_the_base(engine: Engine, batch: Batch) -> Tensor:
    """log p of each answer under the base, [A], computed now: for a look at a few steps, before it is worth preparing all rows.

    Raises:
        ValueError: the batch is shared by several tunings, or there is no base beside the tuning.
    """
    import torch

    disabled = engine.first.disabled
    if disabled is None or batch.origin is not None:
        raise ValueError("the trees do not carry the base's log-probabilities: call `prepare` first")
    with torch.no_grad(), disabled():
        return answers_in(engine, batch).log_A


def with_base(engine: Engine, trees: Sequence[Tree]) -> list[Tree]:
    """The trees, each answer carrying its log-probability under the base: the network with the engine's tuning switched off.

    It is a constant of the tokens, so what was computed once is remembered (validation asks again and again). Where the base can
    not be had any more, the trees stay as they are.
    """
    known, disabled = engine.first.of_base, engine.first.disabled
    if disabled is None:
        return list(trees)
    missing = [tree for tree in trees if _key(tree) not in known]
    if missing:
        with disabled(), engine.evaluating():
            for chosen in batches_for(missing, BUDGET):
                _remember(engine, [missing[index] for index in chosen])
    return [_carrying(tree, known[_key(tree)]) for tree in trees]


def _key(tree: Tree) -> tuple[tuple[int, ...], ...]:
    return tuple(segment.tokens for segment in tree.segments)


def _remember(engine: Engine, trees: Sequence[Tree]) -> None:
    from tunewright.engine.loss import segment_sums

    scores_N, batch = engine.score(trees)
    sums = iter(segment_sums(scores_N.float(), batch)[batch.owners_N.unique()].tolist())
    for tree in trees:
        engine.first.of_base[_key(tree)] = tuple(next(sums) for segment in tree.segments if any(segment.targets))


def _carrying(tree: Tree, bases: tuple[float, ...]) -> Tree:
    """The base's part stands first in what an answer carries."""
    waiting = iter(bases)
    return Tree(
        tuple(
            replace(segment, values=(next(waiting), *segment.values[1:])) if any(segment.targets) else segment
            for segment in tree.segments
        )
    )
