"""Where a run happens: machine, versions, the state of the code. The one place that reads the environment."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

PACKAGES = (
    "tunewright",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "datasets",
    "numpy",
    "scikit-learn",
    "sacrebleu",
)


def variable(name: str) -> str | None:
    """An environment variable, or None."""
    return os.environ.get(name)


def set_default(name: str, value: str) -> None:
    """Set an environment variable that the user has not set."""
    os.environ.setdefault(name, value)


def cache_folder() -> Path:
    """Where this user's caches of ours stand: TUNEWRIGHT_CACHE, or a folder in XDG_CACHE_HOME, or in ~/.cache."""
    named = variable("TUNEWRIGHT_CACHE")
    return Path(named).expanduser() if named else Path(variable("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tunewright"


class Process(NamedTuple):
    """Which process of a run this is.

    Args:
        rank: its number among all `world` processes; the first one, 0, writes and speaks.
        local_rank: its number among the `local_world` processes on its machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def process() -> Process:
    """What a launcher says about this process (`torchrun`: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE), or the only one."""
    rank, world = (variable(name) or "" for name in ("RANK", "WORLD_SIZE"))
    # Without an address to meet at, these names are somebody else's (a scheduler's).
    if not (rank.isdigit() and world.isdigit() and int(rank) < int(world) and variable("MASTER_ADDR")):
        return Process()
    local_rank, local_world = (variable(name) or "" for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    return Process(
        int(rank),
        int(world),
        int(local_rank) if local_rank.isdigit() else int(rank),
        int(local_world) if local_world.isdigit() else int(world),
    )


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """Processor, cores, memory, system; no name of host or user."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": str(cores()),
        "memory": f"{pages / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def code_hash() -> str:
    """A hash over the package's own sources: two runs with the same hash ran the same code."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
