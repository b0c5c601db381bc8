"""KTO: raise answers that were found desirable and lower the others, one by one and without pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import Field

from tunewright.data.forest import Segment, Tree
from tunewright.data.packing import batches_for
from tunewright.data.rows import JudgedRow, PreferenceRow, Row, judged_text
from tunewright.objectives import Reading, Task
from tunewright.objectives._preference import BUDGET, answers_in, of_the_base, planted_answers, with_base
from tunewright.objectives._reference import Part, ReferredObjective

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss

DESIRABLE, UNDESIRABLE, MISMATCHED = 1.0, 0.0, -1.0
"""The second of an answer's values, behind the base's log-probability; the third is the step's reference point."""


class Judged(NamedTuple):
    """The judged answers of a batch, in the order of its rows, all [A], float32.

    Args:
        log_A: log p(answer | prompt); differentiable.
        gain_A: log_A less the same under the base.
        desirable_A: whether it was found desirable.
        point_A: the reference point that it is measured from.
    """

    log_A: Tensor
    gain_A: Tensor
    desirable_A: Tensor
    point_A: Tensor


class KTO(ReferredObjective):
    """Values answers as people value gains and losses: by how far they stand above or below a reference point.

    With g = log p(y | x) - log p_base(y | x): a desirable answer costs desirable_weight (1 - sigmoid(beta (g - z))), an undesirable
    one undesirable_weight (1 - sigmoid(beta (z - g))). The reference point z = max(0, mean of g over mismatched pairs) estimates
    the KL of the model to the base; no gradient flows through it. `apo_zero_unpaired` is the same with z = 0.

    Mismatched pairs: each prompt is paired with the answers of the row before it that has another prompt, so all answers take part
    equally, the pairing depends on the rows alone, and the base's part of it is computed once. z is that of a whole optimizer step:
    it is computed before the step's first micro-batch, by a pass without gradients, and carried by the trees, so that cutting a
    step changes nothing. (TRL takes it of each micro-batch; on a batch in the order of the rows both are the same.) Mismatched
    answers end where the longest row ends. In a bank of several tunings z is that of the batch.

    Source: Ethayarajh et al., arXiv 2402.01306, equations 7 and 8; D'Oosterlinck et al., arXiv 2408.06266 (APO-zero); as in TRL.
    Cost: one pass over prompt and answer, and one without gradients over prompt and mismatched answer (not for
    `apo_zero_unpaired`); the base's log-probabilities are computed once. No parameters of its own: the method's.
    Use when: single answers were judged (thumbs up or down), or one kind is rare: give it the larger weight, so that weight times
    count is between 1:1 and 4:3. Avoid when: there are clean pairs (`dpo`).
    Raises: nothing of its own; rows without an answer are refused. A pair counts as one desirable and one undesirable answer.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (JudgedRow, PreferenceRow)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    task: ClassVar[Task] = "preference"
    pace: ClassVar[float] = 0.1  # as for pairs

    beta: float = Field(default=0.1, gt=0, description="how strongly the model is held to the base; less lets it move further")
    loss_type: Literal["kto", "apo_zero_unpaired"] = Field(default="kto", description="measured from the KL, or from zero")
    desirable_weight: float = Field(default=1.0, ge=0, description="weight of answers that were found desirable")
    undesirable_weight: float = Field(default=1.0, ge=0, description="weight of the others")

    @property
    def reads(self) -> bool:
        return True

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        return [_planted(row, number, renderer) for number, row in enumerate(rows)]

    def prepare(self, engine: Engine, trees: Sequence[Tree]) -> list[Tree]:
        """The trees with the answers that they are mismatched with, and with the base's log-probabilities of all of them."""
        own = [_only(tree, mismatched=False) for tree in trees]
        joined = engine.model.kind == "decoder"
        return with_base(engine, own if self.loss_type == "apo_zero_unpaired" else with_mismatched(own, joined=joined))

    def part_of(self, engine: Engine, trees: Sequence[Tree]) -> Part:
        import torch

        paired = [_only(tree, mismatched=True) for tree in trees if any(map(_mismatched, tree.segments))]
        if not paired:
            return Part(0.0, 0.0)
        with torch.no_grad():
            found = answers_in(engine, engine.collate(paired))
        return Part(float((found.log_A - found.base_A).double().sum()), float(len(found.log_A)))

    def point(self, whole: Part) -> float:
        mean = whole.total / whole.values if whole.values else 0.0
        return max(0.0, mean) if math.isfinite(mean) else math.nan

    def referred(self, trees: Sequence[Tree], point: float) -> list[Tree]:
        return [_from(_only(tree, mismatched=False), point) for tree in trees]

    def costs(self, judged: Judged) -> Tensor:
        """The loss of each answer, [A]."""
        import torch

        sign_A = torch.where(judged.desirable_A, 1.0, -1.0)
        weight_A = torch.where(judged.desirable_A, self.desirable_weight, self.undesirable_weight)
        return weight_A * torch.sigmoid(-self.beta * sign_A * (judged.gain_A - judged.point_A))

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        from tunewright.engine.loss import Loss

        costs_A = self.costs(judged_in(engine, batch))
        return Loss(costs_A.sum(), costs_A.new_tensor(float(len(costs_A))))

    def readings(self, engine: Engine, renderer: Renderer, rows: Sequence[Row]) -> list[Reading]:
        """For each row on which side of the reference point its answer stands; of a pair, which answer the model prefers."""
        from tunewright.data.rendering import Refusal

        planted = [item for item in self.plant(rows, renderer) if not isinstance(item, Refusal)]
        trees = self.prepare(engine, [item.tree for item in planted])
        batches = batches_for(trees, BUDGET)
        parts = [self.part_of(engine, [trees[index] for index in chosen]) for chosen in batches]
        whole = Part(math.fsum(part.total for part in parts), sum(part.values for part in parts))
        trees = self.referred(trees, self.point(whole))
        found: dict[int, Reading] = {}
        for chosen in batches:
            judged = judged_in(engine, engine.collate([trees[index] for index in chosen]), of_trees=True)
            columns = (judged.log_A, judged.gain_A, judged.point_A, self.costs(judged))
            numbers = zip(*(column_A.tolist() for column_A in columns), strict=True)
            for index in chosen:
                row = rows[planted[index].row]
                each = [next(numbers) for _ in range(len(trees[index].segments) - 1)]
                found[planted[index].row] = self._reading(row, each)
        return [found.get(number, Reading("")) for number in range(len(rows))]

    def _reading(self, row: Row, each: Sequence[tuple[float, float, float, float]]) -> Reading:
        """What (log p, gain, reference point, cost) of a row's answers say."""
        cost = sum(numbers[3] for numbers in each) / len(each)
        loss = None if math.isnan(cost) else cost
        if isinstance(row, PreferenceRow):
            (chosen, gain, _, _), (rejected, other, _, _) = each
            details = {"preference": chosen - rejected} | ({} if loss is None else {"margin": gain - other})
            return Reading(row.chosen if chosen > rejected else row.rejected, loss, 1, details=details)
        assert isinstance(row, JudgedRow)
        _, gain, point, _ = each[0]
        if loss is None:
            return Reading("")
        details = {"gain": gain, "reference_point": point}
        confidence = 1 / (1 + math.exp(-min(self.beta * abs(gain - point), 700)))
        return Reading(judged_text(row.completion, gain > point), loss, 1, confidence, details)


