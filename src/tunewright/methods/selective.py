"""Selective tuning: train some of the base's own weights, keep the rest."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from tunewright.core.errors import ConfigurationError
from tunewright.methods import Method
from tunewright.methods._weights import WeightsTuning, block_indexes, embedding_names, require_some

if TYPE_CHECKING:
    from tunewright.models import Model


class Selective(Method):
    """Trains a chosen part of the base's own weights.

    Starting from every weight (or from those matching `train`), what `freeze`, `freeze_embeddings`, `freeze_first`,
    `last_blocks` and `bias_only` exclude stays as it is.

    Source: Ben Zaken et al., "BitFit", arXiv 2106.10199 (bias only); Lee et al., "What Would Elsa Do?", arXiv 1911.03090 (last
    blocks).
    Cost: three float32 numbers for each trained one (gradient and moments) and a copy to compare with the base; nothing below the
    lowest trained block keeps a graph, so tuning the last quarter takes about half the time of full tuning.
    Use when: the base is near the task, memory is short, forgetting must stay small. Avoid when: a small file is wanted (LoRA).
    Raises: `ConfigurationError` for a pattern that matches nothing, for more blocks than there are, for an empty selection.
    """

    default_learning_rate: ClassVar[float] = 1e-4

    train: tuple[str, ...] = Field(default=(), description="patterns of weight names to start from; all when empty")
    freeze: tuple[str, ...] = Field(default=(), description="patterns of weight names to keep as they are")
    freeze_embeddings: bool = Field(default=False, description="keep token and position embeddings as they are")
    freeze_first: int = Field(default=0, ge=0, description="keep the embeddings and the first n blocks as they are")
    last_blocks: int | None = Field(default=None, ge=1, description="train only the last n blocks and what follows them")
    bias_only: bool = Field(default=False, description="train bias vectors only (BitFit)")

    @field_validator("train", "freeze", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def attach(self, model: Model, seed: int) -> WeightsTuning:
        """Mark what is trained; the network stays the same."""
        names = [name for name, _ in model.network.named_parameters()]
        kept = set(names) - self._frozen(names, model)
        chosen = {name: parameter for name, parameter in model.network.named_parameters() if name in kept}
        return WeightsTuning(model, require_some(chosen, "Loosen the method's settings; `bias_only` needs a base with biases."))

    def _frozen(self, names: Sequence[str], model: Model) -> set[str]:
        frozen = {name for name in names if self.train} - _matching(names, self.train, "train")
        frozen |= _matching(names, self.freeze, "freeze")
        if self.bias_only:
            frozen |= {name for name in names if not name.endswith("bias")}
        count = len(model.blocks)
        for key, asked in (("freeze_first", self.freeze_first), ("last_blocks", self.last_blocks or 0)):
            if asked > count:
                raise ConfigurationError(
                    f"asks for {asked} blocks and the base has {count}", where=f"method.{key}", hint=f"At most {count}."
                )
        lowest = max(self.freeze_first, count - self.last_blocks if self.last_blocks else 0)
        frozen |= {name for name, block in block_indexes(model).items() if block < lowest}
        return frozen | (embedding_names(model) if self.freeze_embeddings or lowest else set())


def _matching(names: Sequence[str], patterns: Sequence[str], key: str) -> set[str]:
    """The names that any pattern matches: a glob over the whole name, or a part of it when it has no wildcard."""
    found: set[str] = set()
    for pattern in patterns:
        hits = {name for name in names if (fnmatch.fnmatchcase(name, pattern) if set("*?[") & set(pattern) else pattern in name)}
        if not hits:
            parts = sorted({part for name in names for part in name.split(".") if not part.isdigit()})
            raise ConfigurationError(
                f"the pattern '{pattern}' matches no weight", where=f"method.{key}", allowed=parts, given=pattern.strip("*.")
            )
        found |= hits
    return found
