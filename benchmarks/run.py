"""Measure ourselves against peers: `python benchmarks/run.py B1 [--quick] [--json]`, or `all` for the whole table.

The peers are installed into `.venv-bench` on first use. Before anything is timed, both sides must compute the same loss and
the same gradients (parity); a line whose parity fails is void. `all` writes one file an id into `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import environment
from benchmarks.asked import Asked

TABLE = {
    "B1": ("sft", "b1", "TRL 1.16 SFTTrainer, LoRA, instructions"),
    "B2": ("sft", "b2", "TRL 1.16 SFTTrainer, LoRA, long prompts"),
    "B3": ("sft", "b3", "TRL 1.16 SFTTrainer, all weights"),
    "B4": ("preferences", "b4", "TRL 1.16 DPOTrainer, LoRA"),
    "B5": ("preferences", "b5", "TRL 1.16 RewardTrainer, LoRA"),
    "B6": ("preferences", "b6", "TRL 1.16 GRPOTrainer's update, LoRA, groups of 8"),
    "B7": ("frozen", "b7", "TRL 1.16 and transformers' Trainer, upper quarter of the blocks, 3 epochs"),
    "B8": ("bank", "b8", "PEFT, four adapters one after the other"),
    "B9": ("generation", "b9", "transformers' generate, 8 samples a prompt"),
    "B10": ("choice", "b10", "lm-eval's transformers back-end, 4 options"),
    "B11": ("memory", "b11", "TRL 1.16, peak memory of B1 and B4"),
    "B12": ("start", "b12", "TRL 1.16, start to first step"),
}
RESULTS = Path(__file__).parent / "results"


def measured(name: str, asked: Asked) -> dict[str, Any]:
    """One line of the table."""
    import torch

    from tunewright.core.surroundings import machine, versions

    torch.set_num_threads(asked.threads)
    module, function, peer = TABLE[name]
    with contextlib.redirect_stdout(sys.stderr):  # trainers print their own lines; ours is the only one on standard output
        found = getattr(importlib.import_module(f"benchmarks.table.{module}"), function)(asked)
        if name in ("B1", "B4"):
            found["peak_memory"] = importlib.import_module("benchmarks.table.memory").peaks(name, asked)
    found.setdefault("peak_memory", {"all contenders in one process": {"peak_mb": round(_resident(), 1)}})
    peers = {one: versions_of(one) for one in ("trl", "peft", "accelerate", "lm_eval") if versions_of(one)}
    return {"id": name, "peer": peer, **found, "settings": asked._asdict(), "machine": machine(), "versions": versions() | peers}


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def versions_of(package: str) -> str | None:
    """The installed version, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> int:
    """Measure what is asked for; 1 when the parity of any line failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("id", choices=[*TABLE, "all"])
    parser.add_argument("--quick", action="store_true", help="a tiny base and few repeats: does it run, not how fast is it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shape", default="S8")
    given = parser.parse_args()
    environment.enter()
    asked = Asked("TINY", 3, given.threads) if given.quick else Asked(given.shape, given.repeats, given.threads)
    lines = {}
    for name in TABLE if given.id == "all" else [given.id]:
        try:
            lines[name] = measured(name, asked)
        except Exception as error:  # one line that cannot be measured is void, and the others are measured all the same
            if given.id != "all":
                raise
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
            lines[name] = {"id": name, "peer": TABLE[name][2], "ratio_tuned": 0.0, "parity": {"passed": False, "reason": reason}}
        if not given.json:
            print(summary(lines[name]), flush=True)
        if given.id == "all" and not given.quick:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps(lines[name], indent=1) + "\n", encoding="utf-8")
    if given.json:
        print(json.dumps(lines if given.id == "all" else lines[given.id]))
    return int(not all(line["parity"]["passed"] for line in lines.values()))


def summary(line: dict[str, Any]) -> str:
    """One line for people."""
    verdict = (
        line["parity"].get("reason", "same loss and gradients") if line["parity"]["passed"] else f"PARITY FAILED {line['parity']}"
    )
    default = "" if line.get("ratio_default") is None else f"{line['ratio_default']:.2f}x default, "
    return f"{line['id']:4} {line['peer']}: {default}{line['ratio_tuned']:.2f}x tuned ({verdict})"


if __name__ == "__main__":
    sys.exit(main())