def judged_in(engine: Engine, batch: Batch, *, of_trees: bool = False) -> Judged:
    """The judged answers of a batch.

    Trees that carry no reference point (a look at a few steps, a bank) are measured from that of their own mismatched answers.

    Args:
        of_trees: take the base's part as the trees have it, even where they have none.
    """
    found = answers_in(engine, batch)
    values_AK = batch.values_SK[found.segments_A]
    base_A = found.base_A
    if not of_trees and bool(base_A.isnan().any()):
        base_A = of_the_base(engine, batch)
    gain_A, kind_A = found.log_A - base_A, values_AK[:, 1]
    own_A = kind_A != MISMATCHED
    if values_AK.shape[1] > 2:
        point_A = values_AK[own_A, 2]
    else:
        other_A = gain_A[~own_A].detach()
        point_A = (other_A.mean().clamp_min(0) if len(other_A) else gain_A.new_zeros(())).expand(int(own_A.sum()))
    return Judged(found.log_A[own_A], gain_A[own_A], kind_A[own_A] == DESIRABLE, point_A)


def with_mismatched(trees: Sequence[Tree], *, joined: bool) -> list[Tree]:
    """The trees, each with the answers of the one before it that has another prompt, the last one standing before the first.

    Where all prompts are the same, with those of the one before it; one tree alone stays as it is.

    Args:
        joined: prompt and answer stand in one sequence, so that a long prompt leaves less room for an answer.
    """
    paths = [max(len(answer.tokens) for answer in tree.segments[1:]) + joined * len(tree.segments[0].tokens) for tree in trees]
    longest = max(paths, default=0)
    before = _other_prompts(trees)
    found = []
    for tree, place in zip(trees, before, strict=True):
        root, *own = tree.segments
        room = longest - joined * len(root.tokens)
        others = [] if place is None else trees[place].segments[1:]
        extra = (
            replace(answer, tokens=answer.tokens[:room], targets=answer.targets[:room], values=(math.nan, MISMATCHED), row=root.row)
            for answer in others
        )
        found.append(Tree((root, *own, *extra)))
    return found


def _other_prompts(trees: Sequence[Tree]) -> list[int | None]:
    """For each tree the one before it, in a circle, that has another prompt; else the one before it; None of one alone."""
    count = len(trees)
    found: list[int | None] = [None] * count
    nearest: int | None = None
    for place in range(2 * count):  # the second round knows what stands before the first tree
        here, last = place % count, (place - 1) % count
        if trees[here].segments[0].tokens != trees[last].segments[0].tokens:
            nearest = last
        if nearest is not None:
            found[here] = nearest
    return found if nearest is not None else [(here - 1) % count if count > 1 else None for here in range(count)]


def _planted(row: Row, number: int, renderer: Renderer) -> Rendered | Refusal:
    from tunewright.data.rendering import Refusal

    if not isinstance(row, JudgedRow | PreferenceRow):
        return Refusal("shape", f"a row of shape '{row.shape}' holds no answer that was judged", row.where, number)
    planted = planted_answers(row, number, renderer)
    if isinstance(planted, Refusal):
        return planted
    kinds = (DESIRABLE, UNDESIRABLE) if isinstance(row, PreferenceRow) else (DESIRABLE if row.label else UNDESIRABLE,)
    root, *answers = planted.tree.segments
    judged = (replace(answer, values=(math.nan, kind)) for answer, kind in zip(answers, kinds, strict=True))
    return replace(planted, tree=Tree((root, *judged)))


def _mismatched(segment: Segment) -> bool:
    return len(segment.values) > 1 and segment.values[1] == MISMATCHED


def _only(tree: Tree, *, mismatched: bool) -> Tree:
    """The prompt with its own answers, or with the others."""
    root, *answers = tree.segments
    return Tree((root, *(answer for answer in answers if _mismatched(answer) == mismatched)))


def _from(tree: Tree, point: float) -> Tree:
    root, *answers = tree.segments
    return Tree((root, *(replace(answer, values=(*answer.values[:2], point)) for answer in answers)))
