"""Linear layers that carry adapters: one adapter a tuning, each changing the tokens of its own tuning only.

A layer begins to carry by becoming an instance of a class of its own kind (`CarryingLinear` is an `nn.Linear`), so its name, its
parameters and what families ask of it stay as they are; the adapters are its children. When the last adapter leaves, the layer
is of its first class again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunewright.engine.changes.host import hand_over_changes
from tunewright.engine.linear.adapter import Adapter, Change
from tunewright.engine.linear.hosts import Hooked
from tunewright.engine.linear.product import Cut, Frozen, OwnProduct, project
from tunewright.engine.linear.siblings import Siblings, families
from tunewright.models.lanes import Lanes

# Tokens up to which lanes of different lengths are filled up with zeros to be one product. In float32 (MKL) a product a lane costs
# no more; in bfloat16 (oneDNN) each costs 15 us before it begins, and four lanes of 16 tokens are 1.4 times quicker filled up.
RAGGED = 128


@dataclass
class Cargo:
    """What a carrying layer carries.

    Args:
        lanes: says which tokens belong to which tuning.
        adapters: by the tuning's number.
        siblings: the layers that are computed together with this one, if any.
        forward: what stood on the instance before it carried; it would hide the class's, so it waits here.
    """

    lanes: Lanes
    adapters: dict[int, Adapter] = field(default_factory=dict)
    siblings: Siblings[Carrying] | None = None
    forward: Callable[..., Any] | None = None


class Carrying(nn.Module):
    """The half of a carrying layer's class that is not the layer's own kind."""

    plain: type[nn.Module]
    cargo: Cargo

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]: the base's output, changed where a tuning's tokens stand."""
        if torch.compiler.is_compiling():
            return _in_a_graph(self, x)
        siblings = self.cargo.siblings
        return together([self], x)[0] if siblings is None else siblings.take(self, x)


@cache
def _carrying(kind: type[nn.Module]) -> type[Carrying]:
    return type(f"Carrying{kind.__name__}", (Carrying, kind), {"plain": kind, "__module__": __name__})


class Load(NamedTuple):
    """Who changes what in one pass over some layers: cuts as `product` takes them, and the adapters in the same order."""

    cuts: list[Cut]
    adapters: list[Adapter]


def together(layers: Sequence[Carrying], x: Tensor) -> tuple[Tensor, ...]:
    """The output of each of `layers` for the same x."""
    load = _load(layers, x)
    if not load.adapters and not all(_fusable(layer) for layer in layers):
        return tuple(layer.plain.forward(layer, x) for layer in layers)
    if any(adapter.wet for adapter in load.adapters) or not all(_fusable(layer) for layer in layers):
        return tuple(_step_by_step(layer, x, _load([layer], x)) for layer in layers)
    pairs = [matrix for adapter in load.adapters for matrix in adapter.pair()]
    outputs = project(x, [_frozen(layer) for layer in layers], load.cuts, pairs)
    return _gained(outputs, layers, load) if any(adapter.gained for adapter in load.adapters) else outputs


def _gained(outputs: Sequence[Tensor], layers: Sequence[Carrying], load: Load) -> tuple[Tensor, ...]:
    """Outputs y of which the adapters' own tokens become b + gain (y - b)."""
    parts: list[list[tuple[int, int, Adapter]]] = [[] for _ in layers]
    adapters = iter(load.adapters)
    for cut in load.cuts:
        start = cut.start
        for length in cut.lengths:
            for number in cut.layers:
                parts[number].append((start, start + length, next(adapters)))
            start += length
    return tuple(_gained_layer(y, layer, own) for y, layer, own in zip(outputs, layers, parts, strict=True))


def _gained_layer(y: Tensor, layer: Carrying, own: Sequence[tuple[int, int, Adapter]]) -> Tensor:
    y_TO, pieces, place = y.view(-1, y.shape[-1]), [], 0
    for start, stop, adapter in sorted(own, key=lambda part: part[0]):
        gain_O = adapter.gain()
        if gain_O is not None:
            bias_O = layer._parameters["bias"]
            here_TO, gain_O = y_TO[start:stop], gain_O.to(y.dtype)
            changed_TO = here_TO * gain_O if bias_O is None else torch.lerp(bias_O.to(y.dtype), here_TO, gain_O)
            pieces += [y_TO[place:start], changed_TO]
            place = stop
    if not pieces:
        return y
    pieces = [piece for piece in (*pieces, y_TO[place:]) if len(piece)]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).view(y.shape)


