"""What objectives on a policy's own answers share: drawing settings, what an answer carries, and its log-probabilities.

In every step prompts are answered, the answers are graded, and they are learned from (`training/rollouts.py`). A prompt is the
root of a tree and its answers are its children. What a loss needs of the moment at which an answer was drawn travels in
`Segment.values`, as columns of one number for each token of the answer, so that a step can be cut in any way.

Letters: N targets (tokens of answers), A answers, K columns.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer

from tunewright.core.errors import BaseModelError
from tunewright.data.forest import Segment, Tree
from tunewright.data.rows import ChatRow, PromptRow, Row
from tunewright.graders import Grader, Sitting, made
from tunewright.graders import room as graders
from tunewright.graders._grading import OnError, graded
from tunewright.objectives import Objective, Reading, Task

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine

REWARD = "reward"
SMALL = 1e-4  # added to deviations, as TRL does
BUDGET = 4096  # tokens of one forward pass without gradients


@dataclass(frozen=True)
class Drawn:
    """One answer that was drawn, and what was known of it then.

    Args:
        row: the index of its row among the training rows.
        prompt, tokens: token ids; the end token, where it was drawn, is one of the answer's.
        text: the answer as it was graded; reward: its grade.
        old, base: log p of each token under the policy that drew it, and under the base.
        finished: it ended by itself.
    """

    row: int
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    reward: float
    old: tuple[float, ...]
    base: tuple[float, ...]
    finished: bool = True


Group = Sequence[Drawn]
"""The answers to one prompt."""


class Limits(NamedTuple):
    """From where on a run is stopped because the reward may be won by something that nobody wants.

    Args:
        kl: nats a token between the policy and the base.
        length: times the mean length of the first answers.
        repetition: rise of the share of repeated words over that of the first answers.
    """

    kl: float | None
    length: float | None
    repetition: float | None


class Tokens(NamedTuple):
    """The tokens of a batch's answers, all [N] unless said otherwise, float32.

    Args:
        log_N: log p under the policy; differentiable.
        columns: what the answers carry, each [N].
        answer_N: which answer a token belongs to, 0 to A - 1; counts_A: tokens of each answer.
    """

    log_N: Tensor
    columns: tuple[Tensor, ...]
    answer_N: Tensor
    counts_A: Tensor

    def sums(self, values_N: Tensor) -> Tensor:
        """The sum over the tokens of each answer, [A]."""
        return values_N.new_zeros(len(self.counts_A)).index_add(0, self.answer_N, values_N)

    def firsts(self, values_N: Tensor) -> Tensor:
        """The value at the first token of each answer, [A]."""
        return values_N[self.counts_A.cumsum(0) - self.counts_A]


class PolicyObjective(Objective):
    """The abstract objective on answers that the policy draws itself; a subclass gives advantages and a loss."""

    rows: ClassVar[tuple[type[Row], ...]] = (PromptRow, ChatRow)
    metrics: ClassVar[tuple[str, ...]] = ()
    task: ClassVar[Task] = "generation"
    learns: ClassVar[str] = "answers drawn while training"
    scores: ClassVar[tuple[str, ...]] = (REWARD,)
    columns: ClassVar[int] = 3
    compares: ClassVar[bool] = True  # the answers to one prompt are compared with each other: equal grades teach nothing

    grader: Annotated[Grader, BeforeValidator(made), PlainSerializer(graders.dump)] = Field(
        description="what an answer is worth: a name or a mapping with `name`, of the room `graders`"
    )
    group: int = Field(default=8, ge=1, le=1024, description="answers drawn for each prompt")
    max_new_tokens: int = Field(default=64, ge=1, description="longest answer, in tokens")
    temperature: float = Field(default=1.0, gt=0, le=10, description="at which answers are drawn")
    updates: int = Field(default=1, ge=1, le=64, description="optimizer steps on the same answers")
    on_error: OnError = Field(default="fail", description="an answer without a grade: `fail` stops the run, `zero` counts 0")
    validation: Literal["greedy", "sampled"] = Field(default="greedy", description="how answers are written to be measured")
    kl_limit: float | None = Field(default=1.0, gt=0, description="stop above so many nats a token from the base; null: never")
    length_limit: float | None = Field(default=4.0, gt=1, description="stop above this many times the first mean length")
    repetition_limit: float | None = Field(
        default=0.3, gt=0, le=1, description="stop when the share of repeated word triples has risen by this"
    )

    @property
    def limits(self) -> Limits:
        """Where a run is stopped."""
        return Limits(self.kl_limit, self.length_limit, self.repetition_limit)

    @property
    def reads(self) -> bool:
        return True

    def others(self) -> tuple[str, ...]:
        return self.grader.others()

    def decided(self, kind: str, rows: Sequence[Row]) -> Objective:
        if kind == "encoder":
            hint = "Take a decoder or an encoder-decoder (`--base embedded`)."
            raise BaseModelError("an encoder reads and cannot write answers", where="base", hint=hint)
        if rows:
            self.grader.check(rows[0])
        return self

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        """Each row as its prompt with answers as long as they may get: what a step costs is known before any is drawn."""
        return [self._planted(row, number, renderer) for number, row in enumerate(rows)]

    def _planted(self, row: Row, number: int, renderer: Renderer) -> Rendered | Refusal:
        from tunewright.data.rendering import Refusal, Rendered, RowRefused

        if not isinstance(row, self.rows):
            return Refusal("shape", f"a row of shape '{row.shape}' asks for no answer", row.where, number)
        try:
            prompt, cut = renderer.prompt_and_cut(row, room=self.max_new_tokens)
        except RowRefused as error:
            return replace(error.refusal, where=row.where, row=number)
        count = self.max_new_tokens
        one = Drawn(number, prompt, prompt[-1:] * count, "", 0.0, (0.0,) * count, (0.0,) * count)
        values = (0.0,) * (self.columns * count)
        tree = tree_of([one] * self.group, [values] * self.group)
        return Rendered(tree, cut, row.where, row=number, conversation=not renderer.template.plain)

    def prepare(self, engine: Engine, trees: Sequence[Tree]) -> list[Tree]:
        with self.grader.opened(Sitting(judges=engine.beside)):  # a judge that cannot judge is found before anything is trained
            return list(trees)

    @abstractmethod
    def carried(self, engine: Engine, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        """For each answer of each group what it carries: `columns` columns of one number a token, one behind the other."""

    def noticed(self, engine: Engine, facts: dict[str, float]) -> None:
        """Hear what was measured on the answers of a step, once for each rollout; a subclass may adapt and add to it."""

    def kept(self) -> dict[str, float]:
        """What the objective adapts while it trains and a checkpoint must hold, by name, as it is at the start."""
        return {}

    def readings(self, engine: Engine, renderer: Renderer, rows: Sequence[Row]) -> list[Reading]:
        """For each row an answer and its reward; a prompt that does not fit gets none."""
        from tunewright.data.rendering import RowRefused
        from tunewright.engine.sampling import sample
        from tunewright.engine.settings import Sampling

        prompts: dict[int, tuple[int, ...]] = {}
        for index, row in enumerate(rows):
            try:
                prompts[index] = renderer.prompt(row, room=self.max_new_tokens)
            except RowRefused:
                continue
        drawn = self.temperature if self.validation == "sampled" else 0.0
        settings = Sampling(max_new_tokens=self.max_new_tokens, temperature=drawn)
        answers = sample(engine, list(prompts.values()), settings, ends=frozenset(renderer.stops)) if prompts else []
        texts = {index: renderer.decode(one.tokens) for index, one in zip(prompts, answers, strict=True)}
        asked = [(rows[index], text) for index, text in texts.items()]
        grades = graded(self.grader, asked, self.on_error, engine.beside).values
        found = dict(zip(texts, grades, strict=True))
        return [
            Reading(texts[index], scores={REWARD: found[index]}) if index in texts else Reading("", scores={REWARD: 0.0})
            for index in range(len(rows))
        ]

    def tokens(self, engine: Engine, batch: Batch) -> Tokens:
        """Log-probabilities of the answers' tokens and what they carry, at the temperature at which they were drawn."""
        return tokens_of(batch, engine.token_scores(batch, temperature=self.temperature).log_probability_N, self.columns)


