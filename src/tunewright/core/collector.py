"""Python's cyclic garbage collector, out of the way where it costs and cannot find anything.

Importing torch and transformers makes some hundred thousand objects that all stay. The collector would go through them again and
again while they are made, for a sixth of the time that the imports take, and in every full collection of the run that follows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Inside, no cycles are looked for; afterwards they are again, unless they were not before. Reference counting goes on."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def set_aside(load: Callable[[], None]) -> Iterator[None]:
    """Calls `load`; inside, the collector leaves out what is there by then, and afterwards it looks at everything again.

    Where somebody has frozen objects already (a server before it forks), they stay so: theirs could not be told from ours.
    """
    with paused():
        load()
        ours = not gc.get_freeze_count()
        if ours:
            gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()
