"""Reward models: a number for an answer, learned from which of several answers somebody liked better."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tunewright.core.errors import BaseModelError
from tunewright.data.packing import batches_for
from tunewright.data.rows import ChatRow, JudgedRow, Message, PreferenceRow, RankingRow, RatingRow, Row, order_text
from tunewright.data.sharing import shared
from tunewright.objectives import Guess, Objective, Reading, Task
from tunewright.objectives._heads import BUDGET, drawn_by
from tunewright.objectives._preference import planted_answers

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.models import Model
    from tunewright.models.heads import Head


class Reward(Objective):
    """Gives better answers higher numbers, learned from pairs and from rankings of any length.

    With r_1 > ... > r_k the rewards of the answers to one prompt in the order somebody put them into: the cost is minus the log
    probability of that order under Plackett and Luce, sum over i < k of log(sum over j >= i of exp(r_j)) - r_i; for two answers
    that is Bradley and Terry's -log sigmoid(r_1 - r_2). A row with a `margin` wants r_1 - r_2 above it. `centering` c adds
    c (r_1 + ... + r_k)^2, which fixes the zero that comparisons leave open.

    Source: Bradley and Terry 1952; Plackett 1975; Ouyang et al., "InstructGPT", arXiv 2203.02155; margins: "Llama 2", arXiv
    2307.09288; centering: Eisenstein et al., arXiv 2312.09244.
    Cost: width + 1 parameters; one pass over each prompt and all its answers, no pass through a language head.
    Use when: answers are to be judged, ranked or searched, or a policy is to be trained against the judgement. Avoid when: the
    pairs themselves should shape the model (`dpo`).
    Raises: `BaseModelError` for a base that is no decoder: a prompt is read once for all its answers. Ratings with ties put no
    order on all answers, so such rows are refused; make pairs of them (`data.pairs`).
    """

    rows: ClassVar[tuple[type[Row], ...]] = (PreferenceRow, RankingRow)
    metrics: ClassVar[tuple[str, ...]] = ("pair_accuracy", "expected_calibration_error", "brier_score")
    task: ClassVar[Task] = "reward"
    writes: ClassVar[bool] = False
    learns: ClassVar[str] = "which answer is better"

    centering: float = Field(default=0.0, ge=0, description="weight of the squared sum of a prompt's rewards")
    head_dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout before the head")

    @property
    def with_head(self) -> bool:
        return True

    def decided(self, kind: str, rows: Sequence[Row]) -> Reward:
        if kind != "decoder":
            problem = "a reward model reads a prompt once for all its answers, which only a decoder can"
            raise BaseModelError(problem, where="base", hint="Take a decoder (`--base embedded`).")
        return self

    def label_names(self) -> tuple[str, ...]:
        return ("reward",)

    def guess(self, rows: Sequence[Row]) -> Guess:
        return Guess("coin", "a coin: the base has no head for rewards", _tossed)

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> Head | None:
        from tunewright.models.heads.reward import RewardHead

        return RewardHead(model.width, generator=drawn_by(seed), dropout=self.head_dropout)

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        return [_planted(row, number, renderer) for number, row in enumerate(rows)]

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        from tunewright.engine.loss import Loss

        costs = [self.cost(rewards_K, margin) for rewards_K, margin in answers_of(engine, batch)]
        total = sum(costs[1:], costs[0])
        return Loss(total, total.new_tensor(float(len(costs))))

    def cost(self, rewards_K: Tensor, margin: float = 0.0) -> Tensor:
        """What one prompt's rewards cost; the best answer stands first.

        Args:
            rewards_K: of its answers, in the order of preference.
            margin: by how much the first must be above the second, of two.
        """
        if len(rewards_K) == 2:
            from torch.nn.functional import logsigmoid

            cost = -logsigmoid(rewards_K[0] - rewards_K[1] - margin)
        else:
            rest_K = rewards_K.flip(0).logcumsumexp(0).flip(0)  # of each answer and those behind it
            cost = (rest_K - rewards_K)[:-1].sum()
        return cost + self.centering * rewards_K.sum() ** 2 if self.centering else cost

    def readings(self, engine: Engine, renderer: Renderer, rows: Sequence[Row]) -> list[Reading]:
        """For each row the answer with the highest reward, or all answers by their rewards, and the probability that this is right.

        `details` holds the rewards in the row's own order, and for every pair of answers the probability of that order (`pairs`).
        """
        from tunewright.data.rendering import Refusal

        planted = [item for item in self.plant(rows, renderer) if not isinstance(item, Refusal)]
        trees, found = [item.tree for item in planted], {}
        for chosen in batches_for(trees, BUDGET):
            batch = engine.collate([trees[index] for index in chosen])
            for index, (rewards_K, margin) in zip(chosen, answers_of(engine, batch), strict=True):
                found[planted[index].row] = (rewards_K.tolist(), float(self.cost(rewards_K, margin)))
        return [_reading(row, *found[number]) if number in found else Reading("") for number, row in enumerate(rows)]


def answers_of(engine: Engine, batch: Batch) -> list[tuple[Tensor, float]]:
    """For each tree of a batch, in order: the rewards of its answers [K], float32, and the margin that its row asks for."""
    head = engine.member_of(batch).head
    if head is None:
        raise ValueError("this engine has no reward head")
    answers = batch.owners_N.unique()
    ends = batch.spans_S2[answers, 1] - 1
    with engine.autocast():
        hidden_ND = engine.hidden_at(batch, ends)
    rewards_N = head(hidden_ND, *_alone(len(answers), ends.device))[:, 0]
    sizes = batch.row_S[answers].unique_consecutive(return_counts=True)[1].tolist()
    margins = batch.values_SK[answers, 0].tolist() if batch.values_SK.shape[1] else [math.nan] * len(answers)
    firsts = [sum(sizes[:place]) for place in range(len(sizes))]
    asked = (0.0 if math.isnan(margins[first]) else margins[first] for first in firsts)
    return list(zip(rewards_N.split(sizes), asked, strict=True))


def rewards_of(engine: Engine, renderer: Renderer, asked: Sequence[tuple[Row, str]]) -> list[float | str]:
    """The reward of each answer to its row, rendered as the pairs were that the rewards were learned from; or why there is none.

    Answers to one prompt share it, and an answer that is given twice is read once.

    Args:
        asked: rows of any shape that asks for an answer (their own answers are not looked at), and answers.
    """
    from tunewright.data.rendering import RowRefused

    planted = {(id(row), answer): (row, answer) for row, answer in asked}
    found: dict[tuple[int, str], float | str] = {}
    keys, trees = list(planted), []
    for number, (row, answer) in enumerate(planted.values()):
        try:
            trees.append(renderer.branches(_conversation(row), (answer,), tools=_tools(row), row=number))
        except RowRefused as error:
            found[keys[number]] = error.refusal.message
    if engine.layout == "forest":
        trees = [one.tree for one in shared(trees, BUDGET, edges=engine.model.lanes.edges)]
    for chosen in batches_for(trees, BUDGET):
        batch = engine.collate([trees[index] for index in chosen])
        numbers = batch.row_S[batch.owners_N.unique()].tolist()
        rewards = (reward for rewards_K, _ in answers_of(engine, batch) for reward in rewards_K.tolist())
        found |= {keys[number]: reward for number, reward in zip(numbers, rewards, strict=True)}
    return [found[id(row), answer] for row, answer in asked]


def _conversation(row: Row) -> tuple[Message, ...]:
    """What was said before the answer that the row asks for."""
    if isinstance(row, PreferenceRow | JudgedRow | RankingRow):
        return row.messages
    if not isinstance(row, ChatRow):
        return (Message(role="user", content=row.input_text()),)
    last = max((place for place, one in enumerate(row.messages) if one.role == "assistant"), default=len(row.messages))
    return row.messages[:last]


def _tools(row: Row) -> tuple[dict[str, Any], ...]:
    return row.tools if isinstance(row, ChatRow | PreferenceRow | JudgedRow | RankingRow) else ()


def _alone(count: int, device: object) -> tuple[Tensor, Tensor, Tensor]:
    """Each hidden state as a segment of its own, the way heads take them."""
    import torch

    each = torch.arange(count, device=device)  # type: ignore[call-overload]
    return each, each, each


def _tossed(row: Row) -> str:
    """One of the two answers, or the answers in an order, drawn from the row's own hash: half of all pairs are right."""
    if isinstance(row, RankingRow):
        return order_text(random.Random(int(row.key(), 16)).sample(row.answers, len(row.answers)))
    assert isinstance(row, PreferenceRow)
    return row.chosen if int(row.key(), 16) % 2 else row.rejected


