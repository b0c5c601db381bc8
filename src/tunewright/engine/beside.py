"""Models beside the one that a run trains: judges of its answers, teachers. They are asked and never trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunewright.data.rows import Row

if TYPE_CHECKING:
    from tunewright.data.rendering import Renderer
    from tunewright.engine.engine import Engine


class Beside(ABC):
    """A base or a tuned model that an objective named (`Objective.others`) and the run has opened: `engine.beside[name]`.

    Attributes:
        name: as the objective wrote it.
        engine: its own, with its tuning and its head; nothing in it is trained.
        renderer: its own tokenizer and template.
        objective: what it was tuned for; `sft` for a plain base.
        labels: in the order of its head, or its label words; empty where it has none.
        stamp: a hash of everything that it computes from; a run that goes on asks the same one.
    """

    name: str
    engine: Engine
    renderer: Renderer
    objective: str
    labels: tuple[str, ...]
    stamp: str

    @abstractmethod
    def judged(self, asked: Sequence[tuple[Row, str]]) -> list[Mapping[str, float] | str]:
        """What it says of each answer to its row: `reward`, or the probability of each label; or why it cannot, as a clause.

        Raises:
            ConfigurationError: it was tuned for something that does not judge.
        """

    @abstractmethod
    def spread(self) -> tuple[float, float]:
        """Mean and deviation of its rewards for the answers that it was validated on.

        Raises:
            ConfigurationError: these are not at hand, or all are alike.
        """
