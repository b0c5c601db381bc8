"""What the three methods of ReFT share: where interventions stand, and at which tokens of a prompt."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError
from tunewright.core.seeds import derive
from tunewright.methods import Method
from tunewright.methods._changes import HALVES, Half, HiddenTuning, attach, blocks_at

if TYPE_CHECKING:
    from tunewright.engine.changes import Ends, Intervention
    from tunewright.models import Model


class Positions(Strict):
    """The tokens of a prompt at which hidden states are changed; those of a short prompt that both ends claim count once.

    The prompt is what comes before the first token that is learned or written; a text without any is prompt as a whole.
    """

    first: int = Field(default=7, ge=0, le=4096, description="how many tokens from the beginning of the prompt")
    last: int = Field(default=7, ge=0, le=4096, description="how many tokens up to the end of the prompt")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.first + self.last == 0:
            raise ValueError("no token would be changed; `first` or `last` must be at least 1")
        return self


class ReFT(Method):
    """Changes hidden states behind chosen blocks, within a subspace of few dimensions, at the first and last tokens of a prompt."""

    default_learning_rate: ClassVar[float] = 1.5e-3
    starts_at_base: ClassVar[bool] = False  # the published starting values are random on both sides of the change

    rank: int = Field(default=8, ge=1, le=64, description="dimensions of the subspace")
    positions: Positions = Field(default=Positions(), description="tokens of the prompt that are changed")
    blocks: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description="behind which blocks, from 0; negative ones count from the end; all when not given",
    )
    share: bool = Field(default=True, description="one intervention a block for both ends of the prompt, or one for each end")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="probability of dropping a number of a changed state")

    @abstractmethod
    def kind(self) -> type[Intervention]:
        """What stands behind each block."""

    def attach(self, model: Model, seed: int) -> HiddenTuning:
        """Put the interventions behind the blocks, beside those of tunings that stand there already, and freeze the base.

        Raises:
            ConfigurationError: there is no such block, or the rank is larger than the base's width.
        """
        return self._attach(model, seed, read=model.kind != "decoder")

    def attach_under_new_head(self, model: Model, seed: int) -> HiddenTuning:
        return self._attach(model, seed, read=True)

    def _attach(self, model: Model, seed: int, read: bool) -> HiddenTuning:
        """See `attach`; `read` says whether anybody reads what the last block gives at the beginning of a prompt."""
        from tunewright.engine.changes import Selection, Spot

        if self.rank > model.width:
            raise ConfigurationError(
                f"a subspace of {self.rank} dimensions does not fit into hidden states of {model.width}", where="method.rank"
            )
        # The decoder of an encoder-decoder holds no token of a prompt.
        halves: tuple[Half, ...] = ("encoder",) if model.kind == "encoder_decoder" else HALVES
        *_, behind = blocks_at(model, None, halves)
        chosen, kind, spots = Selection(self.positions.first, self.positions.last), self.kind(), {}
        for block in blocks_at(model, self.blocks, halves):
            for ends in self._ends(idle=block == behind and not read):
                place = f"{block}.{kind.called}" if ends == "both" else f"{block}.{kind.called}_{ends}"
                change = kind((self.rank, model.width), chosen, ends, self.dropout, derive(seed, "reft", place))
                spots[place] = Spot(change, block)
        tuning = self._tuning(attach(model, self, spots, "an intervention changes some tokens of a prompt only"))
        edges = model.lanes.edges
        edges[tuning.slot] = max(self.positions.last, edges.get(tuning.slot, 0))
        return tuning

    def _tuning(self, tuning: HiddenTuning) -> HiddenTuning:
        return tuning

    def _ends(self, idle: bool) -> list[Ends]:
        """The interventions of one block; where the beginning of a prompt is `idle`, one for it alone would never learn."""
        if self.share:
            return ["both"]
        first = self.positions.first > 0 and not (idle and self.positions.last)
        ends: list[tuple[Ends, bool]] = [("first", first), ("last", self.positions.last > 0)]
        return [end for end, wanted in ends if wanted]
