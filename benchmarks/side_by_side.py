"""Two or more systems, one step in turn: A B C A B C ..., so that whatever the machine does, it does to all of them."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback


@dataclass
class Timing:
    """Seconds of each repeat: by the clock, and of processor time."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def median(self) -> dict[str, float]:
        """The middle of both."""
        return {"wall": round(statistics.median(self.wall), 5), "cpu": round(statistics.median(self.cpu), 5)}


def interleave(work: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 2) -> dict[str, Timing]:
    """Time each piece of work `repeats` times, in turn, after `warm_up` untimed rounds."""
    timings = {name: Timing() for name in work}
    for number in range(warm_up + repeats):
        for name, step in work.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            if number >= warm_up:
                timings[name].wall.append(time.perf_counter() - wall)
                timings[name].cpu.append(time.process_time() - cpu)
    return timings


def ratio(peer: Timing, ours: Timing) -> float:
    """How many times longer the peer takes: the median over pairs of neighbouring repeats (by the clock)."""
    return round(statistics.median(one / other for one, other in zip(peer.wall, ours.wall, strict=True)), 2)


class Stepper:
    """A real `trainer.train()`, one optimizer step at a time.

    The trainer runs in its own thread and is held after every step until the next one is asked for, so that a step is everything
    its loop does: collating, forward, backward, clipping, update, callbacks.
    """

    def __init__(self, trainer: Trainer, threads: int) -> None:
        self.trainer, self._threads = trainer, threads
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._stop = False
        self.losses: list[float] = []
        trainer.add_callback(_Gate(self))
        self._thread = threading.Thread(target=self._train, daemon=True)

    def _train(self) -> None:
        try:
            torch.set_num_threads(self._threads)  # OpenMP keeps this number a thread
            self._wait()
            self.trainer.train()
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()

    def _wait(self) -> None:
        self._go.acquire()

    def held(self) -> bool:
        """Called at the end of a step: give the word back, wait for the next; True when the training is to end."""
        self._done.release()
        self._wait()
        return self._stop

    def step(self) -> None:
        """One optimizer step."""
        if not self._thread.is_alive():
            self._thread.start()
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the training."""
        self._stop = True
        self._go.release()
        self._thread.join(timeout=60)


class _Gate(TrainerCallback):
    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self.stepper.held():
            control.should_training_stop = True
        return control


class Catch(TrainerCallback):
    """Keeps the gradients of the first optimizer step, before the update."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Copy what the optimizer is about to use."""
        if not self.gradients:
            self.gradients = {name: one.grad.detach().clone() for name, one in model.named_parameters() if one.grad is not None}


def parity(
    ours: tuple[float, Mapping[str, Tensor]], theirs: tuple[float, Mapping[str, Tensor]], limit: float = 1e-4
) -> dict[str, Any]:
    """Whether two systems compute the same thing: the first loss, and the largest gradient difference over the largest gradient.

    Names may differ by prefixes; what is compared is matched by the end of the name.
    """
    (loss, own), (their_loss, other) = ours, theirs
    worst, largest = 0.0, max(float(one.abs().max()) for one in own.values())
    unmatched = [name for name in own if name not in other]
    if unmatched or len(own) != len(other):
        return {"passed": False, "reason": f"different parameters: {len(own)} and {len(other)}, first {unmatched[:1]}"}
    for name, gradient in own.items():
        worst = max(worst, float((gradient - other[name]).abs().max()))
    difference = abs(loss - their_loss)
    return {
        "passed": difference <= limit and worst / largest <= limit,
        "loss_difference": difference,
        "gradient_difference": worst / largest,
        "parameters": len(own),
    }


def table(timings: Mapping[str, Timing], ours: str, peers: Sequence[str]) -> dict[str, Any]:
    """Ratios of every peer to ours, and the medians."""
    return {
        "ratios": {peer: ratio(timings[peer], timings[ours]) for peer in peers},
        "seconds": {name: timing.median() for name, timing in timings.items()},
    }
