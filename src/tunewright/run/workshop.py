"""What a run has on its bench once everything is set up: settings without gaps, rows, trees, the engine, the estimate."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from tunewright.core.errors import ConfigurationError
from tunewright.core.narrator import Narrator
from tunewright.core.runs import RunFolder
from tunewright.core.seeds import derive, shuffled
from tunewright.core.surroundings import cores
from tunewright.core.units import count_text
from tunewright.data.forest import Tree
from tunewright.data.reading import Dataset
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rendering.audit import TargetCounts
from tunewright.data.rows import LabelRow, Row
from tunewright.engine.device import choose_device
from tunewright.engine.engine import Engine
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.precision import choose
from tunewright.engine.probe import Probed, probe
from tunewright.evaluation.opening import load_base
from tunewright.evaluation.task import Always, Approach
from tunewright.evaluation.tuned import Tuned
from tunewright.methods import Tuning
from tunewright.models import Model
from tunewright.models.facts import facts
from tunewright.objectives import Objective
from tunewright.objectives.classification import Classification
from tunewright.run.targets import decided, objective_for, plant
from tunewright.training.estimate import Estimate, estimate, refuse_base, refuse_if_too_large
from tunewright.training.loop import Pace, Plan
from tunewright.training.settings import Training
from tunewright.training.settle import Settled, settle, total_steps

if TYPE_CHECKING:
    from tunewright.finetune import Evaluation, Run

NOTABLE = 0.05  # share of dropped rows from which on the report warns


@dataclass
class Clock:
    """Announces stages and keeps their seconds."""

    narrator: Narrator
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """One stage; a second one of the same name adds up."""
        self.narrator.stage(title)
        began = time.perf_counter()
        yield
        self.seconds[title] = self.seconds.get(title, 0.0) + time.perf_counter() - began


@dataclass
class Workshop:
    """Everything that tuning, testing and reporting need.

    Args:
        run: resolved, without gaps; `reasons` says why each gap was filled as it was (by key path).
        labels: the labels in the order of the head or of the label words; empty for text.
    """

    run: Run
    folder: RunFolder
    clock: Clock
    dataset: Dataset
    model: Model
    renderer: Renderer
    objective: Objective
    labels: tuple[str, ...]
    tuning: Tuning
    engine: Engine
    probed: Probed
    plan: Plan
    pace: Pace
    targets: TargetCounts
    estimate: Estimate
    reasons: dict[str, str]
    metrics: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    base_validation: dict[str, float] = field(default_factory=dict)

    @property
    def narrator(self) -> Narrator:
        """Who hears what happens."""
        return self.clock.narrator

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage so far."""
        return self.clock.seconds

    def stage(self, title: str) -> AbstractContextManager[None]:
        """Announce a stage and keep its seconds."""
        return self.clock.stage(title)

    def warn(self, text: str) -> None:
        """Tell the user now, and the reader of the report later."""
        self.narrator.warn(text)
        self.warnings.append(text)

    def approach(self, name: str) -> Tuned:
        """The model as it stands, as something that answers rows."""
        sampling = self.run.evaluation.sampling
        return Tuned(self.engine, self.renderer, self.objective, labels=self.labels, sampling=sampling, name=name)

    @property
    def has_new_head(self) -> bool:
        """Whether the answers come from a head that the base does not have."""
        return self.engine.head is not None

    def baseline(self) -> Approach:
        """What the tuned model is compared with: the base, or, where the base has no head to answer with, the majority label."""
        if not self.has_new_head:
            return self.approach("base")
        counts = Counter(row.label for row in self.dataset.train if isinstance(row, LabelRow))
        return Always(min(counts, key=lambda label: (-counts[label], label)), "majority label")

    def validation_rows(self) -> list[Row]:
        """The validation rows that are looked at while training: all, or a fixed draw of them."""
        rows = self.dataset.validation
        chosen = sorted(shuffled(len(rows), self.run.seed, "validation")[: self.run.evaluation.validation_rows])
        return [rows[index] for index in chosen]


