"""Putting something around the `forward` of one module, and taking it off again; classes and parameters are never touched."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn

Forward = Callable[..., Any]


class Around:
    """`wrap(plain)` runs in place of a module's `forward`, until it is removed.

    Args:
        module: one instance; others of its class are as before.
        wrap: makes the new `forward` of the one that stands, whoever put it there.
    """

    def __init__(self, module: nn.Module, wrap: Callable[[Forward], Forward]) -> None:
        self.module, self.before = module, vars(module).get("forward")
        plain: Forward = module.forward
        self._now = wrap(plain)
        self._plain = plain
        self._mine = self._forward  # kept, since each look at a bound method makes another one
        module.forward = self._mine

    def _forward(self, *inputs: Any, **named: Any) -> Any:
        return self._now(*inputs, **named)

    def remove(self) -> None:
        """Take it off. Where something else stands over it by now, it stays and lets everything through."""
        self._now = self._plain
        if vars(self.module).get("forward") is not self._mine:
            return
        if self.before is None:
            del self.module.forward
        else:
            self.module.forward = self.before


def stands_around(module: nn.Module) -> bool:
    """Whether something stands around the module now."""
    forward = vars(module).get("forward")
    return isinstance(forward, MethodType) and isinstance(forward.__self__, Around)