def tree_of(group: Group, values: Sequence[tuple[float, ...]]) -> Tree:
    """A prompt with its answers, each carrying its values."""
    root = Segment(group[0].prompt, row=group[0].row)
    leaves = (
        Segment(one.tokens, 0, (1.0,) * len(one.tokens), values=carried, row=one.row)
        for one, carried in zip(group, values, strict=True)
    )
    return Tree((root, *leaves))


def tokens_of(batch: Batch, log_N: Tensor, columns: int) -> Tokens:
    """The tokens of a batch, with the columns that their segments carry spread over them."""
    import torch

    log_N = log_N.float()
    owners_A, answer_N, counts_A = torch.unique_consecutive(batch.owners_N, return_inverse=True, return_counts=True)
    place_N = torch.arange(len(log_N), device=log_N.device) - (counts_A.cumsum(0) - counts_A)[answer_N]
    values_AK = batch.values_SK[owners_A]
    spread = tuple(values_AK[answer_N, place_N + column * counts_A[answer_N]] for column in range(columns))
    return Tokens(log_N, spread, answer_N, counts_A)


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """PPO's cost: -min(ratio A, clip(ratio, 1 - low, 1 + high) A); Schulman et al., arXiv 1707.06347."""
    import torch

    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def k3(log_N: Tensor, base_N: Tensor) -> Tensor:
    """An estimate of KL(policy || base) at each token that is never negative: exp(d) - d - 1, d = log p_base - log p."""
    d_N = base_N - log_N
    return d_N.exp() - d_N - 1


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample (divided by n - 1); 0 of one value."""
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
