"""What objectives on plain text share: nothing is answered, and what is measured is the loss of the tokens that are to be found.

Shape suffix: N tokens to be found.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from tunewright.core.errors import BaseModelError
from tunewright.data.packing import batches_for
from tunewright.data.rows import Row
from tunewright.objectives import Objective, Reading, Task, room

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.data.rendering import Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine

BUDGET = 4096  # tokens of one forward pass without gradients
RIGHT = "masked_accuracy"  # the name under which the share of hidden words that were found stands in `Reading.scores`
OF_KIND = {"decoder": "language_modeling", "encoder": "masked_language_modeling", "encoder_decoder": "span_corruption"}


class Found(NamedTuple):
    """What the network says about the tokens of a batch that are to be found.

    Args:
        log_probability_N: log p(token); row_N: the row that it is of.
        right_N: whether no token was more probable; None where nobody asks.
    """

    log_probability_N: Tensor
    row_N: Tensor
    right_N: Tensor | None = None


class TextObjective(Objective):
    """An objective on plain text: a subclass says which tokens are to be found, and how the network speaks about them."""

    metrics: ClassVar[tuple[str, ...]] = ()
    task: ClassVar[Task] = "text"
    kind: ClassVar[str]

    @abstractmethod
    def found(self, engine: Engine, batch: Batch) -> Found:
        """Log-probabilities of what is to be found in a batch, without gradients."""

    @property
    def reads(self) -> bool:
        return True

    def decided(self, kind: str, rows: Sequence[Row]) -> Objective:
        if kind != self.kind:
            article = "an encoder-decoder" if kind == "encoder_decoder" else "an encoder" if kind == "encoder" else "a decoder"
            hint = f"On {article}, plain text is learned with `objective: {OF_KIND[kind]}`."
            problem = f"'{room.name_of(self)}' is for {self.kind.replace('_', '-')}s, and the base is {article}"
            raise BaseModelError(problem, where="base", hint=hint)
        return self

    def readings(self, engine: Engine, renderer: Renderer, rows: Sequence[Row]) -> list[Reading]:
        """For each row the mean loss of what was to be found in it; the same tokens whoever is asked, since no draw is involved."""
        from tunewright.data.rendering import Refusal

        trees = [item.tree for item in self.plant(rows, renderer) if not isinstance(item, Refusal)]
        sums, rights, counts = [0.0] * len(rows), [0] * len(rows), [0] * len(rows)
        told = False
        for chosen in batches_for(trees, BUDGET):
            score_N, row_N, right_N = self.found(engine, engine.collate([trees[index] for index in chosen]))
            told = right_N is not None
            hits = right_N.tolist() if right_N is not None else [False] * len(score_N)
            for row, score, hit in zip(row_N.tolist(), score_N.tolist(), hits, strict=True):
                sums[row] -= score
                rights[row] += hit
                counts[row] += 1
        return [
            Reading(None, total / count, count, scores={RIGHT: right / count} if told else {}) if count else Reading(None)
            for total, right, count in zip(sums, rights, counts, strict=True)
        ]
