"""What an engine holds of a frozen prefix: the cut, the cache where one is kept, and the account of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from tunewright.core.errors import StorageError
from tunewright.core.surroundings import cache_folder
from tunewright.core.units import bytes_text, share_text
from tunewright.engine.batch import Batch
from tunewright.engine.changes.change import HiddenChange
from tunewright.engine.prefix.cut import Output, Prefix, lowest_trainable_block, obstacle
from tunewright.engine.prefix.key import key_of, path_digests
from tunewright.engine.prefix.store import HiddenCache
from tunewright.engine.settings import Cache
from tunewright.models import Model

if TYPE_CHECKING:
    from tunewright.engine.engine import Engine

# How far a state that was kept may be from the same one computed in another row, as a share of its length. Packing changes the
# order of sums: 1e-6 in float32. Anything that really differs (weights, positions, a mask) is far beyond.
CLOSE = {"float32": 1e-4}
CLOSE_IN_HALF = 5e-2


@dataclass
class Counts:
    """Tokens whose lower blocks were run, and tokens whose states were read instead."""

    computed: int = 0
    read: int = 0

    def sentence(self) -> str:
        """The account in words, for a report."""
        return (
            f"{share_text(self.read, self.read + self.computed)} of the states below the trained blocks were read and not computed"
        )


@dataclass(frozen=True)
class Place:
    """Where states are kept: the folder of all caches, and the bytes that it may take (a quarter of the free disk when None)."""

    folder: Path
    budget: int | None = None


class FrozenPrefix:
    """The lower, frozen part of one engine's network.

    The first batch of a process is always computed, which tells the form of the states; the first batch that could be read whole
    is computed as well and compared, and what is not the same within rounding is thrown away.

    A state that is read was computed once, in the row that its segment stood in then: for the same batches every gradient is the
    same bits as without a cache, for other packings it differs as two packings always do, by rounding.

    Args:
        model: with everything that is attached to it.
        cut: the lowest trained block (`lowest_trainable_block`), at least 1.
        position_offset: what the engine adds to positions in the forest layout.
        place: where states are kept; None to keep none and only run the lower blocks without a graph.
    """

    def __init__(self, model: Model, cut: int, position_offset: int = 0, place: Place | None = None) -> None:
        self.model, self.position_offset, self.place = model, position_offset, place
        self.prefix = Prefix(model, cut)
        self.counts = Counts()
        self.cache: HiddenCache | None = None
        self.reason = (obstacle(model) or _by_place(self.prefix)) if place is not None else "no cache was asked for"
        self._computed_in = ""
        self._compared = False
        self._began = False
        self._stamp = self._look()

    @property
    def cut(self) -> int:
        """The lowest trained block."""
        return self.prefix.cut

    def still_holds(self, parameters: Mapping[str, Parameter]) -> bool:
        """Whether a tuning that trains `parameters` leaves everything below the cut as it is."""
        return lowest_trainable_block(self.model, parameters) >= self.cut

    def hidden(self, batch: Batch, run: Callable[[], Output], whole: Callable[[], object] | None = None) -> Output:
        """What `run` returns, with the lower blocks read instead of run where their states are kept.

        Args:
            batch: what `run` runs on.
            run: the network's ordinary pass on the batch.
            whole: the same pass where it computes every position in every block, when `run` leaves some out.
        """
        if self._look() != self._stamp:
            self.stop("something below the lowest trained block has changed")
            return run()
        return self.prefix.above(self._state(batch, whole or run), run)

    def keep(self, batch: Batch, run: Callable[[], object]) -> None:
        """Compute and keep the states of a batch, and nothing above them: for filling the cache before training begins."""
        self._state(batch, run)

    def stop(self, reason: str) -> None:
        """Keep and read nothing any more."""
        self.reason, self.place = reason, None
        if self.cache is not None:
            self.cache.close()
            self.cache = None

    def sentence(self, tokens: int = 0) -> str:
        """What is frozen and what becomes of it, in words; `tokens` are those of all rows, for the expected size."""
        blocks, width = len(self.model.blocks), self.model.width
        first = f"{blocks - self.cut} of {blocks} blocks are trained" if self.cut < blocks else "no block is trained"
        if self.reason or self.place is None:
            return f"{first}; the states below are computed without gradients and not kept: {self.reason}"
        size = f", about {bytes_text(tokens * width * 4)}" if tokens else ""
        return f"{first}; the states below are computed once and kept{size}, in {self.place.folder}"

    # ---- inside -----------------------------------------------------------------------------------------------------------

    def _state(self, batch: Batch, run: Callable[[], object]) -> Tensor:
        """What enters the cut for a batch, [B, T, D]: read, or computed and kept."""
        mode = _products(batch.tokens_BT.device)
        if batch.layout is None or self.reason or (self._began and mode != self._computed_in):
            return self._computed(batch, run)
        digests = path_digests(batch)
        found_TD = self.cache.read(digests) if self.cache is not None else None
        if found_TD is not None and self._compared:
            self.counts.read += len(found_TD)
            return _filled(found_TD, batch.layout.total)[None].to(batch.tokens_BT.device)
        state_1TD = self._computed(batch, run)
        if not self._began:
            self._open(mode, state_1TD)
            found_TD = self.cache.read(digests) if self.cache is not None else None
        if self.cache is None:
            return state_1TD
        if found_TD is not None:
            self._compare(found_TD, state_1TD)
            if self._compared:  # the stored one, so that it makes no difference which batch is the first of a process
                return _filled(found_TD, batch.layout.total)[None].to(state_1TD)
        self.cache.add(digests, batch.layout.lengths[: len(digests)], state_1TD[0])
        return state_1TD

    def _computed(self, batch: Batch, run: Callable[[], object]) -> Tensor:
        self.counts.computed += batch.tokens_BT.numel()
        return self.prefix.below(run)

    def _open(self, mode: str, state_1TD: Tensor) -> None:
        self._began, self._computed_in = True, mode
        assert self.place is not None
        try:
            key = key_of(self.model, self.prefix, self.position_offset, mode, state_1TD)
            self.cache = HiddenCache(self.place.folder, key, self.place.budget)
        except StorageError as error:
            self.stop(str(error))

    def _compare(self, found_TD: Tensor, state_1TD: Tensor) -> None:
        assert self.cache is not None
        state_TD, stored_TD = state_1TD[0, : len(found_TD)].to(found_TD.device).float(), found_TD.float()
        # Token by token: a few tokens of large bases have states a thousand times the others' and would hide them.
        distance = float(((stored_TD - state_TD).norm(dim=1) / state_TD.norm(dim=1).clamp_min(1e-9)).max())
        self._compared = distance <= CLOSE.get(self._computed_in, CLOSE_IN_HALF)
        if not self._compared:
            self.cache.discard()

    def _look(self) -> list[object]:
        """What changes when a module below the cut is replaced, or a weight there written to, replaced or trained."""
        found: list[object] = []
        waiting = [*self.prefix.frozen]
        for module in self.prefix.entrance:
            _note(module, found)
        while waiting:
            module = waiting.pop()
            _note(module, found)
            waiting.extend(vars(module)["_modules"].values())
        return found


def freeze(engine: Engine, settings: Cache) -> FrozenPrefix | None:
    """The frozen prefix of an engine whose tunings are all attached; None where something is trained from the first block on.

    None too where the weights are parts of tensors that several processes hold: they are whole only while a block runs. What
    belongs to the key must be settled: the layout, the precision, the form of the base's weights.
    """
    parameters = {name: value for member in engine.members.values() for name, value in member.parameters.items()}
    cut = lowest_trainable_block(engine.model, parameters)
    if cut == 0 or any(type(parameter) not in (Tensor, Parameter) for parameter in engine.model.network.parameters()):
        return None
    place = None
    if settings.when != "off":
        budget = None if settings.budget_gb is None else int(settings.budget_gb * 1e9)
        place = Place(settings.folder or cache_folder() / "hidden", budget)
    frozen = FrozenPrefix(engine.model, cut, engine.position_offset, place)
    if place is not None and engine.layout != "forest":
        frozen.stop("rows of this base are padded, so that a state is no segment's own")
    return frozen


def fill(frozen: FrozenPrefix, engine: Engine, batches: Iterable[Batch]) -> None:
    """Keep the states of `batches` before training begins; `engine` has no frozen prefix yet."""
    with engine.autocast():
        for batch in batches:
            frozen.keep(batch, lambda batch=batch: engine.hidden(batch))


def _filled(read_TD: Tensor, total: int) -> Tensor:
    """What was read, and behind it as many of its own states again as fill the row up: what stands there reaches nobody."""
    return read_TD if len(read_TD) == total else torch.cat([read_TD, read_TD[: total - len(read_TD)]])


def _by_place(prefix: Prefix) -> str:
    """Why states below the cut depend on more than their tokens, in words; empty where they do not."""
    if any(isinstance(module, HiddenChange) and module.reads_places for _, module in prefix.modules()):
        return "a tuning below changes states by where their tokens stand in a prompt"
    return ""


def _note(module: nn.Module, found: list[object]) -> None:
    held: dict[str, Parameter | None] = vars(module)["_parameters"]
    found.append(id(module))
    found.extend((tensor.data_ptr(), tensor._version, tensor.requires_grad) for tensor in held.values() if tensor is not None)


def _products(device: torch.device) -> str:
    """What products run in at this moment."""
    if not torch.is_autocast_enabled(device.type):
        return "float32"
    return str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")
