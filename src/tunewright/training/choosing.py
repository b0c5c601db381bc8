"""What a run leaves open about the machine is decided here, by measuring it: threads, precision, compilation, memory against time.

Order matters: the base is put into bytes before steps are timed, blocks are compiled before they are recomputed, and the estimate,
which takes two real passes, comes last and speaks of what will run. Each decision comes with its reason in words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from tunewright.core.seeds import derive
from tunewright.core.surroundings import cores
from tunewright.data.forest import Tree
from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine, LossFunction
from tunewright.engine.int8 import quantise, refuse_where_slow
from tunewright.engine.measured import choose_threads, fastest, remembered
from tunewright.engine.placement import Placement
from tunewright.engine.precision import choose, measured_speedup
from tunewright.engine.recompute import Recomputing
from tunewright.engine.regions import Compiled, worth_compiling
from tunewright.training.estimate import Estimate, Work, estimate
from tunewright.training.loop import Plan
from tunewright.training.settings import Training

LEAST_BUDGET = 512  # tokens in a forward pass below which products get slow, so that recomputing is the better saving
TRIAL_WORK = 5e10  # parameters times tokens of a timed pass: about a second, and a fraction of it where bfloat16 is fast
TRIAL_TOKENS = (64, 512)


def threads_for(asked: int | None, width: int, device: torch.device, group: Placement) -> dict[str, str]:
    """Set the number of threads of this process; the reason by key, empty where nothing was left open.

    Args:
        asked: the setting; None measures a layer of the base's width, unless several processes share the machine.
    """
    if asked is not None or group.process.world > 1 or device.type != "cpu":
        return {}
    threads, reason = choose_threads(width, cores())
    torch.set_num_threads(threads)
    return {"threads": reason}


@dataclass
class Chosen:
    """What has been decided about a run and its machine so far; at the end, all of it.

    Args:
        training: the settings, without gaps in what the machine decides.
        plan: which rows meet, within the token budget that was decided.
        reasons: of every decision, by key path.
        estimate: of the run as it will be.
    """

    training: Training
    plan: Plan
    reasons: dict[str, str]
    estimate: Estimate | None = None
    recomputing: Recomputing | None = None
    compiled: Compiled | None = field(default=None, repr=False)

    def set(self, key: str, value: Any, reason: str) -> None:
        """Decide a field of the training settings."""
        self.training = self.training.model_copy(update={key: value})
        self.reasons[f"training.{key}"] = reason


class Chooser:
    """Decides, on the engine that will train.

    Args:
        engine: with the method attached and the head in place; it is left as chosen, without gradients.
        loss: the objective's.
        group: what is measured, the first process decides for all.
    """

    def __init__(self, engine: Engine, loss: LossFunction, group: Placement) -> None:
        self.engine, self.loss, self.group = engine, loss, group

    def decide(self, training: Training, plan: Plan, reasons: dict[str, str]) -> tuple[Chosen, Estimate]:
        """All decisions, and the estimate of what they lead to.

        Raises:
            ConfigurationError: an int8 base was asked for and does not serve.
        """
        chosen = Chosen(training, plan, dict(reasons))
        self.engine.model.network.train()
        self._base_precision(chosen)
        self._precision(chosen)
        self._compile(chosen)
        if training.checkpointing:
            chosen.recomputing = Recomputing(self.engine.model)
        return chosen, self._memory(chosen)

    def _base_precision(self, chosen: Chosen) -> None:
        if chosen.training.base_precision == "int8":
            refuse_where_slow(self.engine.device)
            done = quantise(self.engine, self.loss, self._first(chosen.plan))
            chosen.reasons["training.base_precision"] = done.sentence()

    def _precision(self, chosen: Chosen) -> None:
        if chosen.training.precision == "auto":
            precision, reason = self.group.tell(list(choose(self._width, self.engine.device, self._speedup_of(chosen), _product)))
            chosen.set("precision", precision, reason)
        if chosen.training.precision == "bfloat16":
            self.engine.use_precision("bfloat16")

    @property
    def _width(self) -> int:
        return self.engine.model.width

    def _speedup_of(self, chosen: Chosen) -> Callable[[], float]:
        model = self.engine.model
        of = {
            **{"what": "step", "family": model.family, "width": model.width, "blocks": len(model.blocks)},
            **{
                "vocabulary": model.vocabulary,
                "trained": sorted({str(tuple(one.shape)) for one in self.engine.parameters.values()}),
            },
            **{"threads": torch.get_num_threads(), "int8": chosen.training.base_precision == "int8"},
        }
        return lambda: remembered(of, lambda: self._step_speedup(chosen.plan))

    def _step_speedup(self, plan: Plan) -> float:
        """How many times faster a pass over a few rows is in bfloat16, its frozen weights held so."""
        size = sum(parameter.numel() for parameter in self.engine.model.network.parameters())
        few = _few(plan.micro_batches(0)[0], int(min(max(TRIAL_WORK / size, TRIAL_TOKENS[0]), TRIAL_TOKENS[1])))
        batch = self.engine.collate(few)
        exact = self._seconds(batch)
        self.engine.precision = "bfloat16"
        half = self._seconds(batch)
        self.engine.precision = "float32"
        return exact / max(half - self._conversion(), 0.1 * half)

    def _seconds(self, batch: Batch) -> float:
        """Seconds of a forward and backward pass: of the quickest of a few, or of the first where that alone takes long."""
        times: list[float] = []
        while not times or (sum(times) < 0.6 and len(times) < 4):
            began = time.perf_counter()
            self.loss(self.engine, batch).total.backward()
            times.append(time.perf_counter() - began)
            self.engine.forget()
        return min(times[1:] or times)

    def _conversion(self) -> float:
        """Seconds that a trial spends on converting frozen weights, which a run holds in bfloat16 from the start."""
        layers = [module for module in self.engine.model.network.modules() if isinstance(module, nn.Linear)]
        frozen = [own for layer in layers if (own := layer._parameters.get("weight")) is not None and not own.requires_grad]
        return fastest(lambda: [weight.to(torch.bfloat16) for weight in frozen])

    def _first(self, plan: Plan) -> Batch:
        return self.engine.collate(plan.micro_batches(0)[0])

    def _compile(self, chosen: Chosen) -> None:
        asked = chosen.training.compile
        wanted, reason = worth_compiling(asked, self.engine.device, chosen.plan.total)
        if wanted:
            chosen.compiled = Compiled(self.engine.model)
            problem = self._problem(chosen) if asked == "auto" else ""
            if problem:
                chosen.compiled.remove()
                wanted, reason = False, f"off: compiling does not work here ({problem})"
        if asked == "auto":
            chosen.training = chosen.training.model_copy(update={"compile": "on" if wanted else "off"})
            if self.engine.device.type == "cuda":
                chosen.reasons["training.compile"] = reason

    def _problem(self, chosen: Chosen) -> str:
        """Why a pass through compiled blocks fails; nothing when it does not."""
        try:
            self._seconds(self._first(chosen.plan))
        except (RuntimeError, ImportError, OSError) as error:  # a compiler is missing or fails, each in its own words
            self.engine.forget()
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
        return ""

    def _memory(self, chosen: Chosen) -> Estimate:
        """The estimate; where the run does not fit, smaller passes and then recomputed activations, if nobody decided on them."""
        guess = self._estimate(chosen)
        if guess.peak > guess.available and "token_budget" not in chosen.training.model_fields_set:
            budget = _fitting(chosen.plan.token_budget, guess)
            if budget < chosen.plan.token_budget:
                before = chosen.plan.token_budget
                chosen.set("token_budget", budget, f"{budget}: passes of {before} tokens would not fit into memory")
                chosen.plan = replace(chosen.plan, token_budget=budget)
                guess = self._estimate(chosen)
        if chosen.training.checkpointing is None:
            needed = guess.peak > guess.available
            chosen.training = chosen.training.model_copy(update={"checkpointing": needed})
            if needed:
                chosen.reasons["training.checkpointing"] = "true: without it the run would not fit into memory"
                chosen.recomputing = Recomputing(self.engine.model)
                guess = self._estimate(chosen)
        return guess

    def _estimate(self, chosen: Chosen) -> Estimate:
        plan = chosen.plan
        torch.manual_seed(derive(plan.seed, "estimate"))
        largest = _largest(plan)
        small = largest[: max(1, len(largest) // 8)]
        tokens = int(sum(tree.size for tree in plan.trees) * plan.total / plan.per_epoch)
        batches = self.engine.collate(small), self.engine.collate(largest)
        own = estimate(self.engine, self.loss, *batches, Work(plan.total, tokens), chosen.recomputing)
        return Estimate(**self.group.tell(own.as_dict()))


def _product(width: int) -> float:
    return remembered({"what": "bfloat16 product", "width": width}, lambda: measured_speedup(width))


def _few(trees: Sequence[Tree], tokens: int) -> list[Tree]:
    """The first rows, until they have so many tokens; one at least."""
    few: list[Tree] = []
    for tree in trees:
        if sum(one.size for one in few) >= tokens:
            break
        few.append(tree)
    return few


def _fitting(budget: int, guess: Estimate) -> int:
    """The largest power of two of tokens whose activations fit, or `budget` where that would be too few to be worth it."""
    room = guess.available - guess.peak + guess.activations
    tokens = int(budget * room / max(1, guess.activations))
    fitting = 1 << max(0, tokens.bit_length() - 1) if tokens > 0 else 0
    return fitting if fitting >= LEAST_BUDGET else budget


def _largest(plan: Plan) -> list[Tree]:
    """The forward pass of the first epoch that computes the most."""
    passes = [batch for number in range(min(plan.per_epoch, plan.total)) for batch in plan.micro_batches(number)]
    return max(passes, key=lambda batch: sum(tree.size for tree in batch))
