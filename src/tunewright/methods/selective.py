"""Selective tuning: train some of the base's own weights, keep the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from tunewright.core.errors import ConfigurationError
from tunewright.methods import Method
from tunewright.methods._selection import (
    OUTSIDE,
    block_indexes,
    embedding_names,
    known_kinds,
    matching,
    of_kinds,
    own_parameters,
    read_blocks,
    require_some,
    within_blocks,
    written_blocks,
)
from tunewright.methods._weights import WeightsTuning

if TYPE_CHECKING:
    from tunewright.models import Model


class Selective(Method):
    """Trains a chosen part of the base's own weights.

    Starting from every weight (or from those of the `kinds` and those matching `train`), what `freeze`, `freeze_embeddings`,
    `freeze_first`, `last_blocks`, `blocks` and `bias_only` exclude stays as it is. `blocks` leaves nothing outside the blocks but
    embeddings and head where `kinds` names them.

    Source: Lee et al., "What Would Elsa Do?", arXiv 1911.03090 (last blocks); Ben Zaken et al., "BitFit", arXiv 2106.10199
    (biases); Touvron et al., "Three things everyone should know about Vision Transformers", arXiv 2203.09795 (attention alone).
    Cost: as many parameters as the weights that are chosen have; three float32 numbers for each (gradient and moments) and a copy
    to compare with the base; nothing below the lowest trained block keeps a graph, so tuning the last quarter takes about half the
    time of full tuning.
    Use when: the base is near the task, memory is short, forgetting must stay small. Avoid when: a small file is wanted (LoRA,
    `bitfit`, `sparse`).
    Raises: `ConfigurationError` for a kind that the base does not have, a pattern that matches nothing, more blocks than there are,
    an empty selection.
    """

    default_learning_rate: ClassVar[float] = 1e-4
    steep_rate: ClassVar[bool] = True
    rate_under_new_head: ClassVar[float] = 0.5

    kinds: tuple[str, ...] = Field(default=(), description="bias, norm, embedding, attention, mlp, head: any mix to start from")
    train: tuple[str, ...] = Field(default=(), description="patterns of weight names to start from; all when nothing is named")
    freeze: tuple[str, ...] = Field(default=(), description="patterns of weight names to keep as they are")
    freeze_embeddings: bool = Field(default=False, description="keep token and position embeddings as they are")
    freeze_first: int = Field(default=0, ge=0, description="keep the embeddings and the first n blocks as they are")
    last_blocks: int | None = Field(default=None, ge=1, description="train only the last n blocks and what follows them")
    blocks: str = Field(default="", description='train only inside these blocks: "0-3,7"; encoders count before decoders')
    bias_only: bool = Field(default=False, description="train bias vectors only (BitFit)")

    @field_validator("kinds", "train", "freeze", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        known_kinds(kinds)
        return kinds

    @field_validator("blocks", mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        return written_blocks(value)

    @field_validator("blocks")
    @classmethod
    def _readable(cls, text: str) -> str:
        read_blocks(text)
        return text

    @model_validator(mode="after")
    def _one_way_to_name_blocks(self) -> Selective:
        if self.blocks and (self.last_blocks or self.freeze_first):
            other = "last_blocks" if self.last_blocks else "freeze_first"
            raise ConfigurationError(f"`blocks` and `{other}` both say which blocks are trained", hint="Give one of them.")
        return self

    def attach(self, model: Model, seed: int) -> WeightsTuning:
        """Mark what is trained; the network stays the same."""
        own = own_parameters(model)
        kept = self._start(list(own), model) - self._frozen(list(own), model)
        chosen = {name: parameter for name, parameter in own.items() if name in kept}
        return WeightsTuning(model, require_some(chosen, "Loosen the method's settings; `bias_only` needs a base with biases."))

    def _start(self, names: Sequence[str], model: Model) -> set[str]:
        if not self.kinds and not self.train:
            return set(names)
        return of_kinds(model, self.kinds) | matching(names, self.train, "train")

    def _frozen(self, names: Sequence[str], model: Model) -> set[str]:
        frozen = matching(names, self.freeze, "freeze")
        if self.bias_only:
            frozen |= {name for name in names if not name.endswith("bias")}
        if self.blocks:
            inside = within_blocks(model, self.blocks) | of_kinds(model, [kind for kind in self.kinds if kind in OUTSIDE])
            frozen |= set(names) - inside
        count = len(model.blocks)
        for key, asked in (("freeze_first", self.freeze_first), ("last_blocks", self.last_blocks or 0)):
            if asked > count:
                raise ConfigurationError(
                    f"asks for {asked} blocks and the base has {count}", where=f"method.{key}", hint=f"At most {count}."
                )
        lowest = max(self.freeze_first, count - self.last_blocks if self.last_blocks else 0)
        frozen |= {name for name, block in block_indexes(model).items() if block < lowest}
        return frozen | (embedding_names(model) if self.freeze_embeddings or lowest else set())
