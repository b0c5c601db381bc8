"""Our side: the engine, method and loop as a run uses them, on the same base, rows and starting adapter as the peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tunewright.core.seeds import derive, shuffled
from tunewright.data.forest import Segment, Tree
from tunewright.data.packing import cost
from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine
from tunewright.engine.fused import fuse
from tunewright.engine.loss import Loss
from tunewright.engine.measured import fastest
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.probe import probe
from tunewright.engine.products import multiply
from tunewright.engine.settings import AdamW
from tunewright.methods import Method, Tuning
from tunewright.models.loading import load_folder
from tunewright.training.loop import Pace, Plan, fit

RATE = 1e-3


def peak(precision: str) -> float:
    """Operations a second of the fastest product of this machine that we know how to call, [1024, 576] x [576, 1536]."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = torch.randn(1024, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    return 2.0 * 1024 * 576 * 1536 / fastest(lambda: multiply(left, right.t()), 0.3)


def example(row: tuple[list[int], int], index: int) -> Tree:
    """A row (token ids, where the answer begins) as a tree of one segment."""
    ids, seam = row
    return Tree((Segment(tuple(ids), None, (0.0,) * seam + (1.0,) * (len(ids) - seam), row=index),))


def branches(prompt: list[int], answers: Sequence[list[int]], index: int) -> Tree:
    """A prompt with its answers as children; every token of an answer is a target."""
    children = [Segment(tuple(ids), 0, (1.0,) * len(ids), row=index) for ids in answers]
    return Tree((Segment(tuple(prompt), None, row=index), *children))


class Ours:
    """One tuning in training.

    Args:
        folder: of the base.
        method: what may change.
        trees: the rows.
        loss: of one batch; the language loss when not given.
        precision: float32 or bfloat16.
    """

    def __init__(
        self,
        folder: Path,
        method: Method,
        trees: Sequence[Tree],
        loss: Callable[[Engine, Batch], Loss] | None = None,
        *,
        precision: str = "float32",
        batch_size: int = 8,
    ) -> None:
        self.model = load_folder(folder)
        fuse(self.model.network)
        self.tuning: Tuning = method.attach(self.model, 0)
        found = probe(self.model)
        self.engine = Engine(self.model, self.tuning.parameters(), found, precision=precision)  # type: ignore[arg-type]
        self.engine.optimizer = Optimizer(AdamW(), self.engine.parameters)
        self.loss = loss or (lambda engine, batch: engine.language_loss(batch))
        self.plan = Plan(list(trees), batch_size, 1 << 20, 0, 1_000_000)
        self._steps = fit(self.engine, self.loss, self.plan, Pace(RATE, "constant", 0, 1.0))

    def use_loss(self, loss: Callable[[Engine, Batch], Loss], parameters: dict[str, Parameter]) -> None:
        """Train towards `loss`, and its own `parameters` too."""
        self.engine.parameters.update(parameters)
        self.engine.optimizer = Optimizer(AdamW(), self.engine.parameters)
        self.loss = loss
        self._steps = fit(self.engine, loss, self.plan, Pace(RATE, "constant", 0, 1.0))

    def useful(self, trained: bool) -> float:
        """Operations of an average step that no way of computing it can do without: products with weights, the head at targets,
        attention of each token to what it sees, forward and backward.

        Args:
            trained: whether the base's weights get gradients (three products a layer and not two).
        """
        facts = self.model.network.config
        blocks = sum(
            one.numel() for block in self.model.blocks for name, one in block.named_parameters() if name.endswith("proj.weight")
        )
        head = facts.vocab_size * facts.hidden_size
        width = facts.num_attention_heads * facts.head_dim * facts.num_hidden_layers
        products, trees = (6.0 if trained else 4.0), self.plan.trees
        seen = sum(cost(tree).area - sum(len(one.tokens) ** 2 for one in tree.segments) / 2 for tree in trees)
        total = (
            products * (blocks * sum(tree.size for tree in trees) + head * sum(tree.trained for tree in trees))
            + 12.0 * width * seen
        )
        return total * self.plan.batch_size / len(trees)

    def order(self, count: int) -> list[int]:
        """The rows that the first `count` steps take, in order; peers are given them in this one."""
        found: list[int] = []
        for number in range(count):
            epoch, place = divmod(number, self.plan.per_epoch)
            drawn = shuffled(len(self.plan.trees), self.plan.seed, "order", epoch)
            found += drawn[place * self.plan.batch_size : (place + 1) * self.plan.batch_size]
        return found

    def stir(self) -> dict[str, Tensor]:
        """Give every trained tensor a small random change, so that no gradient is zero by construction; what they are then."""
        with torch.no_grad():
            for name, parameter in self.engine.parameters.items():
                if "lora_B" in name:
                    drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(derive(0, name) % 2**31))
                    parameter.add_(drawn * 0.02)
        return {name: parameter.detach().clone() for name, parameter in self.engine.parameters.items()}

    def first(self) -> tuple[float, dict[str, Tensor]]:
        """Mean loss and clipped gradients of the first step, without taking it."""
        batches = [self.engine.collate(trees) for trees in self.plan.micro_batches(0)]
        self.engine.model.network.train()
        self.engine.forward_backward(batches, self.loss)
        sums = self.engine.accumulated
        scaled = {
            name: parameter.grad / sums.count for name, parameter in self.engine.parameters.items() if parameter.grad is not None
        }
        norm = float(torch.stack([one.norm() for one in scaled.values()]).norm())
        factor = min(1.0, 1.0 / (norm + 1e-6))
        mean = sums.total / sums.count
        self.engine.forget()
        return mean, {name: one * factor for name, one in scaled.items()}

    def step(self) -> Any:
        """One optimizer step."""
        return next(self._steps)
