"""The model's own attention on padded rows, where virtual tokens have keys and values of their own.

A holder on an attention module (`Keyed`) gives keys and values their last change before attention; `forest_attention` and decoding
ask it, and the functions here do so on the way to transformers' own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

HOLDER = "_tunewright_keyed"
OWN = {"sdpa": "tunewright_sdpa", "eager": "tunewright_eager"}
"""The model's own attention, and the name under which the same with keys and values of virtual tokens is registered."""


class Keyed(Protocol):
    """What an attention module may hold."""

    def put(self, key_BKTW: Tensor, value_BKTW: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values as attention is to see them."""
        ...


def hold(module: nn.Module, holder: Keyed | None) -> Keyed | None:
    """Put a holder on an attention module, or take it off with None; the one that was there is returned."""
    before = vars(module).pop(HOLDER, None)
    if holder is not None:
        vars(module)[HOLDER] = holder
    return before


def keyed(module: nn.Module, key_BKTW: Tensor, value_BKTW: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of an attention module's call, changed by its holder where it has one."""
    holder: Keyed | None = vars(module).get(HOLDER)
    return (key_BKTW, value_BKTW) if holder is None else holder.put(key_BKTW, value_BKTW)


def _sdpa(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **rest: Any) -> Any:
    return AttentionInterface()["sdpa"](module, query, *keyed(module, key, value), attention_mask, **rest)


def _eager(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **rest: Any) -> Any:
    # Each family of transformers has an eager attention of its own, in the file of its modules and always under this name.
    plain = import_module(type(module).__module__).eager_attention_forward
    return plain(module, query, *keyed(module, key, value), attention_mask, **rest)


for _name, _function in (("sdpa", _sdpa), ("eager", _eager)):
    AttentionInterface.register(OWN[_name], _function)
    AttentionMaskInterface.register(OWN[_name], AttentionMaskInterface()[_name])
