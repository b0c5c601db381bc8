"""Classification: choose one label for a text, with a new head or with label words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tunewright.core.errors import ConfigurationError
from tunewright.data.forest import Tree
from tunewright.data.rows import LabelRow, Row, SoftLabelRow
from tunewright.objectives import Guess, Reading, Task
from tunewright.objectives._heads import (
    AskedPooling,
    HeadObjective,
    decided_pooling,
    drawn_by,
    known_labels,
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


class Classification(HeadObjective):
    """Minimises the cross-entropy of the right label.

    `head: new` puts a linear layer on the pooled last hidden state, p(y | x) = softmax(W pool(h) + b); `head: words` has the
    language model write the label after the text and compares how probable it finds each label. `auto`: new on encoders, words
    on decoders and encoder-decoders.

    A row with a probability for each label (`tunewright label` writes such) is learned as that distribution: - sum over labels
    of p(label) log p(label | x). With label words each label is a continuation of the text, learned with its probability as weight.
    Probabilities that a teacher gave at a `temperature` t (`tunewright answer`, `--probabilities`) are learned by a new head at the
    same one: its logits are divided by t on such rows, and their loss multiplied by t^2.

    Source: Devlin et al., "BERT", arXiv 1810.04805 (new head); Schick and Schuetze, "PET", arXiv 2001.07676 (label words);
    Ratner et al., "Data programming", arXiv 1605.07723 (probabilities as targets); Hinton et al., arXiv 1503.02531 (temperature).
    Cost: `new` adds width * labels parameters; `words` adds none and reads the text once for all labels.
    Use when: every row has exactly one label. Avoid when: several labels may hold at once: `multi_label_classification`.
    Raises: `ConfigurationError` when label words are asked of an encoder.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (LabelRow,)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
    task: ClassVar[Task] = "classification"
    learns: ClassVar[str] = "one label a row"

    head: Literal["auto", "new", "words"] = Field(default="auto", description="a new head, or label words")
    pooling: AskedPooling = Field(default="auto", description="which hidden states the new head reads")
    head_dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before the new head's last layer")
    labels: tuple[str, ...] = Field(default=(), description="the labels in order; found in the training rows when empty")
    temperature: float = Field(default=1.0, gt=0, le=100, description="at which a teacher gave the probabilities of labels")

    def resolve(self, kind: str) -> Classification:
        """The same with `auto` decided for a decoder, an encoder or an encoder-decoder."""
        head = self.head if self.head != "auto" else "new" if kind == "encoder" else "words"
        if head == "words" and kind == "encoder":
            raise ConfigurationError(
                "an encoder writes no words, so it cannot use label words", where="objective.head", hint="Use `head: new`."
            )
        if head == "words" and self.temperature != 1:
            problem = "label words are learned as texts, which have no temperature"
            raise ConfigurationError(problem, where="objective.temperature", hint="Use `head: new`, or probabilities at 1.")
        if head == "new":
            refuse_encoder_decoder(kind, "Use `head: words`.")
        return self.model_copy(update={"head": head, "pooling": pooling_for(self.pooling, kind)})

    def decided(self, kind: str, rows: Sequence[Row]) -> Classification:
        labels = known_labels(self.labels, _with_all_labels(rows))
        return self.resolve(kind).model_copy(update={"labels": labels})

    @property
    def with_head(self) -> bool:
        """Whether a new head is trained (after `resolve`)."""
        return self.head == "new"

    def label_names(self) -> tuple[str, ...]:
        return self.labels

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        if not self.with_head:
            found = renderer.examples_of(rows)
            return [_weighed(item, rows[item.row], renderer, self.labels) for item in found]
        index = {label: number for number, label in enumerate(self.labels)}
        return [_labelled(row, number, renderer, index) for number, row in enumerate(rows)]

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        if not self.with_head:
            return engine.language_loss(batch)
        from torch.nn.functional import cross_entropy

        from tunewright.engine.loss import Loss

        logits_SC = engine.label_logits(batch)
        total = cross_entropy(logits_SC, batch.labels_S, reduction="sum", ignore_index=-1)
        count = (batch.labels_S >= 0).sum()
        if batch.values_SK.shape[1]:
            wanted_SC = batch.values_SK[:, : logits_SC.shape[1]]
            soft_S = ~wanted_SC.isnan().any(dim=1)
            apart = -(wanted_SC[soft_S] * (logits_SC[soft_S] / self.temperature).log_softmax(dim=1)).sum()
            total = total + self.temperature**2 * apart
            count = count + soft_S.sum()
        return Loss(total, count.to(total.dtype))

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> Head | None:
        if not self.with_head:
            return None
        from tunewright.models.heads.classification import ClassificationHead

        pooling = decided_pooling(self.pooling)
        return ClassificationHead(model.width, labels, drawn_by(seed), pooling=pooling, dropout=self.head_dropout)

    def read(self, engine: Engine, renderer: Renderer, row: Row, outputs: Sequence[Tensor]) -> Reading:
        (logits_C,) = outputs
        found = most_probable(logits_C.log_softmax(dim=0), self.labels, row)
        if self.temperature == 1 or not isinstance(row, SoftLabelRow):
            return found
        softened = most_probable((logits_C / self.temperature).log_softmax(dim=0), self.labels, row)
        return replace(found, loss=None if softened.loss is None else self.temperature**2 * softened.loss)

    def guess(self, rows: Sequence[Row]) -> Guess:
        counts = Counter(label for row in rows for label in row.classes())
        most = min(counts, key=lambda label: (-counts[label], label))
        note = "always answering the most frequent label: the base has no head for these labels"
        return Guess("majority label", note, lambda _: most)

    def asked(self, prompt: str) -> Row:
        return LabelRow(text=prompt, label="")


