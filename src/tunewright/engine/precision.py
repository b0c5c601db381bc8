"""Precision by measurement: bfloat16 only where this machine is really faster with it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tunewright.engine.measured import ROWS, fastest

WORTH_IT = 1.5  # times faster in a plain product before the loss of digits is considered
WORTH_A_STEP = 1.2  # times faster in a whole step
NARROW = 512  # hidden width below which a base is small and fast enough to keep every digit


def measured_speedup(width: int, rows: int = ROWS) -> float:
    """How many times faster a bfloat16 product [rows, width] x [width, 4 width] is than a float32 one, on this CPU, now.

    4 to 5 times slower where bfloat16 is emulated, 3 to 5 times faster where the CPU has the units.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(rows, width, dtype=dtype), torch.ones(width, 4 * width, dtype=dtype)
        seconds[dtype] = fastest(lambda left=left, right=right: left @ right)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def choose(
    width: int,
    device: torch.device,
    step_speedup: Callable[[], float] | None = None,
    product_speedup: Callable[[int], float] | None = None,
) -> tuple[str, str]:
    """("float32" or "bfloat16", the reason in words).

    Args:
        width: the base's hidden width.
        step_speedup: how many times faster a real training step is in bfloat16; asked only where plain products already speak for
            it, since conversions can eat the gain on narrow models.
        product_speedup: the same for a product of a width; measured when not given.
    """
    if device.type == "cuda":
        return (
            ("bfloat16", "the GPU computes bfloat16 natively")
            if torch.cuda.is_bf16_supported()
            else ("float32", "the GPU has no bfloat16")
        )
    if width < NARROW:
        return "float32", f"a base of width {width} is small enough to keep every digit"
    product = (product_speedup or measured_speedup)(width)
    if product < WORTH_IT:
        return "float32", f"bfloat16 products are {product:.1f}x the speed of float32 ones on this CPU"
    if step_speedup is None:
        return "float32", "no step was measured, so nothing speaks for fewer digits"
    step = step_speedup()
    if step < WORTH_A_STEP:
        return "float32", f"products are {product:.1f}x faster in bfloat16 on this CPU, a whole step only {step:.2f}x"
    return "bfloat16", f"a whole step is {step:.2f}x faster in bfloat16 on this CPU"
