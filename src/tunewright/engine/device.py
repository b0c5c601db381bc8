"""Where tensors live: the GPU when there is one, else the CPU, or what the user says."""

from __future__ import annotations

import psutil
import torch

from tunewright.core.errors import RequestError
from tunewright.core.surroundings import process


def choose_device(asked: str) -> torch.device:
    """The device for "auto", "cpu", "cuda" or "cuda:1".

    Raises:
        RequestError: a GPU was asked for and torch sees none.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked != "cpu" and not torch.cuda.is_available():
        hint = "Use `device: cpu`, or install a torch with CUDA."
        raise RequestError(f"'{asked}' was asked for and torch {torch.__version__} sees no GPU", where="device", hint=hint)
    return torch.device(asked)


def held(device: torch.device) -> int:
    """Bytes that this process holds on the device now."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def available(device: torch.device) -> int:
    """Bytes that this process may come to hold on the device, what it holds already included.

    The memory of a machine is shared by the processes of a run on it; each of them has a GPU of its own.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + held(device)
    return psutil.virtual_memory().available // process().local_world + held(device)


def has_vnni() -> bool:
    """Whether this processor multiplies bytes several times faster than 32-bit numbers (AVX-512 VNNI)."""
    return bool(torch.cpu._is_vnni_supported())
