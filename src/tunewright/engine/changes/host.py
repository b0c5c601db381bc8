"""Where changes of hidden states stand: at the input or the output of a module, each on the tokens of its own tuning.

A module becomes a host by having a child, `Changes`, that holds them; its class, its parameters and its `forward` stay as they
are, so whatever else is done to a layer (adapters, packed weights, faster products) is done beneath. Layers are reached by hooks,
and whole blocks by something around their `forward`, which does not run where a block's output is read and not computed. When the
last change leaves, nothing of it is left on the host.

Shape suffixes: T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from tunewright.engine.around import Around, Forward
from tunewright.engine.changes.change import HiddenChange, Tokens
from tunewright.models.attached import Attached
from tunewright.models.lanes import Lanes
from tunewright.models.sites import blocks_of

CHILD = "changes"  # the name of the child that makes a module a host


class Spot(NamedTuple):
    """Where a change stands.

    Args:
        change: what stands there.
        path: the module whose hidden states it changes.
        point: which of them, the module's input or its output (of a tuple, the first).
        source: the module whose input the change is computed from; None for what it changes itself.
    """

    change: HiddenChange
    path: str
    point: Literal["input", "output"] = "output"
    source: str | None = None


@dataclass
class _Held:
    tuning: int
    change: HiddenChange
    point: str
    source: Changes | None


class Changes(Attached):
    """The changes on one module, those of all tunings.

    Attributes:
        narrowed: whether the host is given only some rows in the pass at hand (`engine.narrow`).
    """

    def __init__(self, lanes: Lanes) -> None:
        super().__init__()
        self.lanes, self.narrowed = lanes, False
        self._held: list[_Held] = []
        self._readers = 0
        self._seen: tuple[Tensor, Tensor | None] | None = None
        self._ways: list[RemovableHandle | Around] = []

    @property
    def idle(self) -> bool:
        """Whether nobody needs it any more."""
        return not self._held and not self._readers

    def stand_on(self, host: nn.Module, *, block: bool = False) -> None:
        """HiddenChange what `host` computes from now on."""
        self._leave()
        if block:
            self._ways = [Around(host, self._around)]
        else:
            self._ways = [host.register_forward_pre_hook(self._entering), host.register_forward_hook(self._leaving)]
        host.add_module(CHILD, self)

    def leave(self, host: nn.Module) -> None:
        """`host` is what it was."""
        self._leave()
        delattr(host, CHILD)

    def _leave(self) -> None:
        for way in self._ways:
            way.remove()
        self._ways = []

    def add(self, tuning: int, spot: Spot, source: Changes | None) -> None:
        """Hold one more change, behind those that are there; `source` notes what it is computed from."""
        self._held.append(_Held(tuning, spot.change, spot.point, source))
        if source is not None:
            source._readers += 1
        names = (f"tuning{tuning}_{number}" for number in range(len(self._held)))
        self.add_module(next(name for name in names if name not in self._modules), spot.change)

    def drop(self, changes: set[HiddenChange]) -> None:
        """Hold those of `changes` no more that are held here."""
        for held in [held for held in self._held if held.change in changes]:
            self._held.remove(held)
            delattr(self, next(name for name, child in self._modules.items() if child is held.change))
            if held.source is not None:
                held.source._readers -= 1

    # ---- what happens around the host's forward ---------------------------------------------------------------------------

    def _entering(self, _host: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._readers:
            self._seen = given[0], self.lanes.rows
        if not any(held.point == "input" for held in self._held):
            return None
        changed = self._changed("input", given[0])
        return None if changed is None else (changed, *given[1:])

    def _leaving(self, _host: nn.Module, _given: tuple[Any, ...], output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        changed = self._changed("output", first)
        for held in self._held:
            if held.source is not None:
                held.source._seen = None  # nobody else reads it
        if changed is None:
            return output
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def _around(self, plain: Forward) -> Forward:
        def forward(*inputs: Any, **named: Any) -> Any:
            return self._leaving(self, (), plain(*inputs, **named))

        return forward

    def _changed(self, point: str, hidden: Tensor) -> Tensor | None:
        live = [held for held in self._held if held.point == point and held.change.enabled]
        if not live:
            return None
        if not torch.compiler.is_compiling():
            return self._lane_by_lane(live, hidden)
        # Where lanes and prompts lie differs in every batch, so a graph must not read it; one tuning for all tokens need not.
        if len(self.lanes.members) > 1 or any(held.change.reads_places for held in live):
            return _between_graphs(self, live, hidden)  # pyright: ignore[reportCallIssue]
        return self._by_one(live, hidden, Tokens(0, hidden.shape[:-1].numel(), None, hidden.shape[-2]))

    def _by_one(self, live: Sequence[_Held], hidden: Tensor, tokens: Tokens) -> Tensor:
        """All of `hidden` is one tuning's."""
        hidden_TD = hidden.flatten(0, -2)
        for held in live:
            hidden_TD = held.change(hidden_TD, tokens, self._read(held, hidden_TD))
        return hidden_TD.view(hidden.shape)

    def _lane_by_lane(self, live: Sequence[_Held], hidden: Tensor) -> Tensor | None:
        count, width = hidden.shape[:-1].numel(), hidden.shape[-2]
        lanes = self.lanes.over(count, {held.tuning for held in live})
        own = {lane.tuning: [held for held in live if held.tuning == lane.tuning] for lane in lanes}
        lanes = [lane for lane in lanes if own[lane.tuning] and lane.stop > lane.start]
        if not lanes:
            return None
        here = self.lanes.here if any(held.change.reads_places for held in live) else None
        if len(lanes) == 1 and lanes[0].stop - lanes[0].start == count:
            return self._by_one(own[lanes[0].tuning], hidden, Tokens(0, count, here, width))
        hidden_TD = hidden.flatten(0, -2)
        pieces, place = [], 0
        for tuning, start, stop in lanes:
            part_TD = hidden_TD[start:stop]
            for held in own[tuning]:
                read_TD = part_TD if held.source is None else self._read(held, part_TD)[start:stop]
                part_TD = held.change(part_TD, Tokens(start, stop, here, width), read_TD)
            pieces += [hidden_TD[place:start], part_TD]
            place = stop
        pieces.append(hidden_TD[place:])
        return torch.cat([piece for piece in pieces if len(piece)]).view(hidden.shape)

    def _read(self, held: _Held, hidden_TD: Tensor) -> Tensor:
        """What a change is computed from, of all tokens that the layer at hand computes."""
        if held.source is None:
            return hidden_TD
        seen = held.source._seen
        if seen is None:
            raise RuntimeError("the source of a change did not run before the layer that it changes")
        read, rows = seen
        read_TD = read.flatten(0, -2)
        return read_TD if self.lanes.rows is rows else read_TD[self.lanes.rows]


