"""TRL's own trainers on a tiny model beside our engine on the same one: the same adapter and tokens, two losses with gradients.

Nothing of TRL is written again here: its trainers are built as a user builds them, its collators pad, its `compute_loss` is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor

from tunewright.core.seeds import derive
from tunewright.data.forest import Tree
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import Row
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.methods.lora import LoRA
from tunewright.objectives import Objective
from tunewright.testing.tiny import tiny

QUIET: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}


def lora() -> LoraConfig:
    """Our adapter in PEFT's words; a new one each time, for PEFT writes into it."""
    return LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


class Found(NamedTuple):
    """A loss and the gradients of the adapter, by plain name."""

    loss: float
    gradients: dict[str, Tensor]


def engine_with_lora(family: str = "llama") -> Engine:
    """Our side: a tiny model with an adapter away from its start, so that it is not its own base."""
    model = tiny(family)
    tuning = LoRA(rank=4, alpha=8).attach(model, 0)
    engine = Engine(model, tuning.parameters(), probe(model))
    tuning.follow(engine.first)
    move(engine, 0.05)
    return engine


def move(engine: Engine, scale: float, seed: int = 0) -> None:
    """Add noise to everything that is trained."""
    with torch.no_grad():
        for name, parameter in engine.parameters.items():
            draw = torch.Generator().manual_seed(derive(seed, name) % 2**31)
            parameter.add_(scale * torch.randn(parameter.shape, generator=draw))


def planted(engine: Engine, objective: Objective, rows: Sequence[Row]) -> list[Tree]:
    """The rows as trees, ready to be learned from."""
    renderer = Renderer(engine.model.tokenizer, engine.model.kind, engine.model.context)
    items = objective.plant(rows, renderer)
    assert not any(isinstance(item, Refusal) for item in items)
    return objective.prepare(engine, [item.tree for item in items])  # type: ignore[union-attr]


def ours(engine: Engine, objective: Objective, trees: Sequence[Tree]) -> Found:
    """The mean loss of all trees in one forest."""
    engine.model.network.train()
    total, count = objective.loss(engine, engine.collate(trees))
    (total / count).backward()
    gradients = {name: one.grad.clone() for name, one in engine.parameters.items() if one.grad is not None}
    for parameter in engine.parameters.values():
        parameter.grad = None
    return Found(float(total.detach() / count), gradients)


def trainer_of(kind: Any, config: Any, engine: Engine, row: Mapping[str, Any], place: Path, **more: Any) -> Any:
    """A trainer of TRL on the same base, with our adapter; batches are given to it by hand.

    Args:
        kind, config: classes of TRL.
        row: the one row of a training set that it wants to see.
        place: a folder that it may write to.
        more: `asked`, settings of the configuration; everything else goes to the trainer.
    """
    settings = {**QUIET, "output_dir": str(place), **more.pop("asked", {})}
    family = engine.model.family
    trainer = kind(
        tiny(family).network,
        args=config(**settings),
        train_dataset=Dataset.from_list([dict(row)] * 8),
        processing_class=engine.model.tokenizer,
        peft_config=lora(),
        **more,
    )
    adopt(trainer, engine)
    return trainer


def adopt(trainer: Any, engine: Engine) -> None:
    """Give the trainer's adapter the values of ours, as they are now."""
    theirs = {plain(name): one for name, one in trainer.model.named_parameters() if one.requires_grad}
    assert set(theirs) == set(engine.parameters)
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(engine.parameters[name])


def plain(name: str) -> str:
    """A parameter's name without what PEFT puts around it."""
    return name.replace("base_model.model.", "").replace(".default.", ".")


def theirs(trainer: Any, batches: Sequence[Mapping[str, Any]]) -> Found:
    """The mean of TRL's loss over batches of equal weight."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    losses = [trainer.compute_loss(trainer.model, dict(batch)) for batch in batches]
    loss = torch.stack(losses).mean()
    loss.backward()
    gradients = {plain(name): one.grad.clone() for name, one in trainer.model.named_parameters() if one.grad is not None}
    trainer.model.zero_grad()
    return Found(float(loss.detach()), gradients)


def assert_same(own: Found, other: Found) -> None:
    """Loss to 1e-5 (of itself where it is above 1), every gradient to 1e-5 of the largest; and there is something to compare."""
    assert abs(own.loss - other.loss) <= 1e-5 * max(1.0, abs(other.loss)), f"{own.loss} and {other.loss}"
    assert set(own.gradients) == set(other.gradients)
    largest = max(float(one.abs().max()) for one in other.gradients.values())
    assert largest > 1e-4
    for name, gradient in own.gradients.items():
        difference = float((gradient - other.gradients[name]).abs().max())
        assert difference <= 1e-5 * largest, f"{name}: {difference} of {largest}"
