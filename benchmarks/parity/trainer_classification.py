"""Accuracy of classification on an encoder, against the same tuning with transformers' Trainer and PEFT.

    .venv-parity/bin/python benchmarks/parity/trainer_classification.py BASE --rate 1e-3 \
        --train T --validation V --test X [--method lora] [--out FILE]

Same rows, learning rate, schedule, batch, epochs, rank, seed; both keep the epoch with the smallest validation loss. The head is
each system's own: here mean pooling and a linear layer, there `AutoModelForSequenceClassification` with its pooler.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def ours(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run of Tunewright, with its report's accuracy."""
    from tunewright.core.configuration import build
    from tunewright.finetune import Run, finetune

    data = {
        "train": asked.train,
        "test": asked.test,
        "near_duplicates": 0,
        "cleaning": dict.fromkeys(("exact_duplicates", "leakage"), "report"),
    }
    data |= {"validation": asked.validation} if asked.validation else {}
    method = {"name": "lora", "rank": 16} if asked.method == "lora" else asked.method
    training = {
        "epochs": asked.epochs,
        "batch_size": asked.batch,
        "learning_rate": asked.rate,
        "head_learning_rate": asked.rate,  # as the Trainer has it; by default a new head learns faster
        "patience": 100,
        "precision": "float32",
    }
    run = build(
        Run,
        {
            "data": data,
            "base": asked.base,
            "method": method,
            "training": training,
            "folder": folder,
            "seed": asked.seed,
            "threads": asked.threads,
        },
    )
    began = time.perf_counter()
    result = finetune(run)
    found = next(measure for measure in result.report.measures if measure.metric == "accuracy").tuned
    seconds = result.report.cost.stages["Tune"]
    return {
        "accuracy": found.value,
        "low": found.low,
        "high": found.high,
        "seconds": seconds,
        "whole": time.perf_counter() - began,
        "folder": str(result.folder),
    }


def theirs(asked: argparse.Namespace, rows: dict[str, list[dict[str, str]]], folder: Path) -> dict[str, Any]:
    """The same with Trainer (and PEFT for LoRA)."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from tunewright.models.loading import folder_of, resolve

    set_seed(asked.seed)
    base = folder_of(resolve(asked.base))
    labels = sorted({row["label"] for row in rows["train"]})
    tokenizer = AutoTokenizer.from_pretrained(base)
    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels), dtype=torch.float32)
    if asked.method == "lora":
        linear = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
        network = get_peft_model(
            network, LoraConfig(task_type="SEQ_CLS", r=16, lora_alpha=32, lora_dropout=0.0, target_modules=linear)
        )
    if asked.method == "head":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith("classifier"))

    def encode(batch: dict[str, list[str]]) -> dict[str, Any]:
        return tokenizer(batch["text"], truncation=True) | {"labels": [labels.index(label) for label in batch["label"]]}

    sets = {
        name: Dataset.from_list(part).map(encode, batched=True, remove_columns=["text", "label"]) for name, part in rows.items()
    }
    settings = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=asked.batch,
        per_device_eval_batch_size=64,
        num_train_epochs=asked.epochs,
        learning_rate=asked.rate,
        lr_scheduler_type="linear",
        warmup_steps=round(0.05 * asked.epochs * math.ceil(len(rows["train"]) / asked.batch)),
        max_grad_norm=1.0,
        weight_decay=0.0,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        seed=asked.seed,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        logging_steps=1000,
    )
    trainer = Trainer(
        model=network,
        args=settings,
        train_dataset=sets["train"],
        eval_dataset=sets["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    predicted = trainer.predict(sets["test"])
    right = (predicted.predictions.argmax(1) == predicted.label_ids).tolist()
    from tunewright.metrics.statistics.intervals import wilson

    low, high = wilson(sum(right), len(right))
    return {"accuracy": sum(right) / len(right), "low": low, "high": high, "seconds": seconds}


def kept_rows(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The splits that our run kept, so that both systems see the same rows."""
    kept = {}
    for split in ("train", "validation", "test"):
        lines = (folder / "data" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        kept[split] = [{"text": row["text"], "label": row["label"]} for row in map(json.loads, lines)]
    return kept


def main() -> None:
    """Run both and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    for name in ("train", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--validation")
    parser.add_argument("--method", choices=("lora", "full", "head"), default="lora")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as place:
        mine = ours(asked, Path(place) / "runs")
        peer = None if asked.ours_only else theirs(asked, kept_rows(Path(mine.pop("folder"))), Path(place) / "trainer")
    from tunewright.core.surroundings import machine, versions

    settings = {
        "method": asked.method,
        "epochs": asked.epochs,
        "batch": asked.batch,
        "learning_rate": asked.rate,
        "seed": asked.seed,
    }
    name = Path(asked.train).parent.name
    result = {
        "data": name,
        "base": asked.base,
        "settings": settings,
        "tunewright": mine,
        "trainer": peer,
        "machine": machine(),
        "versions": versions(),
    }
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({"data": name, **settings, "tunewright": mine, "trainer": peer}))


if __name__ == "__main__":
    main()
