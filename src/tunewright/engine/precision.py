"""Precision by measurement: bfloat16 only where this machine is really faster with it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

WORTH_IT = 1.5  # times faster in a plain product before the loss of digits is considered
NARROW = 512  # hidden width below which a base is small and fast enough to keep every digit


def measured_speedup(width: int, rows: int = 512) -> float:
    """How many times faster a bfloat16 product [rows, width] x [width, 4 width] is than a float32 one, on this CPU, now.

    4 to 5 times slower where bfloat16 is emulated, 3 to 5 times faster where the CPU has the units.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(rows, width, dtype=dtype), torch.ones(width, 4 * width, dtype=dtype)
        seconds[dtype] = _fastest(lambda left=left, right=right: left @ right)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _fastest(work: Callable[[], object], repeats: int = 4) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times[1:])


def choose(width: int, device: torch.device, trial: Callable[[str], float] | None = None) -> tuple[str, str]:
    """("float32" or "bfloat16", the reason in words).

    Args:
        width: the base's hidden width.
        trial: seconds of a real training step in a precision; asked only where plain products already speak for bfloat16, since
            conversions can eat the gain on narrow models.
    """
    if device.type == "cuda":
        return (
            ("bfloat16", "the GPU computes bfloat16 natively")
            if torch.cuda.is_bf16_supported()
            else ("float32", "the GPU has no bfloat16")
        )
    if width < NARROW:
        return "float32", f"a base of width {width} is small enough to keep every digit"
    speedup = measured_speedup(width)
    if speedup < WORTH_IT:
        return "float32", f"bfloat16 products are {speedup:.1f}x the speed of float32 ones on this CPU"
    if trial is None:
        return "float32", "no step was measured, so nothing speaks for fewer digits"
    full, half = trial("float32"), trial("bfloat16")
    if full / half < 1.2:
        return "float32", f"products are {speedup:.1f}x faster in bfloat16 on this CPU, a whole step only {full / half:.2f}x"
    return "bfloat16", f"a whole step is {full / half:.2f}x faster in bfloat16 on this CPU"
