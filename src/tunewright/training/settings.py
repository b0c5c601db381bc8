"""How long, how fast and with what patience a run trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError, UnknownNameError
from tunewright.engine.settings import AdamW
from tunewright.metrics import room as metrics
from tunewright.training.aids.settings import Aids


class Course(Strict):
    """What is learned in which steps: these settings change the result."""

    learning_rate: float | None = Field(default=None, gt=0, le=10, description="peak learning rate")
    head_learning_rate: float | None = Field(
        default=None, gt=0, le=10, description="peak learning rate of a new head, which starts from nothing"
    )
    epochs: float | None = Field(default=None, gt=0, le=1000, description="passes over the training rows")
    max_steps: int | None = Field(default=None, ge=1, description="stop after this many optimizer steps, whatever `epochs` says")
    batch_size: int | None = Field(default=None, ge=1, description="rows in one optimizer step")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="how the learning rate falls after warm-up"
    )
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    clip: float | None = Field(default=1.0, gt=0, description="largest gradient norm")
    optimizer: AdamW = Field(default=AdamW(), description="moments and weight decay")
    aids: Aids = Field(default=Aids(), description="noise, agreement of two passes, weights held near the base's, order of rows")


class Training(Course):
    """The settings of the loop. What is left out is chosen from the method, the base and the data, and printed with its reason.

    Those on the machine (token budget, precision, base precision, checkpointing, compilation) change speed and memory, and the
    result by rounding only; an int8 base is coarser rounding than the others, and is checked before it is used.
    """

    token_budget: int = Field(
        default=2048, ge=16, description="tokens in one forward pass; a step is cut to fit, its result stays the same"
    )
    validate_every: int | None = Field(default=None, ge=1, description="steps between validations; once an epoch when not given")
    monitor: str = Field(
        default="loss", description="what early stopping and the best checkpoint look at: loss, reward, or a metric's name"
    )
    patience: int = Field(default=3, ge=1, description="validations without improvement before the run stops")
    save_every: int | None = Field(default=None, ge=1, description="steps between checkpoints; with each validation when not given")
    precision: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="auto measures this machine")
    checkpointing: bool | None = Field(
        default=None,
        description="recompute activations to save memory; when not given, only where memory asks for it",
    )
    base_precision: Literal["auto", "int8", "nf4", "int4"] = Field(
        default="auto",
        description="int8 holds frozen layers in bytes (CPUs with VNNI) if gradients still agree; nf4 (bitsandbytes) and int4 "
        "(torchao) in four bits (CUDA); auto leaves them as they are",
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="compile each block with torch.compile; auto does so in long runs on a GPU"
    )

    @field_validator("monitor")
    @classmethod
    def _known(cls, name: str) -> str:
        known = ["loss", "reward", *metrics.names()]
        if name not in known:
            raise UnknownNameError(f"there is no metric '{name}' to monitor", allowed=known, given=name)
        return name

    @model_validator(mode="after")
    def _weights_have_gradients(self) -> Training:
        if self.aids.ewc is not None and self.base_precision != "auto":
            hint = "Leave out `base_precision`, or take `aids.l2_to_base`, which needs no gradients of the base."
            problem = f"weights that are held in {self.base_precision} have no gradients to measure their importance by"
            raise ConfigurationError(problem, where="aids.ewc", hint=hint)
        return self
