"""What objectives with a task head share: texts as trees, the head's outputs row by row, and what a base can carry.

Shape suffixes: S segments, C outputs of the head, U own tokens of all segments, L tokens of one segment.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from tunewright.core.errors import ConfigurationError
from tunewright.data.forest import Segment, Tree
from tunewright.data.rows import LabelRow, LabelsRow, NumberRow, Row
from tunewright.objectives import Objective, Reading

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.models.heads import Pooling

BUDGET = 4096  # tokens of one forward pass without gradients
AskedPooling = Literal["auto", "mean", "first", "last"]


class HeadObjective(Objective):
    """The abstract objective of a new task head. A subclass says how a row's trees and the head's outputs become an answer."""

    writes: ClassVar[bool] = False

    @property
    def with_head(self) -> bool:
        return True

    @abstractmethod
    def read(self, engine: Engine, renderer: Renderer, row: Row, outputs: Sequence[Tensor]) -> Reading:
        """The answer to one row from the head's outputs for its trees: `[C]` each, or `[L, C]` of a head on tokens."""

    def readings(self, engine: Engine, renderer: Renderer, rows: Sequence[Row]) -> list[Reading]:
        from tunewright.data.rendering import Refusal

        planted = [item for item in self.plant(rows, renderer) if not isinstance(item, Refusal)]
        found: dict[int, list[Tensor]] = {}
        for item, output in zip(planted, head_outputs(engine, [item.tree for item in planted]), strict=True):
            found.setdefault(item.row, []).append(output)
        return [
            self.read(engine, renderer, row, found[number]) if number in found else Reading("") for number, row in enumerate(rows)
        ]


def head_outputs(engine: Engine, trees: Sequence[Tree]) -> list[Tensor]:
    """What the head gives for each tree of one segment, on the CPU: `[C]`, or `[L, C]` of a head on tokens."""
    import torch

    from tunewright.data.packing import batches_for
    from tunewright.models.heads import TokenHead

    found = [torch.empty(0)] * len(trees)
    for chosen in batches_for(trees, BUDGET):
        batch = engine.collate([trees[index] for index in chosen])
        outputs = engine.label_logits(batch).float().cpu()
        parts = outputs.split(own_lengths(batch)) if isinstance(engine.head, TokenHead) else outputs.unbind()
        for index, part in zip(chosen, parts, strict=True):
            found[index] = part
    return found


def own_lengths(batch: Batch) -> list[int]:
    """How many tokens each segment of a batch has."""
    return (batch.spans_S2[:, 1] - batch.spans_S2[:, 0]).tolist()


def text_tree(row: Row, number: int, renderer: Renderer) -> Rendered | Refusal:
    """The text, or pair of texts, of row `number` as a tree of one segment that nothing is said about yet."""
    from tunewright.data.rendering import Refusal, RowRefused

    if not isinstance(row, LabelRow | LabelsRow | NumberRow):
        return Refusal("shape", f"a row of shape '{row.shape}' has no text to read whole", row.where, number)
    try:
        found = renderer.text(LabelRow(text=row.text, second_text=row.second_text, label="", where=row.where))
    except RowRefused as error:
        return replace(error.refusal, where=row.where, row=number)
    (segment,) = found.tree.segments
    return said(found, replace(segment, row=number), number)


def said(rendered: Rendered, segment: Segment, number: int) -> Rendered:
    """The same with another segment: what the head should give stands on it."""
    return replace(rendered, row=number, tree=Tree((segment,)))


def pooling_for(asked: AskedPooling, kind: str) -> Pooling:
    """Which hidden states a head on segments reads, where nobody says: all of an encoder's, a decoder's last."""
    if asked != "auto":
        return asked
    return "mean" if kind == "encoder" else "last"


def refuse_encoder_decoder(kind: str, hint: str = "Take an encoder or a decoder.") -> None:
    """Raise `ConfigurationError` for a base on which no new head is offered."""
    if kind == "encoder_decoder":
        raise ConfigurationError("a new head is not offered on an encoder-decoder", where="objective.head", hint=hint)


def drawn_by(seed: int) -> Generator:
    """The generator that draws a head's first weights."""
    import torch

    from tunewright.core.seeds import derive

    return torch.Generator().manual_seed(derive(seed, "head"))


def decided_pooling(pooling: AskedPooling) -> Pooling:
    """The pooling, once it is decided. Raises `ConfigurationError` while it is `auto`."""
    if pooling == "auto":
        raise ConfigurationError("the pooling is not decided yet", where="objective.pooling", hint="Call `resolve` first.")
    return pooling


def known_labels(given: Sequence[str], rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels in the order that was given, or sorted as the training rows hold them.

    Raises:
        ConfigurationError: labels were given and a row has another.
    """
    if not given:
        return tuple(sorted({label for row in rows for label in row.classes()}))
    for row in rows:
        strange = next((label for label in row.classes() if label not in given), None)
        if strange is not None:
            problem = f"the label '{strange}' of {row.where} is not among the labels of the objective"
            raise ConfigurationError(problem, where="objective.labels", allowed=tuple(given), given=strange)
    return tuple(given)
