"""Coming together and parting: the processes that `torchrun` has started find each other, and let go at the end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from tunewright.core.errors import Interrupted
from tunewright.core.surroundings import cores, process
from tunewright.engine.device import choose_device
from tunewright.engine.placement import Placement
from tunewright.engine.placement.replicated import Replicated

PATIENCE = timedelta(minutes=30)  # how long a process waits for one that is alive and busy (a long evaluation, a large checkpoint)


@contextlib.contextmanager
def joined(stop_asked: Callable[[], bool] = lambda: False) -> Iterator[Placement]:
    """Inside, this process belongs to the group that it was started with; alone, there is nothing to join.

    Collectives on CPU tensors run over gloo, those on CUDA tensors over NCCL.

    Raises:
        Interrupted: this process was asked to stop before it met the others; one of them may never come.
        ProcessLostError: another process ended.
    """
    own = process()
    if own.world == 1:
        yield Placement(own)
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(own.local_rank % torch.cuda.device_count())
    group = Replicated(own)
    with group.guarded(), _mortal():
        if stop_asked():
            raise Interrupted("stopped before the processes of the run had met, as asked")
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield group
    finally:
        # Closing the connections is also what tells the others when this process ends by an error.
        dist.destroy_process_group()


@contextlib.contextmanager
def _mortal() -> Iterator[None]:
    """Inside, SIGTERM ends the process at once.

    While it waits for the others there is nothing to keep, and Python's handlers are not heard: if one of them never comes, the
    launcher ends this one so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def own_device(asked: str) -> torch.device:
    """The device of this process: of several on one machine, each takes the GPU of its number.

    Raises:
        RequestError: a GPU was asked for and there is none.
    """
    device, own = choose_device(asked), process()
    if device.type == "cuda" and own.local_world > 1:
        return torch.device("cuda", own.local_rank % torch.cuda.device_count())
    return device


def own_threads(asked: int | None) -> int:
    """The threads of this process: what was asked for, and at most its share of the cores where several stand on one machine."""
    own = process()
    share = max(1, cores() // own.local_world)
    if asked is None:
        return share
    return asked if own.local_world == 1 else min(asked, share)
