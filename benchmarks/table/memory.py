"""B11: the largest resident memory of a process that makes a few steps, for the workloads of B1 and B4; one process a contender."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.asked import Asked
from benchmarks.material import base, instruct, pairs, text

STEPS = 4


def b11(asked: Asked) -> dict[str, Any]:
    """Peak resident memory, and what of it came after everything was imported and the base loaded (`grown`)."""
    lines: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = base(asked.shape, Path(place) / "base")
        for work in ("B1", "B4"):
            found: dict[str, list[dict[str, float]]] = {"ours": [], "TRL tuned": [], "TRL default": []}
            for _ in range(3):
                for name, runs in found.items():
                    runs.append(_alone(work, name, folder, asked))
            lines[work] = {
                name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
            }
    shares = {work: round(line["ours"]["peak_mb"] / line["TRL tuned"]["peak_mb"], 3) for work, line in lines.items()}
    grown = {work: round(line["ours"]["grown_mb"] / line["TRL tuned"]["grown_mb"], 3) for work, line in lines.items()}
    return {
        "parity": {"passed": True, "reason": "the workloads are those of B1 and B4, whose parity is shown there"},
        "ratio_default": round(
            statistics.mean(line["TRL default"]["peak_mb"] / line["ours"]["peak_mb"] for line in lines.values()), 2
        ),
        "ratio_tuned": round(min(1 / share for share in shares.values()), 2),
        "share_of_peak": shares,
        "share_of_what_steps_add": grown,
        "peak_memory": lines,
        "ours_seconds": None,
        "peer_seconds": None,
        "peer_settings": {"TRL tuned": "as in B1 and B4, float32 on both sides", "TRL default": {}},
    }


def peaks(work: str, asked: Asked, names: tuple[str, ...] = ("ours", "TRL tuned", "TRL default")) -> dict[str, dict[str, float]]:
    """Peak memory of each contender, in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        folder = base(asked.shape, Path(place) / "base")
        return {name: _alone(work, name, folder, asked) for name in names}


def _alone(work: str, name: str, folder: Path, asked: Asked) -> dict[str, float]:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from benchmarks.table.memory import inside; inside(*sys.argv[2:])"
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, root, work, name, folder, asked.shape, str(asked.threads)]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def _peak() -> float:
    """Megabytes. Not `ru_maxrss`, which a process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def inside(work: str, name: str, folder: str, shape: str, threads: str) -> None:
    """One contender, alone in its process; prints its peak as JSON."""
    import torch

    torch.set_num_threads(int(threads))
    step = _ours(work, Path(folder), shape) if name == "ours" else _trl(work, Path(folder), shape, name, int(threads))
    before = _peak()
    for _ in range(STEPS):
        step()
    print(json.dumps({"peak_mb": round(_peak(), 1), "grown_mb": round(_peak() - before, 1)}))


def _ours(work: str, folder: Path, shape: str) -> Any:
    from benchmarks.ours import Ours, branches, example
    from tunewright.methods.lora import LoRA

    method = LoRA(rank=8, alpha=16)
    if work == "B1":
        return Ours(folder, method, [example(row, index) for index, row in enumerate(instruct(shape, 8 * STEPS))]).step
    from benchmarks.table.preferences import PAIRS, Preference, reference

    trees = [branches(prompt, [one, other], index) for index, (prompt, one, other) in enumerate(pairs(shape, PAIRS * STEPS))]
    found: list[Ours] = []
    loss = Preference(lambda: found[0])
    found.append(Ours(folder, method, trees, loss, batch_size=PAIRS))
    loss.cached = reference(found[0])
    return found[0].step


def _trl(work: str, folder: Path, shape: str, name: str, threads: int) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer

    from benchmarks import peers
    from benchmarks.side_by_side import Stepper

    tuned = name == "TRL tuned"
    if work == "B1":
        settings = {**peers.TUNED, "padding_free": True} if tuned else {}
        return Stepper(peers.sft(folder, instruct(shape, 8 * STEPS), settings), threads).step
    from trl import DPOConfig, DPOTrainer

    settings = {**peers.TUNED, "precompute_ref_log_probs": True} if tuned else {}
    rows = [{"prompt": text(p), "chosen": " " + text(c), "rejected": " " + text(r)} for p, c, r in pairs(shape, 4 * STEPS)]
    trainer = DPOTrainer(
        peers.network(folder),
        args=DPOConfig(**peers.settled(settings, 4), beta=0.1),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=peers.LORA,
    )
    return Stepper(trainer, threads).step
