"""B12: from the start of the command to the first optimizer step, on a small base."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.asked import Asked
from benchmarks.material import base, text, tokens

ROWS = 200
# The least that a user of TRL writes; it ends the process after the first step.
SCRIPT = """
import os, sys, tempfile
from datasets import load_dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer
class First(TrainerCallback):
    def on_step_end(self, *_, **__):
        os._exit(0)
data = load_dataset("json", data_files=sys.argv[2], split="train")
settings = SFTConfig(output_dir=tempfile.mkdtemp(), report_to="none", use_cpu=True, **({} if sys.argv[3] == "default" else
    dict(bf16=False, gradient_checkpointing=False, max_length=None)))
SFTTrainer(sys.argv[1], args=settings, train_dataset=data, peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
    callbacks=[First()]).train()
"""


def b12(asked: Asked) -> dict[str, Any]:
    """Seconds of whole processes, in turn; each ends (or is ended) when its first optimizer step is made."""
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        folder = base("TINY", here / "base")
        draw = random.Random(0)
        rows = [{"prompt": text(tokens(draw, "TINY", 20)), "completion": " " + text(tokens(draw, "TINY", 12))} for _ in range(ROWS)]
        data = here / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        work = {
            "ours": lambda: _ours(folder, data, here),
            "TRL default": lambda: _trl(folder, data, "default"),
            "TRL tuned": lambda: _trl(folder, data, "tuned"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for number in range(asked.repeats + 1):
            for name, one in work.items():
                taken = one()
                if number:
                    seconds[name].append(taken)
    middle = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    ratios = {
        name: round(statistics.median(one / own for one, own in zip(seconds[name], seconds["ours"], strict=True)), 2)
        for name in work
    }
    return {
        "parity": {"passed": True, "reason": "a start computes nothing that could be compared"},
        "ratio_default": ratios["TRL default"],
        "ratio_tuned": ratios["TRL tuned"],
        "ours_seconds": {"wall": middle["ours"]},
        "peer_seconds": {name: {"wall": middle[name]} for name in work if name != "ours"},
        "peer_settings": {"TRL default": {}, "TRL tuned": {"bf16": False, "gradient_checkpointing": False, "max_length": None}},
    }


def _ours(folder: Path, data: Path, here: Path) -> float:
    runs = Path(tempfile.mkdtemp(dir=here))
    began = time.perf_counter()
    command = [Path(sys.executable).parent / "tunewright", "tune", data, "--base", folder, "--folder", runs, "--name", "first"]
    command += ["--method.rank", "8", "--training.max_steps", "50"]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    steps = runs / "first" / "steps.jsonl"
    while not (steps.is_file() and steps.stat().st_size) and process.poll() is None:
        time.sleep(0.005)
    taken = time.perf_counter() - began
    if process.poll() not in (None, 0):
        raise RuntimeError(process.stderr.read().decode()[-2000:] if process.stderr else "")
    process.kill()
    process.wait()
    return taken


def _trl(folder: Path, data: Path, settings: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", SCRIPT, folder, data, settings], check=True, capture_output=True)
    return time.perf_counter() - began
