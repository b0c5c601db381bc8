"""Multi-label classification: say of every label whether it holds for a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from tunewright.data.rows import LabelsRow, Row, labels_text
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
    import numpy as np
    from torch import Tensor

    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.models import Model
    from tunewright.models.heads import Head

DEFAULT_THRESHOLD = 0.5


class MultiLabelClassification(HeadObjective):
    """Minimises the binary cross-entropy of every label, each on its own.

    A linear layer on the pooled last hidden state gives p(c | x) = sigmoid(w_c pool(h) + b_c), and the label c is given where
    that reaches its threshold. total = - sum over rows and labels of [y log p + (1 - y) log (1 - p)], count = rows * labels.
    The best F1 of a label that is hardly recognised is that of giving it everywhere, so thresholds of their own raise macro F1
    and, on weak models, cost all else.

    Source: transformers' `problem_type="multi_label_classification"` (parity tested); Fan and Lin 2007, "A study on threshold
    selection for multi-label classification"; Lipton et al. 2014, arXiv 1402.1892 (thresholds that maximise F1).
    Cost: width * labels + labels parameters.
    Use when: several labels may hold at once, or none. Avoid when: every row has exactly one: `classification`.
    Raises: `ConfigurationError` on an encoder-decoder, and when labels are given that do not cover the rows.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (LabelsRow,)
    metrics: ClassVar[tuple[str, ...]] = (
        "multi_label_micro_f1",
        "multi_label_macro_f1",
        "subset_accuracy",
        "hamming_loss",
    )
    task: ClassVar[Task] = "multi_label"
    learns: ClassVar[str] = "a set of labels a row"

    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["validation", "validation_each"] = Field(
        default=DEFAULT_THRESHOLD,
        description="from which probability on a label is given; `validation`: one for all, with the best micro F1 there; "
        "`validation_each`: one for each label, with its best F1",
    )
    pooling: AskedPooling = Field(default="auto", description="which hidden states the head reads")
    head_dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before the head's last layer")
    labels: tuple[str, ...] = Field(default=(), description="the labels in order; found in the training rows when empty")

    def decided(self, kind: str, rows: Sequence[Row]) -> MultiLabelClassification:
        refuse_encoder_decoder(kind)
        return self.model_copy(update={"pooling": pooling_for(self.pooling, kind), "labels": known_labels(self.labels, rows)})

    def label_names(self) -> tuple[str, ...]:
        return self.labels

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        return [self._planted(row, number, renderer) for number, row in enumerate(rows)]

    def _planted(self, row: Row, number: int, renderer: Renderer) -> Rendered | Refusal:
        from tunewright.data.rendering import Refusal

        if not isinstance(row, LabelsRow):
            return Refusal("shape", f"a row of shape '{row.shape}' has no list of labels", row.where, number)
        found = text_tree(row, number, renderer)
        if isinstance(found, Refusal):
            return found
        (segment,) = found.tree.segments
        return said(found, replace(segment, values=tuple(float(label in row.labels) for label in self.labels)), number)

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        from torch.nn.functional import binary_cross_entropy_with_logits

        from tunewright.engine.loss import Loss

        logits_SC = engine.label_logits(batch)
        wanted_SC = batch.values_SK[:, : logits_SC.shape[1]]
        known_SC = ~wanted_SC.isnan()
        total = binary_cross_entropy_with_logits(logits_SC[known_SC], wanted_SC[known_SC], reduction="sum")
        return Loss(total, known_SC.sum().to(total.dtype))

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> Head:
        from tunewright.models.heads.multi_label import MultiLabelHead

        fixed = DEFAULT_THRESHOLD if isinstance(self.threshold, str) else self.threshold
        pooling = decided_pooling(self.pooling)
        head = MultiLabelHead(model.width, labels, drawn_by(seed), pooling=pooling, dropout=self.head_dropout)
        head.settle({"thresholds": (fixed,) * len(labels)})
        return head

    def read(self, engine: Engine, renderer: Renderer, row: Row, outputs: Sequence[Tensor]) -> Reading:
        from torch.nn.functional import logsigmoid

        from tunewright.models.heads.multi_label import MultiLabelHead

        assert isinstance(engine.head, MultiLabelHead)
        (logits_C,) = outputs
        chances = dict(zip(self.labels, logits_C.sigmoid().tolist(), strict=True))
        given = [label for label, least in zip(self.labels, engine.head.thresholds, strict=True) if chances[label] >= least]
        held = [1 if isinstance(row, LabelsRow) and label in row.labels else -1 for label in self.labels]
        loss = -float(logsigmoid(logits_C * logits_C.new_tensor(held)).mean())
        return Reading(
            labels_text(given), loss, 1, details={"probabilities": {name: round(one, 6) for name, one in chances.items()}}
        )

    def calibrate(self, engine: Engine, renderer: Renderer, rows: Sequence[Row]) -> None:
        if not isinstance(self.threshold, str):
            return
        import numpy as np

        from tunewright.models.heads.multi_label import MultiLabelHead

        assert isinstance(engine.head, MultiLabelHead)
        read = [(reading, row) for reading, row in zip(self.readings(engine, renderer, rows), rows, strict=True) if reading.details]
        if read:
            chances_RC = np.array([list(reading.details["probabilities"].values()) for reading, _ in read])
            held_RC = np.array([[label in row.classes() for label in self.labels] for _, row in read])
            if self.threshold == "validation":
                engine.head.settle({"thresholds": (best_threshold(chances_RC.ravel(), held_RC.ravel()),) * len(self.labels)})
                return
            each = zip(chances_RC.T, held_RC.T, strict=True)
            engine.head.settle({"thresholds": [best_threshold(chances_R, held_R) for chances_R, held_R in each]})

    def guess(self, rows: Sequence[Row]) -> Guess:
        counts = Counter(row.target_text() for row in rows)
        most = min(counts, key=lambda text: (-counts[text], text))
        return Guess(
            "majority set", "always answering the most frequent set of labels: the base has no head for them", lambda _: most
        )

    def asked(self, prompt: str) -> Row:
        return LabelsRow(text=prompt, labels=())


def best_threshold(chances_R: np.ndarray, held_R: np.ndarray) -> float:
    """The probability from which on giving a label has the best F1; of equal ones the nearest to 0.5, which it is without rows.

    Half way between neighbouring probabilities, so that it rests on no single row's last digit.
    """
    import numpy as np

    if not held_R.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-chances_R, kind="stable")
    sorted_R, hits_R = chances_R[order], np.cumsum(held_R[order])
    given_R = np.arange(1, len(order) + 1)
    f1_R = 2 * hits_R / (given_R + held_R.sum())
    below_R = np.append(sorted_R[1:], 0.0)
    f1_R[sorted_R == below_R] = -1.0  # no threshold stands between equal probabilities
    cuts_R = (sorted_R + below_R) / 2
    best = np.flatnonzero(f1_R >= f1_R.max() - 1e-12)
    return float(cuts_R[best[np.argmin(np.abs(cuts_R[best] - DEFAULT_THRESHOLD))]])
