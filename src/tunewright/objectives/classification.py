"""Classification: choose one label for a text, with a new head or with label words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tunewright.core.errors import ConfigurationError
from tunewright.core.seeds import derive
from tunewright.data.forest import Tree
from tunewright.data.rows import LabelRow, Row
from tunewright.objectives import Objective

if TYPE_CHECKING:
    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.models import Model
    from tunewright.models.heads import ClassificationHead


class Classification(Objective):
    """Minimises the cross-entropy of the right label.

    `head: new` puts a linear layer on the pooled last hidden state, p(y | x) = softmax(W pool(h) + b); `head: words` has the
    language model write the label after the text and compares how probable it finds each label. `auto`: new on encoders, words
    on decoders and encoder-decoders.

    Source: Devlin et al., "BERT", arXiv 1810.04805 (new head); Schick and Schuetze, "PET", arXiv 2001.07676 (label words).
    Cost: `new` adds width * labels parameters; `words` adds none and reads the text once for all labels.
    Use when: every row has exactly one label. Avoid when: several labels may hold at once.
    Raises: `ConfigurationError` when label words are asked of an encoder.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (LabelRow,)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "macro_precision", "macro_recall")

    head: Literal["auto", "new", "words"] = Field(default="auto", description="a new head, or label words")
    pooling: Literal["auto", "mean", "first", "last"] = Field(default="auto", description="which hidden states the new head reads")
    head_dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before the new head's last layer")
    labels: tuple[str, ...] = Field(default=(), description="the labels in order; found in the training rows when empty")

    def resolve(self, kind: str) -> Classification:
        """The same with `auto` decided for a decoder, an encoder or an encoder-decoder."""
        head = self.head if self.head != "auto" else "new" if kind == "encoder" else "words"
        if head == "words" and kind == "encoder":
            raise ConfigurationError(
                "an encoder writes no words, so it cannot use label words", where="objective.head", hint="Use `head: new`."
            )
        if head == "new" and kind == "encoder_decoder":
            raise ConfigurationError(
                "a new head is not offered on an encoder-decoder", where="objective.head", hint="Use `head: words`."
            )
        pooling = self.pooling if self.pooling != "auto" else "mean" if kind == "encoder" else "last"
        return self.model_copy(update={"head": head, "pooling": pooling})

    @property
    def with_head(self) -> bool:
        """Whether a new head is trained (after `resolve`)."""
        return self.head == "new"

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        if not self.with_head:
            return renderer.examples_of(rows)
        index = {label: number for number, label in enumerate(self.labels)}
        return [_text(row, number, renderer, index) for number, row in enumerate(rows)]

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        if not self.with_head:
            return engine.language_loss(batch)
        from torch.nn.functional import cross_entropy

        from tunewright.engine.loss import Loss

        total = cross_entropy(engine.label_logits(batch), batch.labels_S, reduction="sum", ignore_index=-1)
        return Loss(total, (batch.labels_S >= 0).sum().to(total.dtype))

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> ClassificationHead | None:
        if not self.with_head:
            return None
        import torch

        from tunewright.models.heads import ClassificationHead

        if self.pooling == "auto":
            raise ConfigurationError("the pooling is not decided yet", where="objective.pooling", hint="Call `resolve` first.")
        generator = torch.Generator().manual_seed(derive(seed, "head"))
        return ClassificationHead(model.width, labels, generator, pooling=self.pooling, dropout=self.head_dropout)


def _text(row: Row, number: int, renderer: Renderer, index: dict[str, int]) -> Rendered | Refusal:
    """The text of row `number` with the index of its label on its segment (none for a label that has no place)."""
    from tunewright.data.rendering import Refusal, RowRefused

    if not isinstance(row, LabelRow):
        return Refusal("shape", f"a row of shape '{row.shape}' has no label", row.where, number)
    try:
        found = renderer.text(row, index.get(row.label))
    except RowRefused as error:
        return replace(error.refusal, where=row.where, row=number)
    (segment,) = found.tree.segments
    return replace(found, row=number, tree=Tree((replace(segment, row=number),)))