def _in_a_graph(layer: Carrying, x: Tensor) -> Tensor:
    """The same in plain operations on all of x, which a compiler fuses itself and whose graph serves any number of tokens."""
    standing = [adapter for adapter in layer.cargo.adapters.values() if adapter.enabled]
    # Where the lanes lie changes with every batch, so a graph must not read it; with one tuning on the base it need not.
    if len(standing) > 1 or len(layer.cargo.lanes.members) > 1:
        return _step_by_step(layer, x, _load([layer], x))
    y = layer.plain.forward(layer, x)
    return y + standing[0].beside(x, y) if standing else y


def _load(layers: Sequence[Carrying], x: Tensor) -> Load:
    ragged = RAGGED if x.element_size() < 4 or torch.is_autocast_enabled(x.device.type) else 0
    cuts: list[Cut] = []
    adapters: list[Adapter] = []
    for tuning, start, stop in _ranges(layers, x.numel() // x.shape[-1]):
        of_scale: dict[float, dict[int, Adapter]] = {}
        for number, layer in enumerate(layers):
            adapter = layer.cargo.adapters.get(tuning)
            if adapter is not None and adapter.enabled and stop > start:
                of_scale.setdefault(adapter.scale, {})[number] = adapter
        for scale, own in of_scale.items():  # one, unless a tuning scales its layers differently
            _join(cuts, Cut(start, (stop - start,), (scale,), tuple(own)), ragged)
            adapters += own.values()
    return Load(cuts, adapters)


def _join(cuts: list[Cut], cut: Cut, ragged: int) -> None:
    """Append a cut, or make it another lane of the last: neighbours with the same layers are one product if they are of one length,
    or of at most `ragged` tokens each.
    """
    last = cuts[-1] if cuts else None
    if last is not None and last.stop == cut.start and last.layers == cut.layers:
        joined = Cut(last.start, last.lengths + cut.lengths, last.scales + cut.scales, cut.layers)
        if len(set(joined.lengths)) == 1 or max(joined.lengths) <= ragged:
            cuts[-1] = joined
            return
    cuts.append(cut)


def _ranges(layers: Sequence[Carrying], count: int) -> list[tuple[int, int, int]]:
    """(tuning, start, stop) over `count` tokens.

    Raises:
        ValueError: several tunings stand here, and nothing says whose tokens these are.
    """
    runs = layers[0].cargo.lanes.runs
    if len(runs) > 1:
        if runs[-1].stop != count:
            raise ValueError(f"the lanes end at token {runs[-1].stop} and a layer was given {count} tokens")
        return [(run.tuning, run.start, run.stop) for run in runs]
    if runs:  # one tuning owns everything, also where a block computes only some of its tokens
        return [(runs[0].tuning, 0, count)]
    standing = {tuning for layer in layers for tuning, adapter in layer.cargo.adapters.items() if adapter.enabled}
    if len(standing) > 1:
        raise ValueError(f"tunings {sorted(standing)} stand on one layer, and no lanes say whose tokens these are")
    return [(tuning, 0, count) for tuning in standing]


def _fusable(layer: Carrying) -> bool:
    """Whether the base's part is a product with a frozen weight that the fused product can do, or knows how to ask for."""
    if not _served(layer.plain):
        return False
    return not any(parameter is not None and parameter.requires_grad for parameter in layer._parameters.values())


def _served(kind: type[nn.Module]) -> bool:
    return kind is nn.Linear or kind is Conv1D or issubclass(kind, OwnProduct)


def _frozen(layer: Carrying) -> Frozen:
    held: dict[str, Any] = layer._parameters
    if isinstance(layer, OwnProduct):
        return Frozen(None, held["bias"], layer)
    return Frozen(held["weight"] if layer.plain is Conv1D else held["weight"].t(), held["bias"])


def _step_by_step(layer: Carrying, x: Tensor, load: Load) -> Tensor:
    """The same by separate operations, for layers that the fused product does not serve."""
    y = layer.plain.forward(layer, x)
    x_TI, y_TO, parts, place = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), [], 0
    adapters = iter(load.adapters)
    for cut in load.cuts:
        start = cut.start
        for length in cut.lengths:
            part_TO = next(adapters).beside(x_TI[start : start + length], y_TO[start : start + length])
            parts += [part_TO.new_zeros(start - place, part_TO.shape[1]), part_TO]
            start = place = start + length
    if not parts:
        return y
    parts.append(parts[-1].new_zeros(len(x_TI) - place, y.shape[-1]))
    change_TO = parts[1] if len(parts[1]) == len(x_TI) else torch.cat(parts)
    return y + change_TO.view(y.shape)


