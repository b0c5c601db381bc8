"""Supervised fine-tuning: learn to write the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tunewright.data.rows import ChatRow, PromptRow, Row, TextRow
from tunewright.objectives import Objective

if TYPE_CHECKING:
    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss


class SFT(Objective):
    """Minimises the cross-entropy of the answer's tokens, given what stands before them.

    total = - sum over trained tokens t of w_t log p(x_t | x_<t), count = sum of w_t; the step's loss is total / count over all
    its rows, so long answers weigh by their tokens and a step cut into micro-batches gives the same gradient.

    Source: Ouyang et al., "InstructGPT", arXiv 2203.02155, section 3 (supervised policy).
    Cost: one forward and backward pass a row; the head runs at trained tokens only.
    Use when: there are examples of good answers. Avoid when: only comparisons or scores of answers exist.
    Raises: nothing of its own; rows without a trained token are refused by the renderer.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (PromptRow, ChatRow, TextRow)
    metrics: ClassVar[tuple[str, ...]] = ("exact_match", "rouge1", "rouge2", "rouge_l", "bleu", "chrf")

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        return renderer.examples_of(rows)

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        return engine.language_loss(batch)
