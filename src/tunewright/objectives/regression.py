"""Regression: predict a number, or several, from a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tunewright.core.errors import DataError
from tunewright.data.rows import NumberRow, Row, numbers_text
from tunewright.objectives import Guess, Reading, Task
from tunewright.objectives._heads import (
    AskedPooling,
    HeadObjective,
    decided_pooling,
    drawn_by,
    pooling_for,
    refuse_encoder_decoder,
    said,
    text_tree,
)

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.models import Model
    from tunewright.models.heads import Head

DIGITS = 6  # significant ones of an answer; float32 has seven


class Regression(HeadObjective):
    """Minimises the squared error of standardised targets, or Huber's loss of them.

    A linear layer on the pooled last hidden state predicts z = (y - mean) / deviation, with mean and deviation of the training
    rows, which are kept with the head. total = sum over rows and targets of (prediction - z)^2, count = rows * targets. `huber`:
    e^2 / 2 up to `delta`, beyond it delta * (|e| - delta / 2).

    Source: transformers' `problem_type="regression"` (parity tested); Huber 1964, "Robust estimation of a location parameter".
    Cost: width * targets + targets parameters.
    Use when: what is asked for is an amount on a scale. Avoid when: the numbers are names of classes.
    Raises: `ConfigurationError` on an encoder-decoder; `DataError` when all training rows have the same number.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (NumberRow,)
    metrics: ClassVar[tuple[str, ...]] = ("mean_absolute_error", "root_mean_squared_error", "r2", "pearson", "spearman")
    task: ClassVar[Task] = "regression"
    learns: ClassVar[str] = "the numbers of a row"

    error: Literal["squared", "huber"] = Field(default="squared", description="what is minimised of each error")
    delta: float = Field(default=1.0, gt=0, description="from which error on `huber` grows linearly, in standard deviations")
    pooling: AskedPooling = Field(default="auto", description="which hidden states the head reads")
    head_dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before the head's last layer")
    targets: tuple[str, ...] = Field(
        default=(), description="names of the numbers, in order; found in the training rows when empty"
    )
    means: tuple[float, ...] = Field(default=(), description="of the targets; those of the training rows when empty")
    deviations: tuple[float, ...] = Field(default=(), description="standard, of the targets; those of the training rows when empty")

    def decided(self, kind: str, rows: Sequence[Row]) -> Regression:
        refuse_encoder_decoder(kind)
        numbered = [row for row in rows if isinstance(row, NumberRow) and row.values]
        first = next(iter(numbered), None)
        width = len(self.targets or (first.values if first is not None else ()))
        found = [row.values for row in numbered if len(row.values) == width]
        named = self.targets or (first.names if first is not None else ()) or default_names(width)
        means = self.means or tuple(math.fsum(column) / len(found) for column in zip(*found, strict=True))
        deviations = self.deviations or tuple(_deviation(column) for column in zip(*found, strict=True))
        flat = [name for name, one in zip(named, deviations, strict=False) if one == 0]
        if flat and first is not None:
            hint = "There is nothing to predict. Is the right column read as the number?"
            raise DataError(f"every training row has the same {flat[0]}", where=first.where.rsplit(":", 1)[0], hint=hint)
        update = {"pooling": pooling_for(self.pooling, kind), "targets": named, "means": means, "deviations": deviations}
        return self.model_copy(update=update)

    def label_names(self) -> tuple[str, ...]:
        return self.targets

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        return [self._planted(row, number, renderer) for number, row in enumerate(rows)]

    def _planted(self, row: Row, number: int, renderer: Renderer) -> Rendered | Refusal:
        from tunewright.data.rendering import Refusal

        if not isinstance(row, NumberRow):
            return Refusal("shape", f"a row of shape '{row.shape}' has no number", row.where, number)
        if row.values and len(row.values) != len(self.targets):
            problem = f"the row has {len(row.values)} numbers, the targets are {len(self.targets)} ({', '.join(self.targets)})"
            return Refusal("shape", problem, row.where, number)
        found = text_tree(row, number, renderer)
        if isinstance(found, Refusal):
            return found
        (segment,) = found.tree.segments
        return said(found, replace(segment, values=row.values), number)

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        from tunewright.engine.loss import Loss
        from tunewright.models.heads.regression import RegressionHead

        head = engine.member_of(batch).head
        assert isinstance(head, RegressionHead)
        outputs_SC = engine.label_logits(batch)
        wanted_SC = batch.values_SK[:, : outputs_SC.shape[1]]
        known_SC = ~wanted_SC.isnan()
        total = self._errors(outputs_SC[known_SC], head.standardised(wanted_SC)[known_SC]).sum()
        return Loss(total, known_SC.sum().to(total.dtype))

    def _errors(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        from torch.nn.functional import huber_loss, mse_loss

        if self.error == "huber":
            return huber_loss(outputs, wanted, reduction="none", delta=self.delta)
        return mse_loss(outputs, wanted, reduction="none")

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> Head:
        from tunewright.models.heads.regression import RegressionHead

        pooling = decided_pooling(self.pooling)
        head = RegressionHead(model.width, labels, drawn_by(seed), pooling=pooling, dropout=self.head_dropout)
        head.settle({"means": self.means, "deviations": self.deviations})
        return head

    def read(self, engine: Engine, renderer: Renderer, row: Row, outputs: Sequence[Tensor]) -> Reading:
        from tunewright.models.heads.regression import RegressionHead

        assert isinstance(engine.head, RegressionHead)
        head, (output_C,) = engine.head, outputs
        numbers = [float(f"{one:.{DIGITS}g}") for one in head.numbers(output_C).tolist()]
        loss = None
        if isinstance(row, NumberRow) and len(row.values) == len(output_C):
            loss = float(self._errors(output_C, head.standardised(output_C.new_tensor(row.values))).mean())
        return Reading(numbers_text(numbers), loss, 1, details={"numbers": dict(zip(self.targets, numbers, strict=True))})

    def guess(self, rows: Sequence[Row]) -> Guess:
        text = numbers_text(float(f"{mean:.{DIGITS}g}") for mean in self.means)
        return Guess(
            "training mean", "always answering the mean of the training rows: the base has no head for numbers", lambda _: text
        )

    def asked(self, prompt: str) -> Row:
        return NumberRow(text=prompt, values=())


def default_names(count: int) -> tuple[str, ...]:
    """The names of numbers that the file does not name."""
    return ("number",) if count == 1 else tuple(f"number {place}" for place in range(1, count + 1))


def _deviation(column: Sequence[float]) -> float:
    mean = math.fsum(column) / len(column)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in column) / len(column))
