"""Loss trajectory of LoRA `sft` against TRL: same base, same token ids, same order, same initial adapter, same settings, fp32.

    python -m venv .venv-parity && .venv-parity/bin/pip install -c constraints.txt -e . trl==1.16.0
    .venv-parity/bin/python benchmarks/parity/trl_sft.py BASE_FOLDER [--rows 64] [--out benchmarks/results/parity_trl.json]

TRL trains first, from the adapter that Tunewright initialised (PEFT format), on the tokens that Tunewright rendered, in the order
that Tunewright drew. Both report the mean loss over trained tokens of every optimizer step.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

WORDS = ("the", "a", "red", "blue", "old", "small", "house", "river", "dog", "bird", "walks", "sings", "near", "quickly", "today")


def rows(count: int) -> list[dict[str, str]]:
    """Generated prompts and completions of varied lengths."""
    draw = random.Random(1)
    return [
        {
            "prompt": " ".join(draw.choices(WORDS, k=draw.randint(3, 24))),
            "completion": " ".join(draw.choices(WORDS, k=draw.randint(3, 24))),
        }
        for _ in range(count)
    ]


def ours(base: str, data: Path, folder: Path, epochs: int) -> tuple[list[float], Any]:
    """Our losses, and the workshop with its plan (which TRL then follows)."""
    from tunewright.core.configuration import build
    from tunewright.core.narrator import SILENT
    from tunewright.data.reading import read
    from tunewright.finetune import Run
    from tunewright.run.workshop import set_up
    from tunewright.training.loop import fit

    settings = {
        "data": {"train": str(data), "near_duplicates": 0},
        "base": base,
        "method": {"name": "lora", "rank": 8, "alpha": 16},
        "training": {
            "learning_rate": 1e-3,
            "batch_size": 8,
            "epochs": epochs,
            "schedule": "linear",
            "warmup": 0.1,
            "precision": "float32",
            "clip": 1.0,
        },
    }
    run = build(Run, settings)
    shop = set_up(run, read(run.data, 0), None, SILENT)
    folder.mkdir()
    shop.tuning.save(folder)
    return [step.loss for step in fit(shop.engine, shop.objective.loss, shop.plan, shop.pace)], shop


def theirs(base: str, shop: Any, adapter: Path, folder: Path) -> tuple[list[float], int]:
    """TRL's losses on the same tokens in the same order."""
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    ordered = [
        tree.segments[0] for number in range(shop.plan.total) for index in order(shop, number) for tree in [shop.plan.trees[index]]
    ]
    data = Dataset.from_list(
        [
            {"input_ids": list(one.tokens), "labels": [t if w > 0 else -100 for t, w in zip(one.tokens, one.targets, strict=True)]}
            for one in ordered
        ]
    )
    network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter, is_trainable=True)
    settings = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=shop.plan.batch_size,
        num_train_epochs=1,
        learning_rate=shop.pace.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=shop.pace.warmup_steps,
        max_grad_norm=1.0,
        weight_decay=0.0,
        logging_steps=1,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        max_length=None,
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )

    class InOrder(SFTTrainer):
        """TRL's trainer with a sampler that keeps the order of the rows."""

        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(data)

    trainer = InOrder(model=network, args=settings, train_dataset=data, processing_class=shop.model.tokenizer)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line], len(data)


def order(shop: Any, number: int) -> list[int]:
    """The rows of one optimizer step, as indexes."""
    from tunewright.core.seeds import shuffled

    epoch, place = divmod(number, shop.plan.per_epoch)
    drawn = shuffled(len(shop.plan.trees), shop.plan.seed, "order", epoch)
    return drawn[place * shop.plan.batch_size : (place + 1) * shop.plan.batch_size]


def main() -> None:
    """Run both and print the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--rows", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows(asked.rows)))
        mine, shop = ours(asked.base, data, Path(place) / "adapter", asked.epochs)
        trl, count = theirs(asked.base, shop, Path(place) / "adapter", Path(place) / "trl")
    worst = max(abs(one - other) for one, other in zip(mine, trl, strict=True))
    from tunewright.core.surroundings import machine, versions

    result = {
        "largest_difference": worst,
        "steps": len(mine),
        "rows_seen": count,
        "ours": mine,
        "trl": trl,
        "machine": machine(),
        "versions": versions(),
    }
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    print(
        json.dumps({key: result[key] for key in ("largest_difference", "steps", "rows_seen")}),
        mine[:3],
        trl[:3],
        mine[-2:],
        trl[-2:],
    )


if __name__ == "__main__":
    main()
