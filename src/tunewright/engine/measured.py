"""What this machine does fastest, measured in a moment and remembered between runs.

What is remembered holds for one processor, one torch, one version of Tunewright, so many cores and the shape that was measured; it
stands in the user's cache folder, and a file there that is damaged or not ours is passed over and written anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.functional import silu

import tunewright
from tunewright.core.errors import StorageError
from tunewright.core.storage import read_json, write_json
from tunewright.core.surroundings import cache_folder, machine

FILE = "machine.json"
KEPT = 64  # measurements in the file; the oldest go
TINY = 128  # hidden width below which a step is over before any choice could matter
CLEARLY = (
    1.1  # times faster before fewer threads than there are cores are taken: small differences are noise, and would come and go
)
ROWS = 512  # tokens of a measured product


def remembered(of: Mapping[str, object], measure: Callable[[], float]) -> float:
    """What `measure()` gives, or gave on this machine in an earlier run.

    Args:
        of: what is measured, and everything about the model that the number depends on; plain JSON values.
        measure: a finite number.
    """
    path = cache_folder() / FILE
    key = _key(of)
    known = _read()
    if key in known:
        return known[key]
    value = measure()
    known[key] = value
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": 1, "measured": dict(list(known.items())[-KEPT:])})
    except OSError:  # a folder that cannot be written to costs the next run some milliseconds, and this one nothing
        pass
    return value


def _key(of: Mapping[str, object]) -> str:
    here = machine()
    place = {"processor": here["processor"], "cores": here["cores"], "torch": torch.__version__, "code": tunewright.__version__}
    return hashlib.sha256(json.dumps({**of, "where": place}, sort_keys=True).encode()).hexdigest()[:16]


def _read() -> dict[str, float]:
    try:
        found: Any = read_json(cache_folder() / FILE)
    except (StorageError, OSError):
        return {}
    measured = found.get("measured") if isinstance(found, dict) and found.get("format") == 1 else None
    if not isinstance(measured, dict):
        return {}
    return {key: float(value) for key, value in measured.items() if type(value) in (int, float) and math.isfinite(value)}


def fastest(work: Callable[[], object], seconds: float = 0.02) -> float:
    """Seconds of the quickest of several calls, after one that does not count; about `seconds` are spent, on two calls at least."""
    work()
    times: list[float] = []
    while len(times) < 2 or (sum(times) < seconds and len(times) < 20):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def measured_layer(width: int, threads: int) -> float:
    """Seconds of an up-projection with its activation, [512, width] x [width, 4 width], on `threads` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = torch.ones(ROWS, width), torch.ones(width, 4 * width)
        return fastest(lambda: silu(left @ right))
    finally:
        torch.set_num_threads(before)


def choose_threads(width: int, most: int) -> tuple[int, str]:
    """(threads, the reason in words): all cores, unless fewer are clearly faster (shared or hyper-threaded ones can be).

    Args:
        width: the base's hidden width.
        most: cores that this process may use.
    """
    if most == 1:
        return 1, "1: there is one core"
    if width < TINY:
        return most, f"{most}: not measured, a base of width {width} is too small for it to matter"
    counts = sorted({most, *(most // part for part in (2, 4, 8) if most // part), 1})
    seconds = {
        count: remembered({"what": "layer", "width": width, "threads": count}, lambda count=count: measured_layer(width, count))
        for count in counts
    }
    best = min(counts, key=lambda count: seconds[count])
    if seconds[most] / seconds[best] < CLEARLY:
        best = most
    other = most if best != most else 1
    return best, f"{best}: a layer of this width takes {_text(seconds[best])}, and {_text(seconds[other])} with {other}"


def _text(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms"
