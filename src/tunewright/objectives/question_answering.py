"""Extractive question answering: find the answer to a question in a text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pydantic import Field

from tunewright.core.errors import ConfigurationError
from tunewright.data.forest import Segment, Tree
from tunewright.data.rows import QuestionRow, Row
from tunewright.objectives import Guess, Reading, Task
from tunewright.objectives._heads import HeadObjective, drawn_by, own_lengths, refuse_encoder_decoder

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.data.rendering.places import Window
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.models import Model
    from tunewright.models.heads import Head

START, END = 1, 2  # marks of a token, added up; 0: it could have been either


class QuestionAnswering(HeadObjective):
    """Minimises the cross-entropy of the first and of the last token of the answer.

    Two linear outputs on every hidden state of question and context; p(start) and p(end) are softmaxes over the tokens of a
    window. total = - sum over windows of [log p(start) + log p(end)] / 2, count = windows. A context that is too long for one
    window is cut into overlapping ones, to learn and to answer; a window without the answer points to its first token. The
    answer is the span with the largest sum of both logits over all windows.

    Source: Devlin et al., "BERT", arXiv 1810.04805, sections 4.2 and 4.3; Rajpurkar et al., arXiv 1606.05250 (parity with
    transformers' question answering tested).
    Cost: 2 * width + 2 parameters; a long context is read once a window.
    Use when: answers stand in a given text, word for word. Avoid when: answers have to be put into words: `sft`.
    Raises: `ConfigurationError` on an encoder-decoder.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (QuestionRow,)
    metrics: ClassVar[tuple[str, ...]] = ("squad_exact_match", "token_f1")
    task: ClassVar[Task] = "question_answering"
    learns: ClassVar[str] = "one span a window"

    overlap: int = Field(default=128, ge=0, description="tokens that neighbouring windows of a long context share")
    longest: int = Field(default=30, ge=1, description="tokens of the longest answer that is looked for")
    unanswerable: bool | None = Field(
        default=None, description="a question may have no answer; as in the training rows when not given"
    )
    head_dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before the head's last layer")

    def decided(self, kind: str, rows: Sequence[Row]) -> QuestionAnswering:
        refuse_encoder_decoder(kind)
        found = any(isinstance(row, QuestionRow) and not row.answers for row in rows)
        return self.model_copy(update={"unanswerable": found if self.unanswerable is None else self.unanswerable})

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        return [item for number, row in enumerate(rows) for item in self._planted(row, number, renderer)]

    def _planted(self, row: Row, number: int, renderer: Renderer) -> list[Rendered | Refusal]:
        from tunewright.data.rendering import Refusal, Rendered, RowRefused
        from tunewright.data.rendering.places import windows

        if not isinstance(row, QuestionRow):
            return [Refusal("shape", f"a row of shape '{row.shape}' has no context to find an answer in", row.where, number)]
        try:
            found = windows(row.question, row.context, renderer, self.overlap)
        except RowRefused as error:
            return [Refusal(error.reason, error.refusal.message, row.where, number)]
        return [
            Rendered(Tree((Segment(one.tokens, tags=marks(one, row), row=number),)), where=row.where, ended=False, row=number)
            for one in found
        ]

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        import torch

        from tunewright.engine.loss import Loss

        lengths = own_lengths(batch)
        logits_U2, totals = engine.label_logits(batch), []
        for logits_L2, marks_L in zip(logits_U2.split(lengths), batch.tags_U.split(lengths), strict=True):
            inside_L = marks_L >= 0
            if bool(inside_L.any()):
                totals.append(span_loss(logits_L2[inside_L], marks_L[inside_L]))
        total = torch.stack(totals).sum() if totals else logits_U2.sum() * 0
        return Loss(total, torch.tensor(float(len(totals)), device=total.device))

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> Head:
        from tunewright.models.heads.question_answering import QuestionAnsweringHead

        return QuestionAnsweringHead(model.width, labels, drawn_by(seed), dropout=self.head_dropout)

    def read(self, engine: Engine, renderer: Renderer, row: Row, outputs: Sequence[Tensor]) -> Reading:
        import torch

        from tunewright.data.rendering.places import windows

        assert isinstance(row, QuestionRow)
        parts = windows(row.question, row.context, renderer, self.overlap)
        losses = [float(span_loss(one, torch.tensor(marks(part, row)))) for one, part in zip(outputs, parts, strict=True)]
        best = max(
            (best_span(one, part, self.longest) for one, part in zip(outputs, parts, strict=True)), key=lambda one: one.score
        )
        nothing = min(float(one[0].sum()) for one in outputs)
        loss = sum(losses) / len(losses)
        if self.unanswerable and nothing > best.score:
            return Reading("", loss, 1, details={"start": None, "end": None})
        text = row.context[best.start : best.end]
        start = best.start + len(text) - len(text.lstrip())
        return Reading(text.strip(), loss, 1, best.probability, {"start": start, "end": start + len(text.strip())})

    def guess(self, rows: Sequence[Row]) -> Guess:
        sizes = sorted(len(row.target_text().split()) for row in rows)
        count = max(1, sizes[len(sizes) // 2]) if sizes else 1
        note = f"answering the first words of the context, as many as answers have ({count}): the base has no head for spans"
        return Guess("first words", note, lambda row: " ".join(row.context.split()[:count]) if isinstance(row, QuestionRow) else "")

    def asked(self, prompt: str) -> Row:
        question, _, context = prompt.partition("\n")
        if prompt.lstrip().startswith("{"):
            try:
                given = json.loads(prompt)
                question, context = str(given["question"]), str(given["context"])
            except (ValueError, KeyError, TypeError):
                context = ""
        if not question.strip() or not context.strip():
            hint = 'Write the question, a line break and the text; or one JSON object: {"question": ..., "context": ...}.'
            raise ConfigurationError("a question needs the text that holds its answer", where="prompt", hint=hint)
        return QuestionRow(question=question, context=context, answers=(), starts=())


class Span(NamedTuple):
    """A span of characters of the context, the sum of its logits, and the probability of both of its ends."""

    start: int
    end: int
    score: float
    probability: float


def marks(window: Window, row: QuestionRow) -> tuple[int, ...]:
    """For each token of a window whether the answer starts or ends there; the first token stands for "not in this window"."""
    span = None
    if row.answers:
        span = window.span(row.starts[0], row.starts[0] + len(row.answers[0]))
    start, end = span or (0, 0)
    return tuple(START * (place == start) + END * (place == end) for place in range(len(window.tokens)))


def span_loss(logits_L2: Tensor, marks_L: Tensor) -> Tensor:
    """- [log p(start) + log p(end)] / 2 over the tokens of one window."""
    log_probability_L2 = logits_L2.float().log_softmax(dim=0)
    start, end = ((marks_L & mark).to(logits_L2.device).argmax() for mark in (START, END))
    return -(log_probability_L2[start, 0] + log_probability_L2[end, 1]) / 2


def best_span(logits_L2: Tensor, window: Window, longest: int) -> Span:
    """The span of at most `longest` tokens of the context with the largest sum of logits."""
    inside = slice(window.begin, window.begin + len(window.places))
    scores_LL = logits_L2[inside, 0][:, None] + logits_L2[inside, 1][None, :]
    # Ends stand behind their starts, and not too far.
    allowed_LL = scores_LL.new_ones(scores_LL.shape, dtype=scores_LL.dtype).triu().tril(longest - 1).bool()
    place = int(scores_LL.masked_fill(~allowed_LL, -float("inf")).argmax())
    first, last = divmod(place, len(window.places))
    chances_L2 = logits_L2.softmax(dim=0)
    probability = float(chances_L2[window.begin + first, 0] * chances_L2[window.begin + last, 1])
    return Span(window.places[first][0], window.places[last][1], float(scores_LL[first, last]), probability)