@torch.compiler.disable
def _between_graphs(changes: Changes, live: Sequence[_Held], hidden: Tensor) -> Tensor | None:
    return changes._lane_by_lane(live, hidden)


def changes_on(module: nn.Module) -> Changes | None:
    """The changes on a module; None where it is no host."""
    found = module._modules.get(CHILD)
    return found if isinstance(found, Changes) else None


def put_on(network: PreTrainedModel, lanes: Lanes, tuning: int, spots: Sequence[Spot]) -> None:
    """Put the changes of a tuning on, beside and behind those of others.

    Args:
        lanes: the network's own; see `tunewright.models.lanes`.
        tuning: its number there.
    """
    blocks = blocks_of(network)
    for spot in spots:
        source = None if spot.source is None else _host(network, lanes, spot.source, blocks)
        _host(network, lanes, spot.path, blocks).add(tuning, spot, source)


def _host(network: PreTrainedModel, lanes: Lanes, path: str, blocks: Mapping[str, nn.Module]) -> Changes:
    host = network.get_submodule(path)
    changes = changes_on(host)
    if changes is None:
        changes = Changes(lanes)
        changes.stand_on(host, block=path in blocks)
    return changes


def take_off(network: PreTrainedModel, spots: Sequence[Spot]) -> None:
    """Take changes off; what hosts nothing any more is what it was."""
    leaving = {spot.change for spot in spots}
    paths = dict.fromkeys(path for spot in spots for path in (spot.path, spot.source) if path is not None)
    hosts = {path: network.get_submodule(path) for path in paths}
    for host in hosts.values():
        changes = changes_on(host)
        if changes is not None:
            changes.drop(leaving)
    for host in hosts.values():
        changes = changes_on(host)
        if changes is not None and changes.idle:
            changes.leave(host)


def hand_over_changes(old: nn.Module, new: nn.Module) -> None:
    """What stands on the layer `old` stands on `new` from now on, which is about to take its place."""
    changes = changes_on(old)
    if changes is not None:
        delattr(old, CHILD)
        changes.stand_on(new)
