"""What the methods that change hidden states share: the tuning, and which blocks are meant."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunewright.core.errors import ConfigurationError
from tunewright.methods import Method, Tuning
from tunewright.methods._saved import fill, read_tensors, write_own

if TYPE_CHECKING:
    from torch.nn import Parameter

    from tunewright.engine.changes import HiddenChange, Spot
    from tunewright.models import Model

Half = Literal["encoder", "decoder"]
HALVES: tuple[Half, Half] = ("encoder", "decoder")


class HiddenTuning(Tuning):
    """Changes of hidden states, of one method.

    Args:
        slot: its number among the tunings on the model (`tunewright.models.lanes`).
        spots: the changes and where they stand, by the name that their parameters have in front of their own.
        stays: why the changes cannot be merged, as the rest of a sentence behind the method's name.
    """

    def __init__(self, model: Model, method: Method, slot: int, spots: Mapping[str, Spot], stays: str) -> None:
        self.model, self.method, self.slot, self.spots = model, method, slot, dict(spots)
        self.stays = stays

    @property
    def changes(self) -> list[HiddenChange]:
        """The changes, in the order of the network."""
        return [spot.change for spot in self.spots.values()]

    def parameters(self) -> dict[str, Parameter]:
        return {
            f"{place}.{name}": spot.change.get_parameter(attribute)
            for place, spot in self.spots.items()
            for name, attribute in spot.change.names.items()
            if attribute in spot.change._parameters
        }

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Within the context this tuning changes nothing; others on the same base do as before."""
        before = [change.enabled for change in self.changes]
        for change in self.changes:
            change.enabled = False
        try:
            yield
        finally:
            for change, enabled in zip(self.changes, before, strict=True):
                change.enabled = enabled

    def interpolate(self, factor: float) -> None:
        """Make the change `factor` times as large, at each place for the states that it meets there."""
        import torch

        with torch.no_grad():
            for change in self.changes:
                change.resize(factor)

    def detach(self) -> None:
        """Leave the base, which is plain again when the last tuning has left; a second call does nothing."""
        from tunewright.engine.changes import take_off

        if self.spots:
            take_off(self.model.network, list(self.spots.values()))
            self.model.lanes.close(self.slot)
        self.spots = {}

    @property
    def merges(self) -> bool:
        return False

    def merge(self) -> None:
        """Refused.

        Raises:
            ConfigurationError: always; no weights of the base compute the change.
        """
        raise ConfigurationError(
            f"{self.stays}, so no weights of the base can compute it",
            where="merge",
            hint="Use the base with the tuning on it.",
        )

    def save(self, folder: Path) -> None:
        """Our own format: `tuning.json`, and `tuning.safetensors` with the names of `parameters()`.

        `PATH.attention_adapter.down.weight` is of a bottleneck behind the attention of the block at PATH (`mlp_adapter` behind its
        MLP; `down`, `up` and `norm`, each `weight` and `bias`); `PATH.loreft.rotation.weight` of an intervention behind that block
        (`loreft_first` and `loreft_last` where the ends of a prompt have one each; `source` and `rotation`, or `projection`).
        """
        write_own(folder, self.method, self.model, dict(self.state()))

    def load(self, folder: Path) -> None:
        """Read our own format back into the changes that stand."""
        fill(self.parameters(), read_tensors(folder), folder)


def attach(model: Model, method: Method, spots: Mapping[str, Spot], stays: str) -> HiddenTuning:
    """Put changes on a base beside those of other tunings, and freeze the base.

    Args:
        spots, stays: see `HiddenTuning`.
    """
    from tunewright.engine.changes import put_on
    from tunewright.models.attached import freeze_base

    freeze_base(model.network)
    slot = model.lanes.open()
    put_on(model.network, model.lanes, slot, list(spots.values()))
    return HiddenTuning(model, method, slot, spots, stays)


def blocks_at(model: Model, numbers: Sequence[int] | None, halves: Sequence[Half] = HALVES) -> list[str]:
    """The paths of the blocks that are meant, in the order they run.

    Args:
        numbers: which, counted from 0 in each half, negative ones from its end; all of them when None.
        halves: of an encoder-decoder, whose; a base of one half has only that.

    Raises:
        ConfigurationError: the base has no such half, or no such block in one of them.
    """
    from tunewright.models.sites import blocks_of

    paths = list(blocks_of(model.network))
    if model.kind == "encoder_decoder":
        own = {half: [path for path in paths if half in path.split(".")] for half in HALVES}
    else:
        own = {model.kind: paths}
    chosen = [blocks for half, blocks in own.items() if half in halves]
    if not chosen:
        raise ConfigurationError(
            f"this base has no {' and no '.join(halves)}", where="method.halves", allowed=list(own), given=" ".join(halves)
        )
    found: list[str] = []
    for blocks in chosen:
        meant = range(len(blocks)) if numbers is None else numbers
        for number in meant:
            if not -len(blocks) <= number < len(blocks):
                raise ConfigurationError(
                    f"there is no block {number}: this base has {len(blocks)}",
                    where="method.blocks",
                    allowed=[str(place) for place in range(len(blocks))],
                    given=str(number),
                )
        found += [blocks[place] for place in sorted({number % len(blocks) for number in meant})]
    return found