def _planted(row: Row, number: int, renderer: Renderer) -> Rendered | Refusal:
    from tunewright.data.rendering import Refusal

    if not isinstance(row, PreferenceRow | RankingRow):
        return Refusal("shape", f"a row of shape '{row.shape}' holds no answers in an order", row.where, number)
    if isinstance(row, RatingRow) and len(set(row.scores)) < len(row.scores):
        problem = "two answers have the same rating, so they stand in no order; pairs can be made of the others (`data.pairs`)"
        return Refusal("tie", problem, row.where, number)
    return _with_margin(planted_answers(row, number, renderer), row)


def _with_margin(planted: Rendered | Refusal, row: Row) -> Rendered | Refusal:
    from tunewright.data.rendering import Refusal

    margin = row.metadata.get("margin")
    if isinstance(planted, Refusal) or isinstance(margin, bool) or not isinstance(margin, int | float):
        return planted
    root, best, *others = planted.tree.segments
    return replace(planted, tree=replace(planted.tree, segments=(root, replace(best, values=(float(margin),)), *others)))


def _reading(row: Row, rewards: list[float], cost: float) -> Reading:
    """What the rewards say of a row whose best answer stands first; answers of one reward stand in the wrong order."""
    pairs = [_sigmoid(better - worse) for better, worse in itertools.combinations(rewards, 2)]
    details = {"rewards": rewards, "pairs": pairs}
    own = sorted(range(len(rewards)), key=lambda place: (-rewards[place], -place))
    if isinstance(row, PreferenceRow):
        return Reading((row.chosen, row.rejected)[own[0]], cost, 1, max(pairs[0], 1 - pairs[0]), details)
    assert isinstance(row, RankingRow)
    ordered = [rewards[place] for place in own]
    # Plackett and Luce's probability of the order that is given.
    rest = (ordered[place] - _log_sum(ordered[place:]) for place in range(len(ordered)))
    return Reading(order_text(row.answers[place] for place in own), cost, 1, math.exp(sum(rest)), details)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _log_sum(values: Sequence[float]) -> float:
    """log of the sum of exp; the largest stands first."""
    return values[0] + math.log(sum(math.exp(value - values[0]) for value in values))
