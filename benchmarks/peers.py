"""The peers' side: TRL's own trainers, at their defaults and tuned for this machine, on the rows and the adapter that we use."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer

from benchmarks.ours import RATE
from benchmarks.side_by_side import Catch, Stepper

LORA = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
# What any run here needs: no network, no files, our learning rate. TRL's own defaults stay otherwise.
QUIET: dict[str, Any] = {
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1000,
    "disable_tqdm": True,
    "learning_rate": RATE,
    "lr_scheduler_type": "constant",
    "train_sampling_strategy": "sequential",
    "num_train_epochs": 1,
    "max_length": None,
}
DEFAULT: dict[str, Any] = {}
TUNED: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False, "optim": "adamw_torch_fused"}
TUNED_BF16: dict[str, Any] = {**TUNED, "bf16": True}


def network(folder: Path) -> Any:
    """The base in float32, as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def settled(settings: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """The arguments of a configuration of TRL."""
    place = tempfile.mkdtemp()
    return {"output_dir": place, "per_device_train_batch_size": batch_size, **QUIET, **settings}


def sft(
    folder: Path, rows: Sequence[tuple[list[int], int]], settings: Mapping[str, Any], batch_size: int = 8, lora: Any = LORA
) -> Trainer:
    """TRL's SFTTrainer on rows that are token ids already."""
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list([{"input_ids": ids, "labels": [-100] * seam + ids[seam:]} for ids, seam in rows])
    arguments = SFTConfig(**settled(settings, batch_size), dataset_kwargs={"skip_prepare_dataset": True})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return SFTTrainer(model=network(folder), args=arguments, train_dataset=data, processing_class=tokenizer, peft_config=lora)


def adopt(trainer: Trainer, values: Mapping[str, Tensor]) -> None:
    """Start the peer's adapter from our values.

    Raises:
        ValueError: the two do not train the same tensors.
    """
    own = {plain(name): parameter for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    if set(own) != set(values):
        raise ValueError(f"different tensors are trained: {sorted(set(own) ^ set(values))[:4]}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(values[name])


def plain(name: str) -> str:
    """A parameter's name without what PEFT puts around it."""
    return (
        name.replace("base_model.model.", "")
        .replace(".default.", ".")
        .replace("modules_to_save.", "")
        .replace("original_module.", "")
    )


def first_step(trainer: Trainer, threads: int) -> tuple[float, dict[str, Tensor]]:
    """Mean loss and clipped gradients of the peer's first step."""
    catch = Catch()
    trainer.add_callback(catch)
    trainer.args.logging_steps = 1
    trainer.state.logging_steps = 1
    stepper = Stepper(trainer, threads)
    stepper.step()
    stepper.step()
    stepper.close()
    loss = next(line["loss"] for line in trainer.state.log_history if "loss" in line)
    return float(loss), {plain(name): gradient for name, gradient in catch.gradients.items()}
