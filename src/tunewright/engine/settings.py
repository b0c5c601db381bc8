"""Settings of the engine, without torch: they are read before anything heavy loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunewright.core.configuration import Strict
from tunewright.core.errors import UnknownNameError

OPTIMIZERS = ("adamw", "adamw_8bit")


class AdamW(Strict):
    """Adam with decoupled weight decay.

    m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w = w - lr (m_hat / (sqrt(v_hat) + eps) + decay w)

    With `learning_rate_ratio` r, LoRA's B matrices are updated with r times the learning rate (LoRA+).

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101. Hayou, Ghosh and Yu, "LoRA+: Efficient
    Low Rank Adaptation of Large Models", arXiv 2402.12354 (they use 16, with a lower rate for A).
    Cost: two float32 numbers a trained parameter, with `adamw_8bit` two bytes. Vectors (norms, biases) are not decayed.
    """

    name: Literal["adamw", "adamw_8bit"] = Field(
        default="adamw", description="`adamw_8bit` holds the moments in 8 bits (package `torchao`; its first step compiles)"
    )
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    learning_rate_ratio: float = Field(
        default=1.0, gt=0, le=1000, description="LoRA+: LoRA's B matrices learn this many times faster than its A matrices"
    )

    @field_validator("name", mode="before")
    @classmethod
    def _known(cls, name: object) -> object:
        if isinstance(name, str) and name not in OPTIMIZERS:
            raise UnknownNameError(f"there is no optimizer '{name}'", allowed=OPTIMIZERS, given=name)
        return name


class Sampling(Strict):
    """How an answer is drawn."""

    max_new_tokens: int = Field(default=128, ge=1, description="longest answer, in tokens")
    temperature: float = Field(default=0.0, ge=0, le=10, description="0 takes the most probable token (greedy)")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw from the smallest set with this probability")
    top_k: int = Field(default=0, ge=0, description="draw from the k most probable tokens; 0 is all")
    stops: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="texts that end an answer; they are no part of it"
    )
    seed: int = Field(default=0, ge=0, description="of the draws")


class Cache(Strict):
    """Whether the states below the lowest trained block are kept on disk; `cache: off` is short for `cache: {when: off}`.

    A state that is read equals one that is computed in another packing within rounding (1e-6 of it in float32), so two runs of one
    seed have the same bits when both find the same cache, or none.

    Cost: 4 bytes a token and unit of width: a million tokens at width 576 take 2.3 GB. Use when: little above the base is trained
    (a head, the last blocks) and rows are seen more than once. Without effect where the first block is trained.
    """

    when: Literal["auto", "off", "at_once"] = Field(
        default="auto", description="auto keeps what is computed anyway; at_once fills the cache before training begins"
    )
    folder: Path | None = Field(default=None, description="where; the user's cache folder when not given")
    budget_gb: float | None = Field(
        default=None, ge=0, description="most that all of it may take on disk; a quarter of what is free when not given, 34 at most"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_a_word(cls, value: Any) -> Any:
        return {"when": value} if isinstance(value, str) else value
