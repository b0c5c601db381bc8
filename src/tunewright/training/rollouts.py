"""Rollouts: the steps of a policy. Prompts are answered by the policy as it stands, the answers graded, and learned from.

`Rollouts` takes the place of a `Plan` in `fit`: what step n trains on is drawn at that step. Which prompts meet is a function of
seed and epoch, and every draw one of (seed, rollout, row, sample, position), so a run that is resumed draws the same answers again.
Where several updates are made on the same answers, these are kept in a file: the policy that drew them is gone after the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunewright.core.errors import BaseModelError
from tunewright.core.seeds import derive
from tunewright.core.storage import read_json, write_json
from tunewright.data.forest import Tree
from tunewright.data.packing import batches_for
from tunewright.data.rendering import Renderer
from tunewright.data.rows import Row
from tunewright.engine.engine import Engine
from tunewright.engine.members import Accumulated
from tunewright.engine.placement import Placement
from tunewright.engine.sampling import Prompt, Sample, sample_groups
from tunewright.engine.settings import Sampling
from tunewright.graders._grading import graded
from tunewright.objectives._policy import BUDGET, Drawn, PolicyObjective, deviation, tokens_of, tree_of
from tunewright.training.around import Best
from tunewright.training.loop import Plan, Step

KEPT = 2  # files of the newest rollouts
EARLY, SILENT = 8, 0.5  # steps after which it is said that more than this share of what was drawn teaches nothing
STATE, GOOD = "policy.state", "policy.good."
LENGTH, REPETITION, STEP = range(3)  # of the state: both as the first rollout had them, and the step of the last good parameters


@dataclass(frozen=True)
class Desk:
    """What rollouts are made with.

    Args:
        engine: draws and learns; renderer: says what ends an answer and turns it into text.
        rows: the training rows, as graders know them.
        placement: the processes among which prompts are dealt.
        folder: where the newest rollouts are kept; None to keep none.
    """

    engine: Engine
    objective: PolicyObjective
    renderer: Renderer
    rows: Sequence[Row]
    placement: Placement
    folder: Path | None = None


@dataclass
class Rollout:
    """The answers of one rollout, ready to be learned from.

    Args:
        number: counted from 0.
        trees: a prompt with its answers each; what they carry is in their values.
        facts: what was measured on them; `alarm`: why the run should stop, if it should.
    """

    number: int
    trees: list[Tree]
    facts: dict[str, float]
    alarm: str = ""


class Rollouts:
    """The steps of a run whose answers are drawn while it trains.

    Args:
        plan: which prompts meet in which rollout; its total counts optimizer steps.
        desk: what they are made with.
    """

    def __init__(self, plan: Plan, desk: Desk) -> None:
        self._plan, self._desk = plan, desk
        self.seed, self.total = plan.seed, plan.total
        self._updates = desk.objective.updates
        self._current: Rollout | None = None
        member = desk.engine.first
        own = {name: torch.tensor(value, dtype=torch.float64) for name, value in desk.objective.kept().items()}
        own[STATE] = torch.tensor([math.nan, math.nan, 0.0], dtype=torch.float64)
        if any(desk.objective.limits):
            own |= {GOOD + name: value.detach().clone() for name, value in member.parameters.items()}
        member.kept = {**member.kept, **own}

    @property
    def per_epoch(self) -> int:
        """Optimizer steps in one pass over the prompts."""
        return self._plan.per_epoch * self._updates

    @property
    def compares(self) -> bool:
        """Whether the objective compares the answers to one prompt with each other."""
        return self._desk.objective.compares

    @property
    def alarm(self) -> str:
        """Why the run should stop at this step; empty while all is well."""
        return self._current.alarm if self._current is not None else ""

    def micro_batches(self, step: int) -> list[list[Tree]]:
        """The forward passes of optimizer step `step` (0-based), whose answers are drawn now if none are at hand.

        Raises:
            GraderError: an answer got no grade.
        """
        number, place = divmod(step, self._updates)
        if self._current is None or self._current.number != number:
            self._current = (self._read(number) if place else None) or self._made(number, step)
        trees = self._current.trees
        return [[trees[index] for index in batch] for batch in batches_for(trees, self._plan.token_budget)]

    def step_made(self, number: int, rate: float, made: tuple[float, float, Accumulated], seconds: float) -> Step:
        """The account of optimizer step `number` (0-based), with what was measured on its answers."""
        step = self._plan.step_made(number, rate, made, seconds)
        step.epoch = (number + 1) / self.per_epoch
        step.facts = dict(self._current.facts) if self._current is not None else {}
        return step

    # ---- drawing ----------------------------------------------------------------------------------------------------------

    def _made(self, number: int, step: int) -> Rollout:
        desk, members = self._desk, self._plan.members(number)
        process, whole = desk.placement.process, desk.placement.in_step
        mine = members if whole else members[process.rank :: process.world]
        with desk.placement.readable():
            groups, failed = self._drawn([self._plan.trees[index] for index in mine], number)
        if process.world > 1:
            hands = desk.placement.gather([[[asdict(one) for one in group] for group in groups], failed])
            failed = hands[0][1] if whole else sum(hand[1] for hand in hands)
            dealt = hands[0][0] if whole else [hands[i % process.world][0][i // process.world] for i in range(len(members))]
            groups = [[_drawn_of(one) for one in group] for group in dealt]
        facts = facts_of(groups) | ({"failed_grades": float(failed)} if failed else {})
        desk.objective.noticed(desk.engine, facts)
        with desk.placement.readable():
            values = desk.objective.carried(desk.engine, groups)
        rollout = Rollout(number, [tree_of(*pair) for pair in zip(groups, values, strict=True)], facts)
        rollout.alarm = self._alarm(facts)
        if not rollout.alarm:
            self._note_good(step)
        self._write(rollout, groups, values)
        return rollout

    def _drawn(self, trees: Sequence[Tree], number: int) -> tuple[list[list[Drawn]], int]:
        """Answers to the prompts of `trees`, graded and scored; and how many got no grade."""
        desk, objective = self._desk, self._desk.objective
        roots = [tree.segments[0] for tree in trees]
        seed = derive(self.seed, "rollout", number)
        settings = Sampling(max_new_tokens=objective.max_new_tokens, temperature=objective.temperature, seed=seed)
        prompts = [Prompt(root.tokens, number=root.row) for root in roots]
        ends = frozenset(desk.renderer.stops)
        answers = sample_groups(desk.engine, prompts, settings, ends=ends, samples=objective.group, scored=True)
        texts = [[desk.renderer.decode(one.tokens) for one in group] for group in answers]
        asked = [(desk.rows[root.row], text) for root, group in zip(roots, texts, strict=True) for text in group]
        grades = graded(objective.grader, asked, objective.on_error, desk.engine.beside)
        rewards = iter(grades.values)
        groups = [
            [_as_drawn(root.row, root.tokens, one, text, next(rewards)) for one, text in zip(*pair, strict=True)]
            for root, *pair in zip(roots, answers, texts, strict=True)
        ]
        return with_base(desk.engine, groups, objective.temperature), len(grades.failed)

    # ---- watching ---------------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> Tensor:
        return self._desk.engine.first.kept[STATE]

    def _alarm(self, facts: dict[str, float]) -> str:
        state, limits = self._state, self._desk.objective.limits
        if math.isnan(float(state[LENGTH])):
            state[LENGTH], state[REPETITION] = facts["length"], facts["repetition"]
        length, repetition = float(state[LENGTH]), float(state[REPETITION])
        if limits.kl is not None and facts["kl"] > limits.kl:
            return f"the policy is {facts['kl']:.3g} nats a token from the base (kl_limit {limits.kl:g})"
        if limits.length is not None and facts["length"] > limits.length * length:
            return f"answers have grown from {length:.1f} to {facts['length']:.1f} tokens (length_limit {limits.length:g} times)"
        if limits.repetition is not None and facts["repetition"] > repetition + limits.repetition:
            risen = f"from {repetition:.0%} to {facts['repetition']:.0%}"
            return f"repeated word triples have risen {risen} (repetition_limit {limits.repetition:g})"
        return ""

    def _note_good(self, step: int) -> None:
        member = self._desk.engine.first
        self._state[STEP] = step
        for name, parameter in member.parameters.items():
            if GOOD + name in member.kept:
                member.kept[GOOD + name].copy_(parameter.detach())

    def go_back(self) -> int:
        """The parameters of the last rollout within all limits are put back; returns the step that they are from."""
        member = self._desk.engine.first
        self._desk.engine.put_back({name: member.kept[GOOD + name] for name in member.parameters})
        return int(self._state[STEP])

    # ---- keeping ----------------------------------------------------------------------------------------------------------

    def _write(self, rollout: Rollout, groups: Sequence[Sequence[Drawn]], values: Sequence[Sequence[Sequence[float]]]) -> None:
        folder = self._desk.folder
        if folder is None or not self._desk.placement.leads:
            return
        folder.mkdir(parents=True, exist_ok=True)
        answers = [
            [asdict(one) | {"values": list(carried)} for one, carried in zip(*pair, strict=True)]
            for pair in zip(groups, values, strict=True)
        ]
        facts = {"number": rollout.number, "facts": rollout.facts, "alarm": rollout.alarm, "groups": answers}
        write_json(folder / _name(rollout.number), facts)
        for old in sorted(folder.glob("rollout-*.json"), reverse=True)[KEPT:]:
            old.unlink(missing_ok=True)

    def _read(self, number: int) -> Rollout | None:
        """The rollout that a stopped run was learning from; None where its file is gone: its prompts are answered anew then."""
        folder, found = self._desk.folder, None
        if folder is not None and self._desk.placement.leads and (folder / _name(number)).is_file():
            found = read_json(folder / _name(number))
        found = self._desk.placement.tell(found)
        if found is None:
            return None
        groups = [[_drawn_of(one) for one in group] for group in found["groups"]]
        values = [[tuple(one["values"]) for one in group] for group in found["groups"]]
        trees = [tree_of(*pair) for pair in zip(groups, values, strict=True)]
        return Rollout(number, trees, found["facts"], found["alarm"])


def alarmed(steps: Iterator[Step], rollouts: Rollouts, best: Best, warn: Callable[[str], None]) -> Iterator[Step]:
    """End where a limit is passed, with the last parameters that were within all limits; a best step after these does not count.

    Where most answers teach nothing, that is said as well, and the run goes on.
    """
    for step in heard(steps, rollouts.compares, warn):
        if rollouts.alarm:
            good = rollouts.go_back()
            warn(
                f"Stopped at step {step.number}: {rollouts.alarm}. A reward that is won like this is seldom what is wanted; "
                f"the parameters of step {good} were put back."
            )
            if best.step > good:
                best.value, best.parameters = None, {}
            step.last = True
        yield step


def heard(steps: Iterator[Step], compares: bool, warn: Callable[[str], None]) -> Iterator[Step]:
    """Say once, early or at the end, that most grades carry no signal.

    Args:
        compares: answers are learned from by comparison with others to their prompt, and not with what was expected of them.
    """
    shares: list[float] = []
    said = False
    for step in steps:
        if step.facts:
            shares.append(step.facts["constant_groups"] if compares else float(step.facts["reward_deviation"] == 0))
        silent = sum(shares) / len(shares) if shares else 0.0
        if not said and silent > SILENT and (step.last or len(shares) == EARLY):
            said = True
            whose = "prompts had answers" if compares else "steps had answers"
            warn(
                f"{silent:.0%} of the {whose} that were all graded alike (mean reward {step.facts['reward']:.3g}) by step "
                f"{step.number}, and nothing is learned from these. The task is too hard or too easy for this model, or the "
                "grader too coarse: take one that gives a part for a part, or begin with a model that is right now and then."
            )
        yield step


def with_base(engine: Engine, groups: Sequence[Sequence[Drawn]], temperature: float) -> list[list[Drawn]]:
    """The answers with log p of their tokens under the base: the network with the engine's tuning switched off.

    Raises:
        BaseModelError: the tuning cannot be switched off.
    """
    disabled = engine.first.disabled
    if disabled is None:
        raise BaseModelError("the base under this tuning cannot be had, and a policy is kept near it", where="method")
    trees = [tree_of(group, [()] * len(group)) for group in groups]
    found: list[list[Drawn]] = [[] for _ in groups]
    with disabled(), engine.evaluating():
        for chosen in batches_for(trees, BUDGET):
            batch = engine.collate([trees[index] for index in chosen])
            log_N = engine.token_scores(batch, temperature=temperature).log_probability_N
            numbers = iter(tokens_of(batch, log_N, 0).log_N.tolist())
            for index in chosen:
                found[index] = [_with(one, tuple(next(numbers) for _ in one.tokens)) for one in groups[index]]
    return found


def facts_of(groups: Sequence[Sequence[Drawn]]) -> dict[str, float]:
    """What a rollout tells: rewards, length, repetition, groups that teach nothing, and the KL to the base in nats a token.

    The KL is the mean of log p_old - log p_base. It may fall below 0 by chance; the estimate that never does (`k3`) has single
    tokens that outweigh all others, and what a run is stopped by should not hang on one of them.
    """
    every = [one for group in groups for one in group]
    rewards = [one.reward for one in every]
    apart = [old - base for one in every for old, base in zip(one.old, one.base, strict=True)]
    constant = sum(max(one.reward for one in group) == min(one.reward for one in group) for group in groups)
    return {
        "reward": sum(rewards) / len(rewards),
        "reward_deviation": deviation(rewards),
        "kl": sum(apart) / len(apart),
        "length": len(apart) / len(every),
        "finished": sum(one.finished for one in every) / len(every),
        "repetition": sum(repeated(one.text) for one in every) / len(every),
        "constant_groups": constant / len(groups),
    }


def repeated(text: str) -> float:
    """The share of a text's word triples that stood in it before; 0 of a text of fewer than three words."""
    words = text.split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def _as_drawn(row: int, prompt: tuple[int, ...], one: Sample, text: str, reward: float) -> Drawn:
    return Drawn(row, prompt, one.drawn, text, reward, one.log_probabilities, (), one.finished)


def _with(one: Drawn, base: tuple[float, ...]) -> Drawn:
    return Drawn(one.row, one.prompt, one.tokens, one.text, one.reward, one.old, base, one.finished)


def _drawn_of(facts: dict[str, Any]) -> Drawn:
    told: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in facts.items() if name != "values"}
    return Drawn(**told)


def _name(number: int) -> str:
    return f"rollout-{number:07d}.json"
