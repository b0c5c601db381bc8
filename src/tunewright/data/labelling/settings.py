"""How votes become labels, as a configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tunewright.core.configuration import Strict

BALANCED = 1e-3  # how far given shares may be from 1 together


class LabelModel(Strict):
    """How votes become probabilities of labels.

    Args:
        accuracies: `symmetric`: one number a function, its accuracy where it votes, errors spread evenly over the other labels, and
            an abstention says nothing (Ratner et al. 2016). `class_conditional`: for every label how often the function gives each
            label or abstains (Dawid and Skene 1979). `auto`: the first where every function gives several labels, else the second:
            of a rule with one label, accuracy shows only in when it votes, and without that, calling every row by one label
            explains all votes perfectly.
        balance: the shares of the labels: `uniform`, `estimated` from the votes, or a number for each label. Rules that give
            one label only say little about it, so estimate it only where most functions can give several.
        prior_accuracy: what is believed of a function before any vote is seen.
        prior_votes: how many votes that belief weighs as much as.
        steps: the most steps of the estimation.
        tolerance: it has converged when no probability changes by more than this.
    """

    accuracies: Literal["auto", "symmetric", "class_conditional"] = "auto"
    balance: Literal["uniform", "estimated"] | dict[str, float] = "uniform"
    prior_accuracy: float = Field(default=0.7, gt=0, lt=1)
    prior_votes: float = Field(default=10.0, gt=0)
    steps: int = Field(default=1000, ge=1)
    tolerance: float = Field(default=1e-6, gt=0)

    @model_validator(mode="after")
    def _shares(self) -> LabelModel:
        if isinstance(self.balance, dict):
            if any(share <= 0 for share in self.balance.values()):
                raise ValueError("every share in `balance` must be above 0")
            if abs(sum(self.balance.values()) - 1) > BALANCED:
                raise ValueError(f"the shares in `balance` add up to {sum(self.balance.values()):g}, not to 1")
        return self