def set_up(run: Run, dataset: Dataset, folder: RunFolder | None, narrator: Narrator) -> Workshop:
    """Load the base, choose what was left open, render and audit the rows, attach the method, probe, estimate.

    Args:
        folder: where the run is kept; None to look without leaving anything (`estimate`).

    Raises:
        RequestError: something about the request cannot work; nothing was written.
    """
    torch.set_num_threads(run.threads or cores())
    clock = Clock(narrator)
    with clock.stage("Load the base"):
        model = _load(run, narrator)
        objective = decided(objective_for(run, dataset), model.kind, dataset)
        settled = settle(run.training, run.method, rows=len(dataset.train), parameters=_size(model))
        rendering = run.rendering.settled(dataset.train)
    with clock.stage("Show what is trained on"):
        renderer = Renderer(model.tokenizer, model.kind, model.context, rendering)
        planted = plant(objective, dataset.train, renderer)
        trees = [item.tree for item in planted.entries if not isinstance(item, Refusal)]
        narrator.say(planted.sentence)
    with clock.stage("Estimate"):
        labels = objective.labels if isinstance(objective, Classification) else ()
        tuning, engine, probed = _equip(model, objective, settled, run.seed)
        total = total_steps(settled.training, len(trees))
        plan = Plan(trees, settled.training.batch_size or 16, settled.training.token_budget, run.seed, total)
        training, reasons = _precise(settled, engine, objective, plan)
        engine.optimizer = Optimizer(training.optimizer, engine.parameters)
        training, guess = _affordable(training, engine, objective, plan, reasons)
        narrator.say(guess.sentence())
        for key, reason in reasons.items():
            narrator.say(f"{key} = {reason}")
        refuse_if_too_large(guess, plan.token_budget)
    chosen = {"method": settled.method, "objective": objective, "rendering": rendering, "training": training}
    chosen |= {"threads": torch.get_num_threads(), "evaluation": _evaluation(run, trees), "device": str(engine.device)}
    return Workshop(
        run=run.model_copy(update=chosen),
        folder=folder or RunFolder(run.folder),
        clock=clock,
        dataset=dataset,
        model=model,
        renderer=renderer,
        objective=objective,
        labels=labels,
        tuning=tuning,
        engine=engine,
        probed=probed,
        plan=plan,
        pace=_pace(training, total),
        targets=planted.counts,
        estimate=guess,
        reasons=reasons,
        metrics=run.evaluation.metrics or objective.metrics,
        warnings=[*_dropped(dataset), *model.notes, *([f"Layout: {probed.reason}."] if probed.layout == "padded" else [])],
    )


def _dropped(dataset: Dataset) -> list[str]:
    """A sentence for the report when so many rows were dropped that a reader must know."""
    read = sum(dataset.findings.read.values())
    if len(dataset.ledger) <= NOTABLE * read:
        return []
    kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in dataset.ledger.counts().items())
    return [f"{len(dataset.ledger)} of {read} rows were dropped and not learned from: {kinds}."]


def _load(run: Run, narrator: Narrator) -> Model:
    """The base, on the device; refused before it is read when its weights alone do not fit."""
    device = choose_device(run.device)
    refuse_base(run.base, facts(run.base).parameters, torch.device("cpu"))
    model = load_base(run.base)
    model.network.to(device)  # type: ignore[arg-type]
    narrator.say(f"{run.base}: {model.family} {model.kind.replace('_', '-')}, {count_text(_size(model))} parameters")
    return model


def _equip(model: Model, objective: Objective, settled: Settled, seed: int) -> tuple[Tuning, Engine, Probed]:
    """Attach the method and the head, find the layout, and build the engine on them."""
    labels = objective.labels if isinstance(objective, Classification) else ()
    head = objective.make_head(model, labels, seed)
    tuning = (settled.method.attach if head is None else settled.method.attach_under_new_head)(model, seed)
    parameters = dict(tuning.parameters())
    if head is not None:
        head.to(model.network.device)
        parameters |= {f"head.{name}": value for name, value in head.named_parameters()}
    if not parameters:
        hint = "This method needs an objective that brings a new head."
        raise ConfigurationError("nothing would be trained", where="method", hint=hint)
    probed = probe(model)
    if settled.training.checkpointing:
        recompute_activations(model)
    return tuning, Engine(model, parameters, probed, head=head), probed


