"""The environment in which we and our peers stand side by side: made once, in `.venv-bench`, with pinned versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv-bench"
PEERS = ("trl==1.16.0", "accelerate", "lm-eval==0.4.13", "psutil")


def enter() -> None:
    """Go on in the peers' environment, which is made when it is not there; returns at once when this process is in it already."""
    if Path(sys.prefix) == PLACE:
        return
    mark = PLACE / ".installed"
    wanted = " ".join(PEERS)
    if not mark.is_file() or mark.read_text() != wanted:
        print(f"Installing {wanted} into {PLACE.name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PLACE], check=True)
        install = [PLACE / "bin" / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", "-e", ROOT, *PEERS]
        subprocess.run(install, check=True, stdout=sys.stderr)
        mark.write_text(wanted)
    python = PLACE / "bin" / "python"
    # Threads that wait for work asleep: two systems in one process would otherwise spin against each other.
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", PYTHONWARNINGS="ignore")
    os.execv(python, [str(python), *sys.argv])
