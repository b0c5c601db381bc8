"""Language modelling: learn every token of a text, as in pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tunewright.data.rows import ChatRow, PromptRow, Row, TextRow
from tunewright.objectives._texts import Found, TextObjective

if TYPE_CHECKING:
    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss


class LanguageModeling(TextObjective):
    """Minimises the cross-entropy of every token of a text, given all that stands before it (continued pre-training).

    total = - sum_t w log p(x_t | x_<t), count = sum_t w, with the weight w of the row; exp(total / count) is the perplexity. A text
    longer than the context becomes windows of about equal length, so nothing of it is cut away; its end is learned as an end. Texts
    share passes but never see each other. Prompts and chats are learned whole, as they are rendered: question, template and answer.

    Source: Gururangan et al., "Don't Stop Pretraining", arXiv 2004.10964; parity with transformers' causal models is tested.
    Cost: no parameters of its own; one forward and backward pass a text, and the head runs at all of its tokens.
    Use when: there is text of a domain or a language and no task yet. Avoid when: answers to prompts are to be learned (`sft`), or
    general abilities must stay (mix in general text: `data.replay`).
    Raises: `BaseModelError` for a base that is no decoder.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (TextRow, PromptRow, ChatRow)
    kind: ClassVar[str] = "decoder"

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        return renderer.learning_all().examples_of([_text_alone(row) for row in rows])

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        return engine.language_loss(batch)

    def found(self, engine: Engine, batch: Batch) -> Found:
        return Found(engine.token_scores(batch).log_probability_N, batch.row_S[batch.owners_N])


def _text_alone(row: Row) -> Row:
    """A prompt that nobody has answered is a text."""
    if isinstance(row, PromptRow) and not row.completion.strip():
        return TextRow(text=row.prompt, where=row.where, group=row.group, weight=row.weight, metadata=row.metadata)
    return row