def recompute_activations(model: Model) -> None:
    """Keep only what enters each block for the backward pass, and compute the rest again there: more time, less memory."""
    with warnings.catch_warnings():  # transformers 5.23 gave it another name; this one is known to all of 5
        warnings.simplefilter("ignore", FutureWarning)
        model.network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _precise(settled: Settled, engine: Engine, objective: Objective, plan: Plan) -> tuple[Training, dict[str, str]]:
    """The training settings with the precision decided by measurement, and all reasons."""
    reasons, precision = dict(settled.reasons), settled.training.precision
    if precision == "auto":
        precision, reasons["training.precision"] = _precision(engine, objective, plan)
    if precision == "bfloat16":
        engine.use_precision("bfloat16")
    return settled.training.model_copy(update={"precision": precision}), reasons


def _affordable(
    training: Training, engine: Engine, objective: Objective, plan: Plan, reasons: dict[str, str]
) -> tuple[Training, Estimate]:
    """The estimate, and the settings with activations recomputed where nothing else makes the run fit and nobody forbade it."""
    guess = _estimate(engine, objective, plan)
    if training.checkpointing is not None:
        return training, guess
    needed = guess.peak > guess.available
    if needed:
        reasons["training.checkpointing"] = "true: without it the run would not fit into memory"
        recompute_activations(engine.model)
        guess = _estimate(engine, objective, plan)
    return training.model_copy(update={"checkpointing": needed}), guess


def _pace(training: Training, total: int) -> Pace:
    rising = min(round(total * training.warmup), total - 1)  # the first step rises from zero, so it must not be the only one
    return Pace(training.learning_rate or 1e-4, training.schedule, rising, training.clip)


def _evaluation(run: Run, trees: Sequence[Tree]) -> Evaluation:
    """The settings of evaluation; answers may be a little longer than the longest one trained on, unless a length is given."""
    asked = run.evaluation
    if "max_new_tokens" in asked.sampling.model_fields_set:
        return asked
    longest = max((tree.trained for tree in trees), default=0)
    return asked.model_copy(update={"sampling": asked.sampling.model_copy(update={"max_new_tokens": min(256, longest + 8)})})


def _size(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def _largest(plan: Plan) -> list[Tree]:
    """The forward pass of the first epoch that computes the most."""
    passes = [batch for number in range(min(plan.per_epoch, plan.total)) for batch in plan.micro_batches(number)]
    return max(passes, key=lambda batch: sum(tree.size for tree in batch))


def _precision(engine: Engine, objective: Objective, plan: Plan) -> tuple[str, str]:
    batch = engine.collate(plan.micro_batches(0)[0])

    def trial(precision: str) -> float:
        engine.precision = "bfloat16" if precision == "bfloat16" else "float32"
        times = []
        for _ in range(3):
            began = time.perf_counter()
            objective.loss(engine, batch).total.backward()
            times.append(time.perf_counter() - began)
        engine.precision = "float32"
        for parameter in engine.parameters.values():
            parameter.grad = None
        return min(times[1:])

    return choose(engine.model.width, engine.device, trial)


def _estimate(engine: Engine, objective: Objective, plan: Plan) -> Estimate:
    engine.model.network.train()
    torch.manual_seed(derive(plan.seed, "estimate"))
    largest = _largest(plan)
    small = largest[: max(1, len(largest) // 8)]
    tokens = int(sum(tree.size for tree in plan.trees) * plan.total / plan.per_epoch)
    return estimate(engine, objective.loss, engine.collate(small), engine.collate(largest), steps=plan.total, tokens=tokens)
