"""B7: only the upper quarter of the blocks is tuned, for three epochs with a validation after each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from benchmarks import peers
from benchmarks.asked import Asked
from benchmarks.material import SHAPES, base, instruct
from benchmarks.ours import Ours, example
from benchmarks.side_by_side import interleave, parity, table
from tunewright.methods.lora import LoRA
from tunewright.methods.selective import Selective

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BATCH, EPOCHS, ROWS, HELD_OUT = 8, 3, 24, 8
TUNED = {**peers.TUNED, "padding_free": True}
PEERS = {
    "TRL default": {},
    "TRL tuned": TUNED,
    "TRL tuned, bf16": {**TUNED, "bf16": True},
    "transformers Trainer, frozen": {**peers.TUNED},
    "transformers Trainer, frozen, bf16": {**peers.TUNED_BF16},
}


def b7(asked: Asked) -> dict[str, Any]:
    """LoRA on the upper quarter against TRL; the upper quarter's own weights against transformers' Trainer with the rest frozen."""
    blocks = SHAPES[asked.shape]["blocks"]
    upper = list(range(blocks - blocks // 4, blocks))
    with tempfile.TemporaryDirectory() as place:
        folder = base(asked.shape, Path(place) / "base")
        rows = instruct(asked.shape, ROWS + HELD_OUT)
        train, held_out = rows[:ROWS], rows[ROWS:]
        data, held = _tokens(train), _tokens(held_out)
        lora = LoraConfig(
            r=8, lora_alpha=16, target_modules=LINEAR, layers_to_transform=upper, lora_dropout=0.0, task_type="CAUSAL_LM"
        )
        methods = {
            "LoRA": LoRA(
                rank=8, alpha=16, targets=tuple(f"model.layers.{index}.*" + ending for index in upper for ending in ("proj",))
            ),
            "weights": Selective(train=tuple(f"model.layers.{index}.*" for index in upper)),
        }

        def ours(method: str, precision: str) -> Callable[[], Any]:
            return lambda: _ours(folder, methods[method], train, held_out, precision, Path(place))

        def trl(settings: dict[str, Any]) -> Any:
            from trl import SFTConfig, SFTTrainer

            quiet = peers.settled({"num_train_epochs": EPOCHS, "eval_strategy": "epoch", **settings}, BATCH)
            arguments = SFTConfig(**{**quiet, "num_train_epochs": EPOCHS}, dataset_kwargs={"skip_prepare_dataset": True})
            return SFTTrainer(
                model=peers.network(folder),
                args=arguments,
                train_dataset=data,
                eval_dataset=held,
                processing_class=AutoTokenizer.from_pretrained(folder),
                peft_config=lora,
            )

        def frozen(settings: dict[str, Any]) -> Trainer:
            network = peers.network(folder)
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(any(name.startswith(f"model.layers.{index}.") for index in upper))
            quiet = peers.settled({"eval_strategy": "epoch", **settings}, BATCH)
            quiet.pop("max_length")
            arguments = TrainingArguments(**{**quiet, "num_train_epochs": EPOCHS})
            collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(folder), padding=True)
            return Trainer(network, arguments, data_collator=collator, train_dataset=data, eval_dataset=held)

        lined_up = Ours(folder, methods["LoRA"], [example(row, index) for index, row in enumerate(train)])
        start = lined_up.stir()
        ordered = [train[index] for index in lined_up.order(2)]
        check = peers.sft(folder, ordered, {**TUNED, "logging_steps": 1}, BATCH, lora)
        peers.adopt(check, start)
        same = parity(lined_up.first(), peers.first_step(check, asked.threads))
        work = {
            "ours": ours("LoRA", "float32"),
            "ours, bf16": ours("LoRA", "bfloat16"),
            "ours, weights": ours("weights", "float32"),
            "ours, weights, bf16": ours("weights", "bfloat16"),
        }
        for name, settings in PEERS.items():
            build = frozen if "frozen" in name else trl
            work[name] = lambda build=build, settings=settings: build(settings).train()
        timings = interleave(work, asked.repeats, warm_up=1)
    wall = {name: timing.median()["wall"] for name, timing in timings.items()}
    chosen = min(("ours", "ours, bf16"), key=wall.__getitem__)
    weights = min(("ours, weights", "ours, weights, bf16"), key=wall.__getitem__)
    against = table(timings, chosen, list(PEERS))
    own = table(timings, weights, list(PEERS))["ratios"]
    return {
        "parity": same,
        "ours": [chosen, weights],
        "ratio_default": against["ratios"]["TRL default"],
        "ratio_tuned": min(against["ratios"]["TRL tuned"], against["ratios"]["TRL tuned, bf16"]),
        "ratio_trainer_frozen": min(own["transformers Trainer, frozen"], own["transformers Trainer, frozen, bf16"]),
        "ratio_float32": table(timings, "ours", list(PEERS))["ratios"],
        "ours_seconds": against["seconds"][chosen],
        "peer_seconds": {name: against["seconds"][name] for name in PEERS},
        "all_seconds": against["seconds"],
        "peer_settings": PEERS,
    }


def _tokens(rows: list[tuple[list[int], int]]) -> Dataset:
    return Dataset.from_list(
        [{"input_ids": ids, "labels": [-100] * seam + ids[seam:], "attention_mask": [1] * len(ids)} for ids, seam in rows]
    )


def _ours(folder: Path, method: Any, train: list, held_out: list, precision: str, place: Path) -> float:
    """Three epochs with a validation after each; everything from loading the base on, as the peers' trainers do it."""
    from tunewright.engine.prefix.frozen import freeze
    from tunewright.engine.settings import Cache

    one = Ours(folder, method, [example(row, index) for index, row in enumerate(train)], precision=precision)
    one.engine.prefix = freeze(one.engine, Cache(folder=Path(tempfile.mkdtemp(dir=place))))
    held = [example(row, index) for index, row in enumerate(held_out)]
    loss = 0.0
    for _ in range(EPOCHS):
        for _ in range(one.plan.per_epoch):
            one.step()
        with one.engine.evaluating():
            batch = one.engine.collate(held)
            total, count = one.engine.language_loss(batch)
            loss = float(total / count)
        one.engine.model.network.train()
    return loss
