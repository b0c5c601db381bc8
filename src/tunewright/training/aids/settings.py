"""The settings of the aids, without torch: they are read before anything heavy loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError


class EWC(Strict):
    """Elastic weight consolidation: weights that general text depends on are held near the base's; `ewc: FILE` is short for `rows`.

    Adds strength / 2 * sum over weights of F (w - w_base)^2 to the mean loss. F is the diagonal of the Fisher information, measured
    once on the base: the sum over rows of the squared gradient of a row's log p, divided by their tokens. With a strength of 1 the
    penalty is, to second order, the nats a token by which the rows get worse as far as weights act one by one; together they do
    more, so it takes 100 to 1000 to hold them.

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", arXiv 1612.00796.
    Cost: before training a forward and backward pass a row, one by one, with gradients of every weight concerned; 4 bytes a weight
    in memory and in the run's folder; a step reads them once.
    Use when: text like the old one is at hand, and must stay as good. Avoid when: there is none (`l2_to_base` needs none).
    Raises: `ConfigurationError` where no weight of the base moves, or its weights are held in bytes or in four bits.
    """

    rows: Path = Field(description="file of rows that must not be forgotten, general text for example (a paragraph a line)")
    strength: float = Field(default=100.0, gt=0, description="lambda: what the penalty is multiplied by")
    most: int = Field(default=200, ge=1, description="rows that are looked at, at most: drawn by the seed")

    @model_validator(mode="before")
    @classmethod
    def _from_a_word(cls, value: Any) -> Any:
        return _named(value, "rows")


def _named(value: Any, key: str) -> Any:
    """A word as the mapping that it is short for; a flag below a word has made it a mapping with `name` already."""
    if isinstance(value, str | Path):
        return {key: value}
    if isinstance(value, dict) and "name" in value and key not in value:
        return {key if name == "name" else name: one for name, one in value.items()}
    return value


class Order(Strict):
    """In which order the rows of an epoch come; `order: easy_first` is short for `order: {kind: easy_first}`.

    With `easy_first`, the rows open up from the easiest on: after a share x of the epoch, the easiest share p(x) of them can be
    drawn, p(x) = start + (1 - start) x (`linear`), start + (1 - start) sqrt(x) (`root`), or so many equal parts one after the other
    (`stages`). Each row still comes once an epoch, and a start of 1 is a shuffled epoch.

    Source: Bengio et al., "Curriculum learning", ICML 2009; pacing: Hacohen and Weinshall, arXiv 1904.03626.
    Cost: nothing by length; by loss one pass over the rows without gradients, before training.
    Use when: rows differ much in difficulty and there are few epochs. Avoid when: easy rows are of another kind than hard ones (a
    label, a language): they would come in blocks.
    Raises: `ConfigurationError` where the base has no loss for the rows (a new head), and `by: loss` asks for it.
    """

    kind: Literal["shuffled", "easy_first"] = Field(default="shuffled", description="of an epoch's rows")
    by: Literal["length", "loss"] = Field(
        default="length", description="what makes a row hard: its tokens, or the base's own mean loss of what is learned of it"
    )
    pace: Literal["linear", "root", "stages"] = Field(default="linear", description="how the rows open up")
    start: float = Field(default=0.1, gt=0, le=1, description="share of the rows that is open from the beginning")
    stages: int = Field(default=5, ge=2, le=1000, description="parts of `pace: stages`")
    epochs: int | None = Field(default=1, ge=1, description="epochs that are ordered so; later ones are shuffled; null: all")

    @model_validator(mode="before")
    @classmethod
    def _from_a_word(cls, value: Any) -> Any:
        return _named(value, "kind")

    @model_validator(mode="after")
    def _says_something(self) -> Order:
        if self.kind == "shuffled":
            idle = [name for name, field in Order.model_fields.items() if getattr(self, name) != field.default]
            if idle:
                hint = "Add `kind: easy_first`, or leave it out."
                raise ConfigurationError(f"'{idle[0]}' says nothing about rows that are shuffled", where=idle[0], hint=hint)
        return self


class Aids(Strict):
    """What every objective can have besides its loss; nothing unless asked for.

    `neftune` adds uniform noise of up to alpha / sqrt(L D) to the input embeddings of a row of L tokens, in training only. `r_drop`
    makes two passes with other dropout and adds alpha times half the sum of both KL divergences between what they say at the
    targets; the loss itself is the mean of the two. `l2_to_base` adds beta / 2 times the squared distance of the trained weights
    from the base's: for low-rank changes the squared size of the change of each weight, for what else is added to a base its
    distance from where it started. New heads are not held.

    Source: Jain et al., "NEFTune", arXiv 2310.05914; Liang et al., "R-Drop", arXiv 2106.14448; Li et al., "Explicit inductive
    bias" (L2-SP), arXiv 1802.01483.
    Cost: noise a number a token and unit of width, and states below the trained blocks are not kept (`cache`); `r_drop` twice the
    time and activations; `l2_to_base` one more pass over the trained weights a step (and a copy of them where the method has none).
    Use when: `neftune`: answers in conversations; `r_drop`: few labelled rows, with dropout; `l2_to_base`: the base's abilities
    should stay. Avoid when: training already lacks room to learn.
    Raises: `ConfigurationError` where an aid makes no sense: see `tunewright.run.aiding`.
    """

    neftune: float = Field(
        default=0.0, ge=0, description="alpha of the noise on input embeddings (NEFTune); its authors use 5 to 15"
    )
    r_drop: float = Field(
        default=0.0, ge=0, description="weight of the divergence of two passes (R-Drop); its authors use 0.5 to 5"
    )
    l2_to_base: float = Field(default=0.0, ge=0, description="beta: how strongly weights are held to the base's (L2-SP)")
    ewc: EWC | None = Field(default=None, description="weights that old rows depend on are held to the base's")
    order: Order = Field(default=Order(), description="of the rows of an epoch")

    @property
    def around_loss(self) -> bool:
        """Whether anything changes the loss of a batch."""
        return self.neftune > 0 or self.r_drop > 0

    @property
    def holds(self) -> bool:
        """Whether anything holds weights near the base's."""
        return self.l2_to_base > 0 or self.ewc is not None
