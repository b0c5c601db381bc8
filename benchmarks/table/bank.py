"""B8: four adapters trained at once on one base, against four runs of PEFT one after the other."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from benchmarks import peers
from benchmarks.asked import Asked
from benchmarks.material import base, tokens
from benchmarks.ours import RATE, example
from benchmarks.side_by_side import interleave, parity, table
from tunewright.engine.engine import Engine
from tunewright.engine.fused import fuse
from tunewright.engine.members import Member
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.probe import probe
from tunewright.engine.settings import AdamW
from tunewright.methods.lora import LoRA
from tunewright.models.loading import load_folder
from tunewright.training.bank import Bank, Trainee
from tunewright.training.loop import Pace, Plan

COUNT, SIZES = 4, (16, 64, 256)


def b8(asked: Asked) -> dict[str, Any]:
    """A step of each of four adapters, with rows of 16, 64 and 256 tokens; the ratio is of whole rounds."""
    with tempfile.TemporaryDirectory() as place:
        folder = base(asked.shape, Path(place) / "base")
        lines = {size: _size(asked, folder, size) for size in SIZES}
    return {
        "parity": {
            "passed": all(line["parity"]["passed"] for line in lines.values()),
            **{f"{size} tokens": line["parity"] for size, line in lines.items()},
        },
        "ratio_default": None,
        "ratio_tuned": lines[16]["ratio"],
        "ratio_by_tokens": {str(size): line["ratio"] for size, line in lines.items()},
        "ours_seconds": lines[16]["seconds"]["ours"],
        "peer_seconds": lines[16]["seconds"]["PEFT, one after the other"],
        "all_seconds": {str(size): line["seconds"] for size, line in lines.items()},
        "peer_settings": {"precision": "float32", "optimizer": "torch AdamW, fused", "one row a step": True},
    }


def _size(asked: Asked, folder: Path, size: int) -> dict[str, Any]:
    draw = random.Random(size)
    rows = [(tokens(draw, asked.shape, size), size // 2) for _ in range(COUNT)]
    bank, starts = _bank(folder, rows)
    rounds = bank.rounds()
    steps, networks = zip(*(_peft(folder, row, start) for row, start in zip(rows, starts, strict=True)), strict=True)
    # One round without an update on either side: the same losses and gradients, adapter by adapter.
    ours = _gradients(bank)
    same = [parity(one, step(False)) for one, step in zip(ours, steps, strict=True)]
    work = {"ours": lambda: next(rounds), "PEFT, one after the other": lambda: [step(True) for step in steps]}
    timings = interleave(work, asked.repeats * 3, warm_up=3)
    found = table(timings, "ours", ["PEFT, one after the other"])
    worst = max(same, key=lambda one: one.get("gradient_difference", 1.0))
    return {
        "parity": worst | {"passed": all(one["passed"] for one in same)},
        "ratio": found["ratios"]["PEFT, one after the other"],
        "seconds": found["seconds"],
        "kept": len(networks),
    }


def _bank(folder: Path, rows: list[tuple[list[int], int]]) -> tuple[Bank, list[dict[str, torch.Tensor]]]:
    model = load_folder(folder)
    fuse(model.network)
    tunings = [LoRA(rank=8, alpha=16).attach(model, seed) for seed in range(COUNT)]
    engine = Engine(model, probed=probe(model))
    bank = Bank(engine)
    for tuning, row in zip(tunings, rows, strict=True):
        parameters = tuning.parameters()
        with torch.no_grad():
            for name, one in parameters.items():
                if "lora_B" in name:
                    one.add_(torch.randn(one.shape, generator=torch.Generator().manual_seed(len(name))) * 0.02)
        member = Member(parameters, Optimizer(AdamW(), parameters))
        plan = Plan([example(row, 0)], 1, 1 << 20, 0, 1_000_000)
        trainee = Trainee(lambda engine, batch: engine.language_loss(batch), plan, Pace(RATE, "constant", 0, None))
        bank.join(tuning.slot, member, trainee)
    return bank, [{name: one.detach().clone() for name, one in tuning.parameters().items()} for tuning in tunings]


def _gradients(bank: Bank) -> list[tuple[float, dict[str, torch.Tensor]]]:
    engine = bank.engine
    trees = [tree.owned_by(slot) for slot, one in bank.trainees.items() for tree in one.plan.trees]
    engine.model.network.train()
    engine.forward_backward([engine.collate(trees)], {slot: one.loss for slot, one in bank.trainees.items()})
    found = []
    for slot in bank.trainees:
        member = engine.members[slot]
        count = member.accumulated.count
        scaled = {name: one.grad / count for name, one in member.parameters.items() if one.grad is not None}
        found.append((member.accumulated.total / count, scaled))
    engine.forget()
    return found


def _peft(folder: Path, row: tuple[list[int], int], start: dict[str, torch.Tensor]) -> tuple[Callable[[bool], Any], Any]:
    """A plain training loop on transformers and PEFT: the least that a run of one adapter has to do."""
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    network = get_peft_model(peers.network(folder), config).train()
    own = {peers.plain(name): one for name, one in network.named_parameters() if one.requires_grad}
    with torch.no_grad():
        for name, one in own.items():
            one.copy_(start[name])
    optimizer = torch.optim.AdamW(own.values(), lr=RATE, weight_decay=0.0, fused=True)
    ids, seam = row
    inputs = torch.tensor([ids])
    labels = torch.tensor([[-100] * seam + ids[seam:]])

    def step(update: bool) -> tuple[float, dict[str, torch.Tensor]]:
        loss = network(input_ids=inputs, labels=labels, use_cache=False).loss
        loss.backward()
        if update:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return float(loss), {}
        found = {name: one.grad.clone() for name, one in own.items() if one.grad is not None}
        optimizer.zero_grad(set_to_none=True)
        return float(loss), found

    return step, network
