"""Floor 3: what is minimised.

An entry is an `Objective`: a frozen configuration that turns rows into trees (`plant`) and a batch into a loss. It also says how
what it trained answers: by writing, or by a task head whose outputs it reads (`objectives/_heads.py`). The top of an entry's file
imports no torch at run time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from tunewright.core.configuration import Strict
from tunewright.core.errors import BaseModelError
from tunewright.core.registry import Room
from tunewright.data.rows import Row

if TYPE_CHECKING:
    from tunewright.data.forest import Tree
    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.models import Model
    from tunewright.models.heads import Head

Task = Literal[
    "classification",
    "multi_label",
    "regression",
    "token_classification",
    "question_answering",
    "preference",
    "reward",
    "generation",
    "text",
]


@dataclass(frozen=True)
class Reading:
    """What a task head says about one row, or a network about a text.

    Args:
        text: its answer, in the form of `Row.target_text`; None where nothing is answered.
        loss: of the right answer, where the row has one.
        tokens: what the loss is the mean of.
        confidence: the probability of the answer, where it is one.
        details: what there is to know beside it (probabilities, places), as plain data.
        scores: what the objective itself says of the answer, by name (its reward); more is better.
    """

    text: str | None
    loss: float | None = None
    tokens: int = 0
    confidence: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


class Guess(NamedTuple):
    """The answer that needs no model, to compare a new head with: its name, what it is in words, and what it says to a row."""

    name: str
    note: str
    answer: Callable[[Row], str]


class Objective(Strict, ABC):
    """What is minimised, as a configuration. Subclass = frozen configuration = itself.

    Contract (tested for every entry): the loss is a sum and a count, so cutting a step into other micro-batches changes nothing
    but rounding; every planted tree with a target contributes; a row that cannot be used is refused with its reason.
    """

    rows: ClassVar[tuple[type[Row], ...]]
    metrics: ClassVar[tuple[str, ...]]
    task: ClassVar[Task] = "generation"
    writes: ClassVar[bool] = True  # what was tuned writes answers to prompts, token by token
    own_head: ClassVar[bool] = False  # an encoder is loaded with the head that it was pre-trained with
    learns: ClassVar[str] = ""  # of one row, in words, where it is not tokens ("one label a row")
    pace: ClassVar[float] = 1.0  # times the method's own learning rate, where none is given
    scores: ClassVar[tuple[str, ...]] = ()  # names of what its readings bring beside metrics; the first is watched while training

    @abstractmethod
    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        """Each row as a tree to train on, or the reason why it cannot be one; in order."""

    def prepare(self, engine: Engine, trees: Sequence[Tree]) -> list[Tree]:
        """The trees with what they must carry of the base, a constant of each row; called before training, and by `readings`."""
        return list(trees)

    @abstractmethod
    def loss(self, engine: Engine, batch: Batch) -> Loss:
        """The loss of one batch as (total, count)."""

    @property
    def with_head(self) -> bool:
        """Whether a new task head is trained (after `decided`)."""
        return False

    @property
    def reads(self) -> bool:
        """Whether rows are answered by `readings`, and not by writing or by comparing label words (after `decided`)."""
        return self.with_head

    def decided(self, kind: str, rows: Sequence[Row]) -> Objective:
        """The same with everything decided that the kind of base and the training rows decide.

        Raises:
            BaseModelError: this kind of base cannot do it.
        """
        if kind == "encoder":
            hint = "Take a decoder or an encoder-decoder (`--base embedded`), or rows with labels."
            raise BaseModelError("an encoder reads and cannot write answers", where="base", hint=hint)
        return self

    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of the head or of the label words (after `decided`); empty where there are none."""
        return ()

    def measured(self) -> tuple[str, ...]:
        """The metrics that tell how well it went (after `decided`); the verdict is about the first."""
        return self.metrics

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> Head | None:
        """A new head for the model, or None when the base's own is used."""
        return None

    def readings(self, engine: Engine, renderer: Renderer, rows: Sequence[Row]) -> list[Reading]:
        """What the head says about every row, in order; without gradients. Only asked of objectives with a head."""
        raise NotImplementedError(f"{type(self).__name__} has no head that could be read")

    def others(self) -> tuple[str, ...]:
        """Models that are asked while this one is trained or measured (a judge, a teacher), as a user names a base, a run or an
        adapter: the run opens them, and from `prepare` on they stand in `engine.beside` under these names."""
        return ()

    def losses(self, engine: Engine, trees: Sequence[Tree]) -> list[tuple[float, int]] | None:
        """What each planted tree costs, as sum and count of its targets, for an objective that writes and whose cost is not -log p
        of them (None). Asked without gradients; a count of 0: it is not known."""
        return None

    def calibrate(self, engine: Engine, renderer: Renderer, rows: Sequence[Row]) -> None:
        """Choose, on validation rows, what is chosen after training (thresholds), and leave it in the head."""

    def guess(self, rows: Sequence[Row]) -> Guess | None:
        """The baseline for a new head, from the training rows; None where there is none."""
        return None

    def asked(self, prompt: str) -> Row | None:
        """What a person typed, as a row that waits for its answer; None: as the rows of the run were.

        Raises:
            ConfigurationError: the text is not what this objective can be asked.
        """
        return None


room: Room[Objective] = Room("tunewright.objectives", Objective, "objective")  # type: ignore[type-abstract]
