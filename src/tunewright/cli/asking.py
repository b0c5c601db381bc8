"""Prompts to answers with an opened model: a prompt is rendered as the rows that the model was tuned on were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewright.engine.settings import Sampling

if TYPE_CHECKING:
    from tunewright.data.rows import Message, Row
    from tunewright.evaluation.opening import Opened

CHAT_SHAPES = ("chat", "sharegpt", "openai_preference", "preference", "unpaired_preference", "ranking", "rating")


@dataclass
class Drawing:
    """How answers are drawn; what is not given is as the run was tested."""

    max_new_tokens: int | None = None
    """Longest answer, in tokens."""
    temperature: float | None = None
    """0 takes the most probable token; above, tokens are drawn."""
    top_p: float | None = None
    """Draw from the smallest set of tokens with this probability."""
    top_k: int | None = None
    """Draw from the k most probable tokens; 0 is all."""
    seed: int | None = None
    """Of the draws; equal seeds give equal answers."""

    def sampling(self, settings: dict[str, Any] | None = None) -> Sampling:
        """The settings of a run's own tests, with what was asked for put in. Raises `ConfigurationError`: out of range."""
        from tunewright.core.configuration import build

        kept = ((settings or {}).get("evaluation") or {}).get("sampling") or {}
        return build(Sampling, kept | {name: value for name, value in vars(self).items() if value is not None})


def as_row(opened: Opened, prompt: str, system: str = "") -> Row:
    """A prompt as a row of the shape that the model was tuned on."""
    from tunewright.data.rows import ChatRow, Message, PromptRow, TextRow

    asked = opened.objective.asked(prompt)
    if asked is not None:
        return asked
    if opened.shape in CHAT_SHAPES:
        before = (Message(role="system", content=system),) if system else ()
        return ChatRow(messages=(*before, Message(role="user", content=prompt)))
    if opened.shape == "text":
        return TextRow(text=prompt)
    return PromptRow(prompt=prompt, completion="")


def conversation(messages: Sequence[Message]) -> Row:
    """A conversation that waits for its answer."""
    from tunewright.data.rows import ChatRow

    return ChatRow(messages=tuple(messages))


def written(opened: Opened, rows: Sequence[Row], sampling: Sampling) -> list[tuple[str, bool]]:
    """The answers that the model writes, and whether each ended by itself.

    Raises:
        DataError: a prompt cannot be rendered.
    """
    from tunewright.core.errors import DataError
    from tunewright.data.rendering import RowRefused
    from tunewright.engine.sampling import sample

    if opened.model.kind == "encoder":
        from tunewright.core.errors import BaseModelError

        hint = "An encoder reads and does not write; tune it with `objective: classification`."
        raise BaseModelError("is an encoder without a head: it generates nothing", where=opened.name, hint=hint)
    try:
        prompts = [opened.renderer.prompt(row, room=sampling.max_new_tokens) for row in rows]
    except RowRefused as error:
        raise DataError(error.refusal.message, where="prompt") from None
    samples = sample(opened.engine, prompts, sampling, ends=frozenset(opened.renderer.stops))
    return [(opened.renderer.decode(one.tokens) if one.text is None else one.text.strip(), one.finished) for one in samples]
