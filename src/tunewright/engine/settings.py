"""Settings of the engine, without torch: they are read before anything heavy loads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunewright.core.configuration import Strict


class AdamW(Strict):
    """Adam with decoupled weight decay.

    m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w = w - lr (m_hat / (sqrt(v_hat) + eps) + decay w)

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
    Cost: two float32 numbers a trained parameter. Vectors (norms, biases) are not decayed.
    """

    name: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


class Sampling(Strict):
    """How an answer is drawn."""

    max_new_tokens: int = Field(default=128, ge=1, description="longest answer, in tokens")
    temperature: float = Field(default=0.0, ge=0, le=10, description="0 takes the most probable token (greedy)")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw from the smallest set with this probability")
    top_k: int = Field(default=0, ge=0, description="draw from the k most probable tokens; 0 is all")
    seed: int = Field(default=0, ge=0, description="of the draws")
