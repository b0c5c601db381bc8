"""What a run will cost, before it starts: parameters, memory, tokens, minutes. A run that cannot fit is refused.

Nothing here is a table of model sizes. Activations are counted on a small batch by watching what autograd keeps, time is taken from
one real step, and what the process already holds is asked of the system.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tunewright.core.errors import DoesNotFitError
from tunewright.core.units import bytes_text, count_text, seconds_text, share_text
from tunewright.engine.batch import Batch
from tunewright.engine.device import available, held
from tunewright.engine.engine import Engine
from tunewright.engine.int8 import quantised_numbers
from tunewright.engine.loss import Loss, chunk_rows
from tunewright.engine.recompute import Recomputing

WORKING_SHARE = 0.25  # of activations: buffers that live only inside one operation
LIBRARIES = 130_000_000  # bytes of what scoring and reporting import, and of what the allocator does not give back
OVERHEAD = 1.1  # optimizer, collating, logging


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

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained on in a second, predicted from the measured pass."""
        return self.tokens / max(self.seconds, 1e-9)

    def speed(self) -> str:
        """The prediction of speed as one line."""
        return f"about {count_text(self.tokens_per_second)} tokens a second, predicted from a measured pass"

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


class Work(NamedTuple):
    """What a run does in all: optimizer steps, and the tokens trained on in them."""

    steps: int
    tokens: int


def estimate(
    engine: Engine,
    loss: Callable[[Engine, Batch], Loss],
    small: Batch,
    largest: Batch,
    work: Work,
    recomputing: Recomputing | None = None,
) -> Estimate:
    """Predict the cost of a run by taking two forward and backward passes whose gradients are thrown away.

    Args:
        engine: with its trainable parameters, before training.
        small: a few rows; what autograd keeps for them is scaled up to `largest`, before that is dared.
        largest: the largest forward pass of the run; taken for real if the prediction says that it fits.
        work: of the whole run.
        recomputing: what recomputes activations, where they are; one block's are then held at a time, during the backward pass.
    """
    before, room = held(engine.device), available(engine.device)
    trainable = sum(parameter.numel() for parameter in engine.parameters.values())
    # gradient, two moments, the best copy so far, each four bytes
    training = trainable * 4 * 4
    kept = _kept(engine, loss, small, recomputing)
    activations = int(kept * largest.tokens / max(1, small.tokens) * (1 + WORKING_SHARE)) + _logits(engine, largest)
    peak = before + training + activations
    pace = small
    if peak < room:
        seconds, _ = min(_pass(engine, loss, largest), _pass(engine, loss, largest))
        pace = largest
        # What the pass really took, allocator and all, replaces what was predicted for it.
        peak = max(peak_memory(), held(engine.device)) + training
    else:
        seconds, _ = _pass(engine, loss, small)
    network = sum(parameter.numel() for parameter in engine.model.network.parameters()) + quantised_numbers(engine.model.network)
    head = 0 if engine.head is None else sum(parameter.numel() for parameter in engine.head.parameters())
    return Estimate(
        parameters=network + head,
        trainable=trainable,
        held=before,
        training=training,
        activations=activations,
        peak=peak + LIBRARIES,
        available=room,
        tokens=work.tokens,
        steps=work.steps,
        seconds=seconds / max(1, pace.tokens) * work.tokens * OVERHEAD,
    )


def _kept(engine: Engine, loss: Callable[[Engine, Batch], Loss], batch: Batch, recomputing: Recomputing | None) -> int:
    """Bytes of activations that are held at once."""
    _, kept = _pass(engine, loss, batch)
    if recomputing is None:
        return kept
    with recomputing.paused():
        _, whole = _pass(engine, loss, batch)
    return kept + max(0, whole - kept) // len(engine.model.blocks)


def _pass(engine: Engine, loss: Callable[[Engine, Batch], Loss], batch: Batch) -> tuple[float, int]:
    """Seconds of one forward and backward pass, and the bytes that autograd kept in between."""
    began = time.perf_counter()
    counter = _Kept(engine)
    with counter:
        total, _ = loss(engine, batch)
    total.backward()
    seconds = time.perf_counter() - began
    for parameter in engine.parameters.values():
        parameter.grad = None
    return seconds, counter.bytes


def _logits(engine: Engine, batch: Batch) -> int:
    """Bytes of the largest chunk of logits, its softmax and its gradient."""
    if engine.head is not None or not engine.model.has_own_head:
        return 0
    targets = int((batch.tags_U >= 0).sum()) if engine.model.kind == "encoder" else len(batch.targets_N)
    return 3 * 4 * min(targets, chunk_rows(engine.model.vocabulary)) * engine.model.vocabulary


def refuse_base(name: str, parameters: int, device: torch.device) -> None:
    """Raise `DoesNotFitError` when the weights alone, as 32-bit numbers, are more than the machine can give."""
    needs, gives = 4 * parameters, available(device)
    if needs > gives:
        size = f"{count_text(parameters)} parameters take {bytes_text(needs)} of memory"
        problem = f"the base is too large: its {size}, and this machine can give {bytes_text(gives)}"
        fitting = count_text(0.8 * gives / 4)
        raise DoesNotFitError(problem, where=name, hint=f"A base of up to about {fitting} parameters would load here.")


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
