"""Prefix tuning's keys and values: in every block they stand in place of what the virtual tokens' own would be.

The virtual tokens run through the network like any root, so layouts, positions, masks, caches and kernels need to know nothing of
them; only what they are to others is exchanged, and nobody reads their outputs.

Shape suffixes: B sequences, T tokens, P virtual tokens, L blocks, K key heads, W head width, D width of the prefix's embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tunewright.core.errors import ConfigurationError
from tunewright.engine.attention.own import OWN, Keyed, hold
from tunewright.engine.network import use_layout
from tunewright.engine.virtual.entrance import NOBODY, Virtual, mount, unmount
from tunewright.models import Model
from tunewright.models.lanes import Lane, Lanes
from tunewright.models.sites import roles

_REFUSED = "prefix_tuning cannot stand on this base: "
_HINT = "Use `method: {name: peft, type: PREFIX_TUNING}`, or `prompt_tuning`."


class Keys(Virtual):
    """The keys and values of one tuning: trained themselves, or made by a two-layer network while training.

    Names, shapes and arithmetic are those of PEFT's `PrefixEncoder`.

    Args:
        states_P: keys and values to begin with, [P, 2 * L, K, W].
    """

    def __init__(self, states_P: Tensor) -> None:
        super().__init__(len(states_P))
        self.shape = tuple(states_P.shape)
        self.prefix = nn.Parameter(states_P.float().flatten(1).clone())

    def states(self) -> Tensor:
        """[P, 2 * L, K, W]."""
        return self.prefix.view(self.shape)


class Projected(Virtual):
    """Keys and values made from an embedding of K * W numbers a token: W2 tanh(W1 e + b1) + b2.

    Args:
        shape: [P, 2 * L, K, W] of what is made.
        hidden: inner width.
        seed: everything is drawn from it, as torch's layers begin.
    """

    def __init__(self, shape: tuple[int, int, int, int], hidden: int, seed: int) -> None:
        super().__init__(shape[0])
        self.shape = shape
        width = shape[2] * shape[3]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(shape[0], width)
            self.transform = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, shape[1] * width))

    def states(self) -> Tensor:
        """[P, 2 * L, K, W]."""
        return self.transform(self.embedding.weight).view(self.shape)


class _Block:
    """On the attention of one block: exchanges the keys and values of virtual tokens."""

    def __init__(self, lanes: Lanes, number: int) -> None:
        self.lanes, self.number = lanes, number

    def put(self, key_BKTW: Tensor, value_BKTW: Tensor) -> tuple[Tensor, Tensor]:
        for one in self.lanes.standing:
            if one.states is not None:
                where = one.rows_N, one.columns_N
                own_NKW = (one.states[one.numbers_N, 2 * self.number + which] for which in (0, 1))
                key_BKTW, value_BKTW = (
                    states.transpose(1, 2).index_put(where, own.to(states.dtype)).transpose(1, 2)
                    for states, own in zip((key_BKTW, value_BKTW), own_NKW, strict=True)
                )
        return key_BKTW, value_BKTW


class _Recorder:
    """On the attention of one block: notes the keys and values of a pass."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def put(self, key_BKTW: Tensor, value_BKTW: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append((key_BKTW, value_BKTW))
        return key_BKTW, value_BKTW


def attentions(model: Model) -> list[nn.Module]:
    """The attention module of each block.

    Raises:
        ConfigurationError: a block has none or several.
    """
    found = roles(model.network)
    parents = []
    for number, block in enumerate(model.blocks):
        inside = {id(module) for module in block.modules()}
        keys = {path.rpartition(".")[0] for path, names in found.items() if "attention.key" in names}
        own = {path: module for path in keys if id(module := model.network.get_submodule(path)) in inside}
        if len(own) != 1:
            raise ConfigurationError(f"{_REFUSED}block {number} has {len(own)} attentions", where="method", hint=_HINT)
        parents += own.values()
    return parents


@torch.no_grad()
def recorded(model: Model, tokens: tuple[int, ...]) -> Tensor:
    """The keys and values that a base gives to tokens as attention sees them (rotated, normalised), [P, 2 * L, K, W] float32.

    Raises:
        ConfigurationError: a block's attention is not computed through transformers' interface, or blocks differ in shape.
    """
    modules = attentions(model)
    recorders = [_Recorder() for _ in modules]
    with _plain_pass(model), _holding(modules, recorders):
        model.body(input_ids=torch.tensor([tokens], device=model.network.device))
    pairs = [pair for recorder in recorders for pair in recorder.seen]
    if any(len(recorder.seen) != 1 for recorder in recorders):
        raise ConfigurationError(f"{_REFUSED}its attention does not go through transformers' interface", where="method", hint=_HINT)
    if len({state.shape for pair in pairs for state in pair}) != 1:
        raise ConfigurationError(f"{_REFUSED}keys and values are not of one shape in all blocks", where="method", hint=_HINT)
    return torch.stack([state[0].float() for pair in pairs for state in pair]).permute(2, 0, 1, 3).contiguous()


@contextmanager
def _plain_pass(model: Model) -> Iterator[None]:
    """Inside, a pass is the base's own, in evaluation mode, and its attention asks holders."""
    network = model.network
    before, training = str(network.config._attn_implementation), network.training
    network.eval()
    network.set_attn_implementation(OWN["sdpa" if network._supports_sdpa else "eager"])
    try:
        with model.lanes.during((Lane(NOBODY, 0, 0),)):
            yield
    finally:
        network.set_attn_implementation(before)
        network.train(training)


@contextmanager
def _holding(modules: Sequence[nn.Module], holders: Sequence[Keyed]) -> Iterator[None]:
    before = [hold(module, holder) for module, holder in zip(modules, holders, strict=True)]
    try:
        yield
    finally:
        for module, holder in zip(modules, before, strict=True):
            hold(module, holder)


def mount_keys(model: Model, slot: int, keys: Virtual) -> None:
    """Put a tuning's virtual tokens on a model, and something on every attention that gives them their keys and values."""
    mount(model, slot, keys)
    model.lanes.keyed.add(slot)
    for number, module in enumerate(attentions(model)):
        hold(module, _Block(model.lanes, number))
    _named_for(model)


def unmount_keys(model: Model, slot: int) -> None:
    """Take them off; the last tuning with keys and values of its own leaves the attention plain."""
    unmount(model, slot)
    model.lanes.keyed.discard(slot)
    if not model.lanes.keyed:
        for module in attentions(model):
            hold(module, None)
    _named_for(model)


def _named_for(model: Model) -> None:
    """The attention of padded rows under the name that asks holders, or under its own where there are none."""
    network = model.network
    if network.config._attn_implementation in (*OWN, *OWN.values()):
        use_layout(model, "padded")
