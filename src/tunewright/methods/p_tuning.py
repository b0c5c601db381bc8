"""P-tuning: vectors in front of every text, made by a small network while training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tunewright.core.configuration import build
from tunewright.core.seeds import derive
from tunewright.methods import Method
from tunewright.methods._soft import MOST, SoftTuning, attached, peft_facts, room_behind

if TYPE_CHECKING:
    from tunewright.models import Model


class PTuning(Method):
    """Prompt tuning whose vectors come from a small network while training, so that they learn together and not each alone.

    v = MLP(e), or v = MLP(LSTM(e)) with a bidirectional LSTM over the virtual tokens; e [P, D] and the network are trained. What is
    saved are the P vectors: nothing of the network is needed to answer, and a loaded tuning trains the vectors themselves.

    Source: Liu et al., "GPT Understands, Too", arXiv 2103.10385; the network is that of PEFT's `PromptEncoder`.
    Cost: P * D + H * (2 D + H + 2) + D parameters with the MLP, H its hidden width (D when not given); with the LSTM
    P * D + 2 * L layers of 4 H (inputs + H + 2), inputs D and then 2 H, + 2 H (2 H + 1) + D (2 H + 1). Time as prompt tuning.
    Use when: prompt tuning learns too slowly or depends on its start. Avoid when: prompt tuning serves, with far fewer numbers.
    Raises: `ConfigurationError` where the virtual tokens leave no room in the context.
    """

    default_learning_rate: ClassVar[float] = 5e-3
    starts_at_base: ClassVar[bool] = False
    peft_type: ClassVar[str | None] = "P_TUNING"

    virtual_tokens: int = Field(default=20, ge=1, le=MOST, description="how many vectors stand in front of a text")
    encoder: Literal["mlp", "lstm"] = Field(default="mlp", description="the network that makes them while training")
    hidden: int | None = Field(default=None, ge=1, le=65536, description="its inner width; that of the embedding when not given")
    layers: int = Field(default=2, ge=1, le=8, description="layers of the LSTM")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="between the layers of the LSTM")

    def text_room(self, context: int | None) -> int | None:
        return room_behind(self.virtual_tokens, context)

    def attach(self, model: Model, seed: int) -> SoftTuning:
        """Put the vectors in front of a new tuning's texts and freeze the base."""
        from tunewright.engine.virtual import entry
        from tunewright.engine.virtual.modules import Encoded

        width = entry(model).weight.shape[1]
        shape = (self.virtual_tokens, width, self.hidden or width)
        virtual = Encoded(shape, self.encoder, self.layers, self.dropout, derive(seed, "p_tuning"))
        facts = {
            "peft_type": self.peft_type,
            "encoder_reparameterization_type": self.encoder.upper(),
            "encoder_hidden_size": shape[2],
            "encoder_num_layers": self.layers,
            "encoder_dropout": self.dropout,
        }
        return attached(self, model, virtual, facts)

    @classmethod
    def from_folder(cls, folder: Path) -> PTuning:
        facts = peft_facts(folder, ("encoder_reparameterization_type", "encoder_num_layers", "encoder_dropout"))
        settings = {
            "virtual_tokens": facts["num_virtual_tokens"],
            "encoder": str(facts.get("encoder_reparameterization_type", "MLP")).lower(),
            "hidden": facts.get("encoder_hidden_size"),
            "layers": facts.get("encoder_num_layers", 2),
            "dropout": facts.get("encoder_dropout", 0.0),
        }
        return build(cls, settings, str(folder))
