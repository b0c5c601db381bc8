"""What a run will cost, before it starts: parameters, memory, tokens, minutes. A run that cannot fit is refused.

Nothing here is a table of model sizes. Activations are counted on a small batch by watching what autograd keeps, time is taken from
one real step, and what the process already holds is asked of the system.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from tunewright.core.errors import DoesNotFitError
from tunewright.core.units import bytes_text, count_text, seconds_text, share_text
from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine
from tunewright.engine.loss import Loss, chunk_rows

WORKING_SHARE = 0.15  # of activations: buffers that live only inside one operation


@dataclass(frozen=True)
class Estimate:
    """Predicted cost of a run.

    Args:
        parameters, trainable: numbers in the network and how many are trained.
        held: bytes the process holds before training (interpreter, libraries, the base).
        training: bytes of gradients, moments, copies; `activations`: bytes autograd keeps for the largest forward pass.
        peak: bytes at the highest point; available: bytes this machine can give.
        tokens: tokens trained on in the whole run; seconds: of training.
    """

    parameters: int
    trainable: int
    held: int
    training: int
    activations: int
    peak: int
    available: int
    tokens: int
    steps: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The estimate as the report keeps it."""
        return asdict(self)

    def sentence(self) -> str:
        """The estimate as one line."""
        share = share_text(self.trainable, self.parameters)
        return (
            f"{count_text(self.parameters)} parameters, {count_text(self.trainable)} trained ({share}); "
            f"{self.steps} steps, {count_text(self.tokens)} tokens, about {seconds_text(self.seconds)}; "
            f"peak memory {bytes_text(self.peak)} of {bytes_text(self.available)}"
        )


def peak_memory() -> int:
    """The most bytes this process has held so far (on CUDA: that the device has)."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def estimate(engine: Engine, loss: Callable[[Engine, Batch], Loss], sample: Sequence[Batch], *, steps: int, tokens: int, budget: int) -> Estimate:
    """Predict the cost of `steps` optimizer steps.

    Args:
        engine: with its trainable parameters, before training.
        sample: a few forward passes of this run's own data; their gradients are thrown away.
        tokens: tokens of the whole run; budget: tokens of the largest forward pass.
    """
    own = psutil.Process().memory_info().rss
    kept, seconds, seen, targets = 0, 0.0, 0, 0
    for number, batch in enumerate(sample):
        began = time.perf_counter()
        counter = _Kept(engine)
        with counter:
            total, _ = loss(engine, batch)
        total.backward()
        if number or len(sample) == 1:  # the first pass warms caches and threads
            seconds += time.perf_counter() - began
            seen += batch.tokens
        targets = max(targets, len(batch.targets_N) * budget // max(1, batch.tokens))
        kept = max(kept, counter.bytes * budget // max(1, batch.tokens))
    for parameter in engine.parameters.values():
        parameter.grad = None
    trainable = sum(parameter.numel() for parameter in engine.parameters.values())
    # gradient, two moments, the best copy so far; and once more for the tensors of a checkpoint on their way to the disk
    training = trainable * 4 * 4
    vocabulary = engine.model.vocabulary if engine.model.kind != "encoder" else 0
    logits = 3 * 4 * min(targets, chunk_rows(vocabulary)) * vocabulary if vocabulary else 0
    network = sum(parameter.numel() for parameter in engine.model.network.parameters())
    activations = int(kept * (1 + WORKING_SHARE)) + logits
    return Estimate(
        parameters=network + sum(parameter.numel() for parameter in (engine.head.parameters() if engine.head is not None else ())),
        trainable=trainable,
        held=own,
        training=training,
        activations=activations,
        peak=max(own + training + activations, peak_memory()),
        available=psutil.virtual_memory().available + own,
        tokens=tokens,
        steps=steps,
        seconds=seconds / max(1, seen) * tokens * 1.05,
    )


def refuse_if_too_large(found: Estimate, budget: int) -> None:
    """Raise `DoesNotFitError` with what would fit when the predicted peak is above what the machine can give."""
    if found.peak <= found.available:
        return
    room = found.available - found.held - found.training
    if room > 0:
        fitting = max(16, int(budget * room / max(1, found.activations)))
        hint = f"`training.token_budget: {fitting}` would fit, or `training.checkpointing: true`."
    else:
        hint = "Use a smaller base, `method: lora`, or fewer trained blocks (`method: {name: selective, last_blocks: 2}`)."
    needs, gives = bytes_text(found.peak), bytes_text(found.available)
    raise DoesNotFitError(f"the run needs about {needs} of memory and this machine can give {gives}", where="estimate", hint=hint)


class _Kept:
    """Counts the bytes that autograd keeps for the backward pass, each storage once, weights not counted."""

    def __init__(self, engine: Engine) -> None:
        self.bytes = 0
        modules = [engine.model.network, *([engine.head] if engine.head is not None else [])]
        self._seen = {parameter.untyped_storage().data_ptr() for module in modules for parameter in module.parameters()}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)
