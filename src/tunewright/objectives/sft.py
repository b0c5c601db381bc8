"""Supervised fine-tuning: learn to write the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tunewright.core.errors import BaseModelError, ConfigurationError
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
    its rows, so long answers weigh by their tokens and a step cut into micro-batches gives the same gradient. w_t is the weight of
    the row times that of its message (0: only read; 0.5: half as much). A plain text among the rows is learned whole, as
    `language_modeling` learns it.

    `learn: whole` learns prompts too, as `language_modeling` does, each token with the weight of its row.
    `label_smoothing` e puts (1 - e) log p(x_t) + e mean_v log p(v) in place of log p(x_t), while training; losses are measured
    without it.

    Source: Ouyang et al., "InstructGPT", arXiv 2203.02155, section 3 (supervised policy); label smoothing: Szegedy et al., arXiv
    1512.00567, section 7.
    Cost: one forward and backward pass a row; the head runs at trained tokens only.
    Use when: there are examples of good answers. Avoid when: only comparisons or scores of answers exist.
    Raises: `BaseModelError` for plain text on a base that is no decoder; `ConfigurationError` for `learn: whole` on an
    encoder-decoder, which reads prompts and never writes them; rows without a trained token are refused by the renderer.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (PromptRow, ChatRow, TextRow)
    metrics: ClassVar[tuple[str, ...]] = ("exact_match", "rouge1", "rouge2", "rouge_l", "bleu", "chrf")

    learn: Literal["completion", "whole"] = Field(default="completion", description="what of a row is learned")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of each target that is spread over all tokens")

    def decided(self, kind: str, rows: Sequence[Row]) -> Objective:
        if kind != "decoder" and any(isinstance(row, TextRow) for row in rows):
            named = "masked_language_modeling" if kind == "encoder" else "span_corruption"
            problem = f"an {kind.replace('_', '-')} cannot learn plain text as an answer"
            raise BaseModelError(problem, where="objective", hint=f"Learn it with `objective: {named}`, or take a decoder.")
        if kind == "encoder_decoder" and self.learn == "whole":
            problem = "an encoder-decoder reads the prompt and never writes it, so it cannot be learned"
            raise ConfigurationError(
                problem, where="objective.learn", allowed=["completion"], hint="Leave it out, or take a decoder."
            )
        return super().decided(kind, rows)

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        return (renderer.learning_all() if self.learn == "whole" else renderer).examples_of(rows)

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        return engine.language_loss(batch, self.label_smoothing)
