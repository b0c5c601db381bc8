"""Prefix tuning: trained keys and values in front of every text, in every block."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError
from tunewright.core.seeds import derive
from tunewright.methods import Method
from tunewright.methods._soft import MOST, SoftTuning, Start, check_text, first_tokens, peft_facts, room_behind

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.engine.virtual import Virtual
    from tunewright.models import Model


class PrefixTuning(Method):
    """Trains keys and values of P virtual tokens in every block of a frozen base; every text attends to them.

    softmax(q [K_prefix; K_text]^T) [V_prefix; V_text] in each block. With `projection` they are W2 tanh(W1 e + b1) + b2 of one
    embedding while training. They begin as the keys and values that the base itself gives to words (of a text, or drawn from the
    vocabulary), so training starts from a prompt in words; with `projection` they begin at random.

    Source: Li and Liang, "Prefix-Tuning", arXiv 2101.00190.
    Cost: P * 2 * L * W parameters, L blocks, W = key heads * head width; with `projection` P * W + W * H + H + (H + 1) * 2 * L * W,
    H the hidden width (W when not given). P tokens a batch, and P more keys in every block.
    Use when: a base is frozen and prompt tuning is too weak: it reaches every block. Avoid when: the tuning must become a plain
    model, or the base is an encoder-decoder.
    Raises: `ConfigurationError` for encoder-decoders, for attention that does not go through transformers' interface, and where the
    virtual tokens leave no room in the context.
    """

    starts_at_base: ClassVar[bool] = False
    layouts: ClassVar[tuple[str, ...]] = ("forest", "padded")
    peft_type: ClassVar[str | None] = "PREFIX_TUNING"
    steep_rate: ClassVar[bool] = True
    rate_under_new_head: ClassVar[float] = 0.5

    virtual_tokens: int = Field(default=20, ge=1, le=MOST, description="how many keys and values stand in front of a text")
    init: Start = Field(
        default="vocabulary", description="whose they are at first: of a `text`, of words of the `vocabulary`, `random`"
    )
    text: str | None = Field(default=None, description="the text to begin with, repeated or cut, where init is `text`")
    projection: bool = Field(default=False, description="make them by a two-layer network while training; begins at random")
    hidden: int | None = Field(default=None, ge=1, le=65536, description="inner width of the projection")

    @property
    def default_learning_rate(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Keys and values themselves want large steps; a network that makes them wants smaller ones."""
        return 5e-3 if self.projection else 2e-2

    @model_validator(mode="after")
    def _text_is_used(self) -> PrefixTuning:
        check_text(self.init, self.text)
        if self.projection and self.text is not None:
            raise ConfigurationError("a projection begins at random, so the text would not be used", where="text")
        return self

    def text_room(self, context: int | None) -> int | None:
        return room_behind(self.virtual_tokens, context)

    def attach(self, model: Model, seed: int) -> PrefixTuningTuning:
        """Put keys and values in front of a new tuning's texts and freeze the base."""
        if model.kind == "encoder_decoder":
            raise ConfigurationError(
                "prefix_tuning does not stand on encoder-decoders, whose attention has a side more to put keys in front of",
                where="method",
                hint="Use `method: {name: peft, type: PREFIX_TUNING}`, or `prompt_tuning`.",
            )
        from tunewright.engine.virtual.keys import mount_keys
        from tunewright.models.attached import freeze_base

        self.text_room(model.context)
        virtual, (_, doubled, heads, width) = self._virtual(model, seed)
        freeze_base(model.network)
        slot = model.lanes.open()
        mount_keys(model, slot, virtual)
        facts = {
            "peft_type": self.peft_type,
            "prefix_projection": self.projection,
            "encoder_hidden_size": self.hidden or heads * width,
            "token_dim": heads * width,
            "num_attention_heads": heads,
            "num_layers": doubled // 2,
        }
        return PrefixTuningTuning(model, slot, virtual, facts)

    def _virtual(self, model: Model, seed: int) -> tuple[Virtual, tuple[int, int, int, int]]:
        """What the keys and values come from, and their shape."""
        import torch

        from tunewright.engine.virtual.keys import Keys, Projected, recorded

        states_P = recorded(model, first_tokens(model, self.virtual_tokens, self.init, self.text, seed))
        count, doubled, heads, width = states_P.shape
        shape = (count, doubled, heads, width)
        if self.projection:
            return Projected(shape, self.hidden or heads * width, derive(seed, "prefix_tuning")), shape
        if self.init == "random":
            drawn_P = torch.randn(shape, generator=torch.Generator().manual_seed(derive(seed, "prefix_tuning")))
            states_P = drawn_P * states_P.cpu().std(dim=(0, 2, 3), keepdim=True)
        return Keys(states_P), shape

    @classmethod
    def from_folder(cls, folder: Path) -> PrefixTuning:
        facts = peft_facts(folder, ("prefix_projection", "init_weights"))
        settings = {
            "virtual_tokens": facts["num_virtual_tokens"],
            "projection": bool(facts.get("prefix_projection")),
            "hidden": facts.get("encoder_hidden_size") if facts.get("prefix_projection") else None,
        }
        return build(cls, settings, str(folder))


class PrefixTuningTuning(SoftTuning):
    """Keys and values in front of every text; `baked` are those of all blocks, [P, 2 * L * W], key before value."""

    def _plain(self, baked_P: Tensor) -> Virtual:
        from tunewright.engine.virtual.keys import Keys

        own = self.virtual.states()
        assert own is not None
        return Keys(baked_P.view(own.shape))

    def _put_on(self) -> None:
        from tunewright.engine.virtual.keys import mount_keys

        mount_keys(self.model, self.slot, self.virtual)

    def _take_off(self) -> None:
        from tunewright.engine.virtual.keys import unmount_keys

        unmount_keys(self.model, self.slot)
