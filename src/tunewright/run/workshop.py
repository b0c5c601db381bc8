"""What a run has on its bench once everything is set up: settings without gaps, rows, trees, the engine, the estimate."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from tunewright.core.errors import ConfigurationError
from tunewright.core.narrator import Narrator
from tunewright.core.runs import RunFolder
from tunewright.core.seeds import shuffled
from tunewright.core.units import count_text
from tunewright.data.forest import Tree
from tunewright.data.reading import Dataset
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rendering.audit import TargetCounts
from tunewright.data.replay import is_replayed
from tunewright.data.rows import Row
from tunewright.engine.engine import Engine
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.placement import Placement
from tunewright.engine.placement.group import own_device, own_threads
from tunewright.engine.probe import Probed, probe
from tunewright.evaluation.beside import Besides, settle_beside
from tunewright.evaluation.dealt import Dealt
from tunewright.evaluation.opening import load_base, open_model
from tunewright.evaluation.task import Always, Approach
from tunewright.evaluation.tuned import Tuned
from tunewright.methods import Tuning
from tunewright.models import Model
from tunewright.models.facts import facts
from tunewright.models.four_bits import FOUR_BITS
from tunewright.objectives import Guess, Objective
from tunewright.objectives._policy import PolicyObjective
from tunewright.objectives._reference import ReferredObjective
from tunewright.run import choice
from tunewright.run.aiding import Aided, Subject, aided
from tunewright.run.keeping import keep_frozen
from tunewright.run.placing import idle, place
from tunewright.run.targets import Planted, decided, objective_for, plant, watching
from tunewright.training.choosing import Chooser, threads_for
from tunewright.training.estimate import Estimate, refuse_base, refuse_if_too_large
from tunewright.training.loop import ALONE, Pace, Plan, Source
from tunewright.training.referring import Referring
from tunewright.training.rollouts import Desk, Rollouts
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
        placement: the processes that work on it, and what each of them holds.
    """

    run: Run
    folder: RunFolder
    clock: Clock
    dataset: Dataset
    model: Model
    renderer: Renderer
    objective: Objective
    tuning: Tuning
    aided: Aided
    engine: Engine
    probed: Probed
    plan: Plan
    targets: TargetCounts
    estimate: Estimate
    reasons: dict[str, str]
    placement: Placement = ALONE
    metrics: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    base_validation: dict[str, float] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the head or of the label words; empty for text."""
        return self.objective.label_names()

    @property
    def pace(self) -> Pace:
        """The course of the learning rate."""
        return _pace(self.run.training, self.plan.total)

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

    def approach(self, name: str) -> Approach:
        """The model as it stands, as something that answers rows."""
        sampling = self.run.evaluation.sampling
        tuned = Tuned(self.engine, self.renderer, self.objective, labels=self.labels, sampling=sampling, name=name)
        together = sampling.temperature > 0 or isinstance(self.objective, ReferredObjective)
        return Dealt(tuned, self.placement, drawn=together)

    @property
    def has_new_head(self) -> bool:
        """Whether the answers come from a head that the base does not have."""
        return self.engine.head is not None and self.objective.with_head

    @cached_property
    def source(self) -> Source:
        """What the steps train on: the plan, or, for a policy, what it writes from step to step."""
        if isinstance(self.objective, ReferredObjective):
            return Referring(self.plan, self.engine, self.objective, self.placement)
        if not isinstance(self.objective, PolicyObjective):
            return self.plan
        folder = self.folder.path / "rollouts"
        return Rollouts(self.plan, Desk(self.engine, self.objective, self.renderer, self.dataset.train, self.placement, folder))

    def baseline(self) -> Approach:
        """What the tuned model is compared with: the base, or, where the base has no head to answer with, a guess of the rows."""
        guess = self.guess
        return self.approach("base") if guess is None else Always(guess.answer, guess.name)

    @property
    def guess(self) -> Guess | None:
        """What stands for the base where it has no head to answer with."""
        return self.objective.guess(self.dataset.train) if self.has_new_head else None

    def validation_rows(self) -> list[Row]:
        """The validation rows that are looked at while training: all, or a fixed draw of them."""
        rows = self.dataset.validation
        chosen = sorted(shuffled(len(rows), self.run.seed, "validation")[: self.run.evaluation.validation_rows])
        return [rows[index] for index in chosen]


def set_up(run: Run, dataset: Dataset, folder: RunFolder | None, narrator: Narrator, group: Placement = ALONE) -> Workshop:
    """Load the base, choose what was left open, render and audit the rows, attach the method, probe, estimate.

    Args:
        folder: where the run is kept; None to look without leaving anything (`estimate`).
        group: the processes that carry out the run together; what is measured on a machine, the first one decides for all.

    Raises:
        RequestError: something about the request cannot work; nothing was written.
    """
    clock = Clock(narrator)
    with clock.stage("Load the base"):
        model = _load(run, objective_for(run, dataset), narrator)
        objective = decided(objective_for(run, dataset), model.kind, dataset)
        reasons = threads_for(run.threads, model.width, model.network.device, group)
        settled = _settled(run, objective, len(dataset.train), model)
    with clock.stage("Show what is trained on"):
        renderer, planted, trees = _rendered(run, model, objective, dataset)
        narrator.say(planted.sentence)
    with clock.stage("Estimate"):
        tuning, engine, probed = _equip(model, objective, settled, run.seed, group)
        trees = trees if folder is None else objective.prepare(engine, trees)
        aids = aided(Subject(run, objective, renderer, engine, tuning), trees, folder, group)
        plan = aids.ordered(_plan(trees, settled.training, run.seed, objective))
        tuning.begin(plan.total)
        reasons |= choice.decide(tuning, choice.Source(engine, objective.loss, plan), folder, group)
        settle_beside(engine)
        done, guess = Chooser(engine, aids.loss, group).decide(settled.training, plan, settled.reasons | aids.reasons | reasons)
        training, plan, reasons = done.training, done.plan, done.reasons
        plan = plan if folder is None else _as_decided(plan, objective, engine)
        placement, guess, why = place(run.placement, group, engine, tuning, guess)
        reasons |= {"placement": why} if why else {}
        aids.hold(placement)
        engine.optimizer = Optimizer(training.optimizer, engine.parameters, _faster(training))
        _announce(narrator, guess, reasons)
        refuse_if_too_large(guess, plan.token_budget)
        engine.prefix = keep_frozen(engine, run.cache, plan, narrator) if _rereads(folder, objective, aids) else None
    chosen = {"method": settled.method, "objective": objective, "rendering": renderer.config, "training": training}
    chosen |= {"threads": torch.get_num_threads(), "evaluation": _evaluation(run, trees, dataset), "device": str(engine.device)}
    return Workshop(
        run=run.model_copy(update=chosen),
        folder=folder or RunFolder(run.folder),
        clock=clock,
        dataset=dataset,
        model=model,
        renderer=renderer,
        objective=objective,
        tuning=tuning,
        aided=aids,
        engine=engine,
        probed=probed,
        plan=plan,
        targets=planted.counts,
        estimate=guess,
        reasons=reasons,
        placement=placement,
        metrics=run.evaluation.metrics or objective.measured(),
        warnings=[*_dropped(dataset), *idle(plan, group), *model.notes, *_padded(probed)],
    )


def _rendered(run: Run, model: Model, objective: Objective, dataset: Dataset) -> tuple[Renderer, Planted, list[Tree]]:
    """What makes trees of rows, what it made of the training rows, and the trees alone."""
    renderer = Renderer(model.tokenizer, model.kind, run.method.text_room(model.context), run.rendering.settled(dataset.train))
    planted = plant(objective, dataset.train, renderer)
    return renderer, planted, [item.tree for item in planted.entries if not isinstance(item, Refusal)]


def _rereads(folder: RunFolder | None, objective: Objective, aids: Aided) -> bool:
    """Whether rows are read again in later epochs as they were: looking alone reads them once, what a policy writes is never read
    again, and with noise on the embeddings no state is a constant of its row. What is kept is found last of all, since everything
    that is decided before belongs to its key."""
    return folder is not None and not isinstance(objective, PolicyObjective) and not aids.aids.neftune


def _as_decided(plan: Plan, objective: Objective, engine: Engine) -> Plan:
    """The plan with what its trees carry of the base in the precision that was decided: a constant of the row and of that."""
    if engine.precision == "float32":
        return plan
    engine.first.of_base.clear()
    return replace(plan, trees=objective.prepare(engine, plan.trees))


def _announce(narrator: Narrator, guess: Estimate, reasons: dict[str, str]) -> None:
    """What the run will need, and what was decided for which reason."""
    for line in (guess.sentence(), guess.speed(), *(f"{key} = {reason}" for key, reason in reasons.items())):
        narrator.say(line)


def _padded(probed: Probed) -> list[str]:
    """A sentence for the report when the base could not take packed rows."""
    return [f"Layout: {probed.reason}."] if probed.layout == "padded" else []


def _dropped(dataset: Dataset) -> list[str]:
    """A sentence for the report when so many rows were dropped that a reader must know."""
    read = sum(dataset.findings.read.values())
    if len(dataset.ledger) <= NOTABLE * read:
        return []
    kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in dataset.ledger.counts().items())
    return [f"{len(dataset.ledger)} of {read} rows were dropped and not learned from: {kinds}."]


def _load(run: Run, objective: Objective, narrator: Narrator) -> Model:
    """The base, on the device; refused before it is read when its weights alone do not fit."""
    torch.set_num_threads(own_threads(run.threads))
    device = own_device(run.device)
    refuse_base(run.base, facts(run.base).parameters, torch.device("cpu"))
    four = run.training.base_precision in FOUR_BITS
    model = load_base(run.base, run.training.base_precision if four else "float32", own_head=objective.own_head)
    model.network.to(device)  # type: ignore[arg-type]
    narrator.say(f"{run.base}: {model.family} {model.kind.replace('_', '-')}, {count_text(_size(model))} parameters")
    return model


def _equip(model: Model, objective: Objective, settled: Settled, seed: int, group: Placement) -> tuple[Tuning, Engine, Probed]:
    """Attach the method and the head, find the layout, and build the engine on them."""
    labels = objective.label_names()
    head = objective.make_head(model, labels, seed)
    tuning = (settled.method.attach if head is None else settled.method.attach_under_new_head)(model, seed)
    parameters = dict(tuning.parameters())
    if head is not None:
        head.to(model.network.device)
        parameters |= {f"head.{name}": value for name, value in head.named_parameters()}
    if not parameters and not tuning.wants_gradients:
        hint = "This method needs an objective that brings a new head."
        raise ConfigurationError("nothing would be trained", where="method", hint=hint)
    probed = Probed(*group.tell(list(probe(model, settled.method.layouts))))
    engine = Engine(model, parameters, probed, head=head)
    engine.beside = Besides(objective.others(), open_model, engine)
    tuning.follow(engine.first)
    return tuning, engine, probed


def _plan(trees: Sequence[Tree], training: Training, seed: int, objective: Objective) -> Plan:
    updates = objective.updates if isinstance(objective, PolicyObjective) else 1
    return Plan(trees, training.batch_size or 16, training.token_budget, seed, total_steps(training, len(trees), updates))


def _pace(training: Training, total: int) -> Pace:
    rising = min(round(total * training.warmup), total - 1)  # the first step rises from zero, so it must not be the only one
    return Pace(training.learning_rate or 1e-4, training.schedule, rising, training.clip)


def _faster(training: Training) -> float:
    """How many times faster than the rest a new head learns."""
    return training.head_learning_rate / training.learning_rate if training.head_learning_rate and training.learning_rate else 1.0


def _evaluation(run: Run, trees: Sequence[Tree], dataset: Dataset) -> Evaluation:
    """The settings of evaluation; answers may be a little longer than the longest one trained on, unless a length is given."""
    asked = run.evaluation
    if "max_new_tokens" in asked.sampling.model_fields_set:
        return asked
    own = (tree for tree in trees if not is_replayed(dataset.train[tree.segments[0].row]))
    longest = max((segment.trained for tree in own for segment in tree.segments), default=0)
    return asked.model_copy(update={"sampling": asked.sampling.model_copy(update={"max_new_tokens": min(256, longest + 8)})})


def _settled(run: Run, objective: Objective, rows: int, model: Model) -> Settled:
    """The training settings and the method without gaps."""
    wanted, new_head = watching(run.training, objective), objective.with_head
    return settle(wanted, run.method, rows=rows, parameters=_size(model), new_head=new_head, pace=objective.pace)


def _size(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())