def most_probable(log_probabilities_C: Tensor, labels: Sequence[str], row: Row) -> Reading:
    """The most probable of some labels, by the head or as words, with the loss of the row's own, or of its distribution."""
    best = int(log_probabilities_C.argmax())
    wanted = _shares(row, labels)
    loss = None
    if wanted:
        loss = -sum(share * float(log_probabilities_C[place]) for place, share in wanted.items())
    return Reading(labels[best], loss, 1, float(log_probabilities_C[best].exp()))


def _shares(row: Row, labels: Sequence[str]) -> dict[int, float]:
    """By the index of a label how much of the row is of it, where that is above 0; empty if one of them has no place."""
    held = row.distribution if isinstance(row, SoftLabelRow) else {row.label: 1.0} if isinstance(row, LabelRow) else {}
    held = {label: share for label, share in held.items() if share > 0}
    return {labels.index(label): share for label, share in held.items()} if all(label in labels for label in held) else {}


def _with_all_labels(rows: Sequence[Row]) -> list[Row]:
    """The rows, and a certain one for each label of an uncertain row: a label that is nowhere the likeliest has a place too."""
    soft = (row for row in rows if isinstance(row, SoftLabelRow))
    return [
        *rows,
        *(
            LabelRow(text="", label=label, where=row.where)
            for row in soft
            for label, share in row.distribution.items()
            if share > 0
        ),
    ]


def _weighed(item: Rendered | Refusal, row: Row, renderer: Renderer, labels: Sequence[str]) -> Rendered | Refusal:
    """An uncertain row as its text with every label behind it, each learned as much as it is probable; others as they are."""
    from tunewright.data.rendering import Refusal, RowRefused

    if isinstance(item, Refusal) or not isinstance(row, SoftLabelRow):
        return item
    shares = _shares(row, labels)
    if not shares:
        return Refusal("shape", "the row gives a probability to a label that is not among the objective's", row.where, item.row)
    try:
        root, *options = renderer.options(row, [labels[place] for place in shares]).segments
    except RowRefused as error:
        return replace(error.refusal, where=row.where, row=item.row)
    learned = (
        replace(option, row=item.row, targets=tuple(row.weight * share * weight for weight in option.targets))
        for option, share in zip(options, shares.values(), strict=True)
    )
    return replace(item, tree=Tree((replace(root, row=item.row), *learned)))


def _labelled(row: Row, number: int, renderer: Renderer, index: dict[str, int]) -> Rendered | Refusal:
    """The text of row `number` with the index of its label on its segment (none for a label that has no place)."""
    from tunewright.data.rendering import Refusal

    if not isinstance(row, LabelRow):
        return Refusal("shape", f"a row of shape '{row.shape}' has no label", row.where, number)
    found = text_tree(row, number, renderer)
    if isinstance(found, Refusal):
        return found
    (segment,) = found.tree.segments
    if isinstance(row, SoftLabelRow):
        shares = _shares(row, tuple(index))
        values = tuple(shares.get(place, 0.0) for place in range(len(index))) if shares else ()
        return said(found, replace(segment, values=values), number)
    return said(found, replace(segment, label=index.get(row.label)), number)
