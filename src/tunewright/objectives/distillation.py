"""Distillation: a student learns the distributions that a teacher has at every token of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tunewright.core.errors import BaseModelError
from tunewright.core.runs import settings_of
from tunewright.data.rows import ChatRow, PromptRow, Row, TextRow
from tunewright.models.sources import resolve
from tunewright.objectives import Objective

if TYPE_CHECKING:
    from tunewright.data.forest import Tree
    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.divergence import Goal, Measured
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.objectives._teacher import Kept

CLASSIFIERS = ("classification", "multi_label_classification", "regression", "token_classification", "question_answering", "reward")


class Distillation(Objective):
    """Brings the student's distribution q of the next token near the teacher's p, at the tokens of the answers.

    p and q are softmaxes of logits / `temperature` t. `forward_kl` is sum p log(p / q), `reverse_kl` is sum q log(q / p), and
    `jensen_shannon` is beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q, where beta 0 and 1 are defined as
    the forward and the reverse divergence. A token costs (1 - `sft_weight`) t^2 D - `sft_weight` log q(token), the last at t = 1;
    `squared: false` leaves t^2 out, as GKD and TRL do. With p = (0.5, 0.5), q = (0.25, 0.75): forward 0.1438, reverse 0.1308,
    and 0.0338 between them at beta 0.5.

    `top_k` keeps the teacher's k most probable tokens, asked for once a row. The others count as one more outcome, on both sides
    (`rest: together`), or p and q are divided by their sums over the k tokens (`rest: left_out`).

    Source: Hinton et al., arXiv 1503.02531 (temperature, t^2, mixing with labels); Agarwal et al., "GKD", arXiv 2306.13649.
    Cost: no parameters; a pass of the teacher without gradients over every batch, or over every row once (`top_k`), and two
    products of the head where `sft` has one. A base that both stand on is held once in memory.
    Use when: a better model of the same vocabulary is at hand. Avoid when: its vocabulary differs, or it is reached over a network:
    `tunewright answer` writes its answers, which `sft` learns; and for classifiers, whose probabilities it writes too.
    Raises: `BaseModelError` for a teacher that is not there, of another kind or vocabulary; `ConfigurationError` for a `top_k` that
    is not below the vocabulary.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (PromptRow, ChatRow, TextRow)
    metrics: ClassVar[tuple[str, ...]] = ("exact_match", "rouge1", "rouge2", "rouge_l", "bleu", "chrf")

    teacher: str = Field(min_length=1, description="a base, a run or an adapter of the same vocabulary")
    divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon"] = Field(
        default="forward_kl", description="how distance is measured; forward covers all the teacher may say, reverse its likeliest"
    )
    beta: float = Field(default=0.5, ge=0, le=1, description="of `jensen_shannon`: 0 is forward_kl, 1 is reverse_kl")
    temperature: float = Field(default=1.0, gt=0, le=100, description="what both logits are divided by")
    squared: bool = Field(default=True, description="multiply by the square of the temperature (Hinton); GKD and TRL do not")
    top_k: int | None = Field(default=None, ge=1, le=65536, description="most probable tokens of the teacher kept; null: all")
    rest: Literal["together", "left_out"] = Field(default="together", description="the other tokens, under `top_k`")
    sft_weight: float = Field(default=0.0, ge=0, le=1, description="share of the rows' own answers in the loss")

    def others(self) -> tuple[str, ...]:
        return (self.teacher,)

    def decided(self, kind: str, rows: Sequence[Row]) -> Objective:
        try:
            resolve(self.teacher)
        except BaseModelError as error:
            problem = f"the teacher '{self.teacher}' cannot be had: {error.problem}"
            told = {"allowed": error.allowed, "given": error.given, "hint": error.hint}
            raise BaseModelError(problem, where="objective.teacher", **told) from None
        tuned_for = (settings_of(self.teacher).get("objective") or {}).get("name")
        if tuned_for in CLASSIFIERS:
            problem = f"'{self.teacher}' was tuned for '{tuned_for}' and writes nothing"
            hint = (
                f"Let it answer first, and learn that: tunewright answer DATA --model {self.teacher} --probabilities --output FILE"
            )
            raise BaseModelError(problem, where="objective.teacher", hint=hint)
        return super().decided(kind, rows)

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        return renderer.examples_of(rows)

    def prepare(self, engine: Engine, trees: Sequence[Tree]) -> list[Tree]:
        """The trees as they are; the teacher is asked about them, where what it says is kept."""
        from tunewright.objectives import _teacher

        teacher = _teacher.teacher_of(engine, self.teacher)
        _teacher.require_room(teacher, trees, self.teacher)
        if self.top_k is not None:
            _teacher.remember(teacher, trees, self._kept(self.top_k), engine.model.vocabulary)
        return list(trees)

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        return self._measured(engine, batch).loss(batch.weights_N)

    def losses(self, engine: Engine, trees: Sequence[Tree]) -> list[tuple[float, int]] | None:
        from tunewright.data.packing import batches_for
        from tunewright.engine.loss import segment_sums
        from tunewright.objectives import _teacher

        try:
            _teacher.teacher_of(engine, self.teacher)
        except (BaseModelError, ValueError):
            return [(0.0, 0)] * len(trees)  # it stays unknown where the teacher is not at hand any more
        found = [(0.0, 0)] * len(trees)
        for chosen in batches_for(trees, _teacher.BUDGET):
            some = [trees[index] for index in chosen]
            batch = engine.collate(some)
            sums = iter(segment_sums(self._measured(engine, batch).costs_N, batch).tolist())
            for index, tree in zip(chosen, some, strict=True):
                found[index] = (sum(next(sums) for _ in tree.segments), tree.trained)
        return found

    def _measured(self, engine: Engine, batch: Batch) -> Measured:
        from tunewright.engine.divergence import divergence, divergence_of_logits

        goal = self._goal(engine, batch)
        with engine.autocast():
            if batch.source_BT is not None or engine.language_head is None:
                return divergence_of_logits(engine.target_logits(batch), goal)
            return divergence(engine.language_head, engine.hidden_at(batch, batch.rows_N), goal)

    def _goal(self, engine: Engine, batch: Batch) -> Goal:
        from tunewright.engine.divergence import Cost, Goal
        from tunewright.objectives import _teacher

        teacher = _teacher.teacher_of(engine, self.teacher)
        if self.top_k is None:
            said = _teacher.asked(teacher, batch)
        else:
            said = _teacher.remembered(teacher, batch, self._kept(self.top_k), engine.model.vocabulary)
        beta = {"forward_kl": 0.0, "reverse_kl": 1.0}.get(self.divergence, self.beta)
        factor = (1 - self.sft_weight) * (self.temperature**2 if self.squared else 1.0)
        return Goal(batch.targets_N, batch.weights_N, said, Cost(beta, self.temperature, factor, self.sft_weight))

    def _kept(self, count: int) -> Kept:
        from tunewright.objectives._teacher import Kept

        return Kept(count, self.temperature, self.rest == "together")
