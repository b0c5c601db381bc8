"""B1 to B3: supervised fine-tuning, with LoRA on instructions and on prompt-heavy rows, and of all weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.asked import Asked
from benchmarks.material import base, classify, instruct
from benchmarks.ours import Ours, example, peak
from benchmarks.side_by_side import Stepper, interleave, parity, table

BATCH = 8
TUNED_SFT = {**peers.TUNED, "padding_free": True}
PEERS = {
    "TRL default": peers.DEFAULT,
    "TRL tuned": TUNED_SFT,
    "TRL tuned, bf16": {**TUNED_SFT, "bf16": True},
}


def measure(asked: Asked, rows_of: Any, method: Any, lora: Any) -> dict[str, Any]:
    """Parity in float32, then every contender in turn."""
    with tempfile.TemporaryDirectory() as place:
        folder = base(asked.shape, Path(place) / "base")
        steps = asked.repeats + 4
        rows = rows_of(asked.shape, BATCH * steps)
        trees = [example(row, index) for index, row in enumerate(rows)]
        ours = {"ours": Ours(folder, method, trees), "ours, bf16": Ours(folder, method, trees, precision="bfloat16")}
        start = ours["ours"].stir()
        for one in ours.values():
            one.engine.put_back(start)
        ordered = [rows[index] for index in ours["ours"].order(steps)]

        def peer(settings: dict[str, Any]) -> Any:
            trainer = peers.sft(folder, ordered, settings, BATCH, lora)
            if lora is not None:
                peers.adopt(trainer, start)
            return trainer

        same = parity(ours["ours"].first(), peers.first_step(peer({**TUNED_SFT, "logging_steps": 1}), asked.threads))
        steppers = {name: Stepper(peer(settings), asked.threads) for name, settings in PEERS.items()}
        work = {name: one.step for name, one in ours.items()} | {name: one.step for name, one in steppers.items()}
        timings = interleave(work, asked.repeats)
        for stepper in steppers.values():
            stepper.close()
    used = {
        name: round(
            one.useful(lora is None) / timings[name].median()["wall"] / peak("bfloat16" if "bf16" in name else "float32"), 3
        )
        for name, one in ours.items()
    }
    chosen = min(ours, key=lambda name: timings[name].median()["wall"])
    found = table(timings, chosen, list(PEERS))
    plain = table(timings, "ours", list(PEERS))["ratios"]
    return {
        "parity": same,
        "ours": chosen,
        "ratio_default": found["ratios"]["TRL default"],
        "ratio_tuned": min(found["ratios"]["TRL tuned"], found["ratios"]["TRL tuned, bf16"]),
        "ratio_float32": {"default": plain["TRL default"], "tuned": plain["TRL tuned"]},
        "share_of_product_peak": used,
        "ours_seconds": found["seconds"][chosen],
        "peer_seconds": {name: found["seconds"][name] for name in PEERS},
        "all_seconds": found["seconds"],
        "peer_settings": PEERS,
    }


def b1(asked: Asked) -> dict[str, Any]:
    """SFT LoRA on instructions, half of every row an answer."""
    from tunewright.methods.lora import LoRA

    return measure(asked, instruct, LoRA(rank=8, alpha=16), peers.LORA)


def b2(asked: Asked) -> dict[str, Any]:
    """SFT LoRA on long prompts with answers of two tokens."""
    from tunewright.methods.lora import LoRA

    return measure(asked, classify, LoRA(rank=8, alpha=16), peers.LORA)


def b3(asked: Asked) -> dict[str, Any]:
    """SFT of all weights on instructions."""
    from tunewright.methods.full import Full

    return measure(asked, instruct, Full(), None)