def load_on(network: PreTrainedModel, lanes: Lanes, tuning: int, adapters: Mapping[str, Change]) -> None:
    """Put the adapters of a tuning on the layers at their paths, beside those of other tunings.

    Args:
        lanes: the network's own; see `tunewright.models.lanes`.
        tuning: its number there.

    Raises:
        ValueError: another tuning is folded into these weights, and its change would be everybody's; or the tuning has a change on
            one of these layers already.
    """
    if any(isinstance(module, Change) and module.folded for module in network.modules()):
        raise ValueError("a tuning is folded into the base's weights; unfold it before another joins")
    taken = next((path for path in adapters if _name(tuning) in network.get_submodule(path)._modules), None)
    if taken is not None:
        raise ValueError(f"'{taken}' has a change of this tuning already")
    for path, adapter in adapters.items():
        layer = network.get_submodule(path)
        layer.add_module(_name(tuning), adapter)
        adapter.stand_on(layer)
        if isinstance(adapter, Hooked):
            adapter.join(lanes, tuning)
            continue
        assert isinstance(adapter, Adapter)
        if not isinstance(layer, Carrying):
            layer.__class__ = _carrying(type(layer))
            layer.cargo = Cargo(lanes, forward=vars(layer).pop("forward", None))  # type: ignore[assignment]
        assert isinstance(layer, Carrying)
        layer.cargo.adapters[tuning] = adapter
    _arrange(network)


def take_off(network: PreTrainedModel, tuning: int, paths: Sequence[str]) -> None:
    """Take the adapters of a tuning off; a layer that carries nothing any more is what it was."""
    for path in paths:
        layer = network.get_submodule(path)
        adapter = getattr(layer, _name(tuning))
        delattr(layer, _name(tuning))
        if isinstance(adapter, Hooked):
            adapter.leave()
            continue
        assert isinstance(layer, Carrying)
        del layer.cargo.adapters[tuning]
        if not layer.cargo.adapters:
            _unburden(layer)
    _arrange(network)


def hand_over(old: nn.Module, new: nn.Module) -> None:
    """What stands on `old` stands on `new` from now on, which is about to take its place. It may be nothing."""
    hand_over_changes(old, new)
    if not isinstance(old, Carrying):
        return
    new.__class__ = _carrying(type(new))
    assert isinstance(new, Carrying)
    new.cargo = Cargo(old.cargo.lanes, old.cargo.adapters)
    for tuning, adapter in new.cargo.adapters.items():
        new.add_module(_name(tuning), adapter)
        adapter.stand_on(new)
        delattr(old, _name(tuning))
    _unburden(old)


def _unburden(layer: Carrying) -> None:
    """What carried is of its first class again."""
    _alone(layer)
    if layer.cargo.forward is not None:
        layer.forward = layer.cargo.forward
    del layer.cargo
    layer.__class__ = layer.plain  # pyright: ignore[reportAttributeAccessIssue]


def _alone(layer: Carrying) -> None:
    """Part a layer from its siblings, and these from each other."""
    siblings = layer.cargo.siblings
    if siblings is not None:
        siblings.close()
        for member in siblings.members:
            member.cargo.siblings = None


def _name(tuning: int) -> str:
    return f"lora_{tuning}"


def _arrange(network: PreTrainedModel) -> None:
    """Group anew the layers that read the same input."""
    carrying = {path: module for path, module in network.named_modules() if isinstance(module, Carrying)}
    for layer in carrying.values():
        _alone(layer)
    for parent, paths in families(network, [path for path, layer in carrying.items() if _served(layer.plain)]):
        members = [carrying[path] for path in paths]
        siblings = Siblings(network.get_submodule(parent), members, together)
        for layer in members:
            layer.cargo.siblings = siblings
