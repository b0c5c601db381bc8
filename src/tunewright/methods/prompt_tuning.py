"""Prompt tuning: trained vectors in front of every text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from tunewright.core.configuration import build
from tunewright.methods import Method
from tunewright.methods._soft import (
    MOST,
    SoftTuning,
    Start,
    attached,
    check_text,
    first_vectors,
    peft_facts,
    peft_start,
    room_behind,
)

if TYPE_CHECKING:
    from tunewright.models import Model

_STARTS = {"text": "TEXT", "vocabulary": "SAMPLE_VOCAB", "random": "RANDOM"}


class PromptTuning(Method):
    """Trains P vectors that a frozen base reads in front of every text, as if they were embeddings of P more words.

    input = [v_1 ... v_P, E(x_1) ... E(x_T)], v trained, E the base's embedding; an encoder-decoder's encoder reads them. In the
    forest they are one root of the tuning, computed once a batch, and once for all prompts that are answered together.

    Source: Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning", arXiv 2104.08691.
    Cost: P * D parameters, D the width of the input embedding; P tokens a batch (a row where rows are padded), and gradients
    through the whole depth. Every answer reads P more keys.
    Use when: many small tasks share one large base, and its answers must not change elsewhere. Avoid when: the base is small (in
    the paper, prompts come up to full tuning at billions of parameters only), the context is short, or the tuning must become a
    plain model.
    Raises: `ConfigurationError` where the virtual tokens leave no room in the context, or a text is missing or not used.
    """

    default_learning_rate: ClassVar[float] = 1e-1
    starts_at_base: ClassVar[bool] = False
    peft_type: ClassVar[str | None] = "PROMPT_TUNING"

    virtual_tokens: int = Field(default=20, ge=1, le=MOST, description="how many vectors stand in front of a text")
    init: Start = Field(default="vocabulary", description="what they begin as: `text`, words of the `vocabulary`, or `random`")
    text: str | None = Field(default=None, description="the text to begin with, repeated or cut, where init is `text`")

    @model_validator(mode="after")
    def _text_is_used(self) -> PromptTuning:
        check_text(self.init, self.text)
        return self

    def text_room(self, context: int | None) -> int | None:
        return room_behind(self.virtual_tokens, context)

    def attach(self, model: Model, seed: int) -> SoftTuning:
        """Put the vectors in front of a new tuning's texts and freeze the base."""
        from tunewright.engine.virtual.modules import Vectors

        facts = {"peft_type": self.peft_type, "prompt_tuning_init": _STARTS[self.init]}
        if self.init == "text":
            facts |= {"prompt_tuning_init_text": self.text, "tokenizer_name_or_path": model.base}
        vectors_PD = first_vectors(model, self.virtual_tokens, self.init, self.text, seed)
        return attached(self, model, Vectors(vectors_PD), facts)

    @classmethod
    def from_folder(cls, folder: Path) -> PromptTuning:
        facts = peft_facts(folder, ("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_kwargs"))
        return build(cls, {"virtual_tokens": facts["num_virtual_tokens"], **peft_start(facts)}, str(folder))
