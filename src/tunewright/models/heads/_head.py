"""What every task head is: a small module on the body's hidden states, kept in a folder of two files.

Letters: T tokens of the packed row, S segments, D width, C outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.core.storage import write_json
from tunewright.models.safety import read_header, read_strict

WEIGHTS, SHAPE = "head.safetensors", "head.json"
FIRST_KIND = "classification"  # of heads that were saved before there were others: their `head.json` names no kind


class Head(nn.Module, ABC):
    """A task head. A subclass says in `kept` what its `head.json` holds beside kind and width, and takes these as arguments.

    Its first arguments are the width of the body, its `labels` (what its outputs stand for) and the generator that draws its
    weights: N(0, 0.02), biases 0.
    """

    kept: ClassVar[dict[str, Any]]
    later: ClassVar[tuple[str, ...]] = ()  # of `kept`: what `settle` sets once the head stands
    width: int
    labels: tuple[str, ...]
    dropout: float

    @abstractmethod
    def forward(
        self, hidden_TD: Tensor, segment_T: Tensor, first_S: Tensor, last_S: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Outputs in fp32: `[S, C]` of heads that answer for segments, `[T, C]` of heads that answer for tokens.

        Args:
            hidden_TD: the body's output for one packed row.
            segment_T: which segment each token belongs to; tokens with an index beyond the last segment (padding) are read by none.
            first_S: where each segment begins.
            last_S: where each segment ends; its last token, not the one behind it.
            generator: draws the dropout; without one, the global generator does.
        """

    def settle(self, values: Mapping[str, Any]) -> None:
        """Set what is named in `later`. Raises `ConfigurationError` for values that do not fit the head."""

    @classmethod
    def kind(cls) -> str:
        """The name of the head's file."""
        return cls.__module__.rsplit(".", 1)[-1]

    def dropped(self, states: Tensor, generator: Generator | None) -> Tensor:
        """`states` with dropout while training; the head's own arithmetic is always that of its weights (fp32)."""
        if not self.training or self.dropout <= 0:
            return states
        kept = torch.rand(states.shape, generator=generator, device=states.device) >= self.dropout
        return states * kept / (1 - self.dropout)

    def save(self, folder: Path) -> None:
        """Write `head.safetensors` and `head.json` (kind, labels in order, shape) into an existing folder."""
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in self.state_dict().items()}, folder / WEIGHTS)
        held = {name: getattr(self, name) for name in self.kept}
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in held.items()}
        write_json(folder / SHAPE, {"kind": self.kind(), "width": self.width, **listed})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The head that `save` wrote into `folder`, in evaluation mode; asked of `Head`, a head of any kind.

        Raises:
            BaseModelError: it is missing, damaged, or of another kind.
        """
        for name in (WEIGHTS, SHAPE):
            if not (folder / name).is_file():
                raise BaseModelError(f"holds no {cls._noun()} head ({name})", where=str(folder))
        shape = read_strict(folder / SHAPE)
        kind = shape.pop("kind", FIRST_KIND) if isinstance(shape, dict) else ""
        made = _class_of(kind, folder)
        if not issubclass(made, cls):
            raise BaseModelError(f"holds a head of the kind '{kind}', not {cls._noun()}", where=str(folder))
        expected = {"width": int, **made.kept}
        if set(shape) != set(expected) or not all(isinstance(shape[key], one) for key, one in expected.items()):
            raise BaseModelError(f"does not describe a head ({', '.join(expected)})", where=str(folder / SHAPE))
        read_header(folder / WEIGHTS)
        later = {name: shape.pop(name) for name in made.later}
        head = made(shape.pop("width"), shape.pop("labels"), Generator(), **shape)
        head.settle(later)
        try:
            head.load_state_dict(load_file(folder / WEIGHTS))
        except RuntimeError as error:
            problem = f"does not fit {SHAPE} ({str(error).splitlines()[-1].strip()})"
            raise BaseModelError(problem, where=str(folder / WEIGHTS)) from None
        return head.eval()

    @classmethod
    def _noun(cls) -> str:
        return cls.kind().strip("_").replace("_", " ").replace("head", "task")


def _class_of(kind: object, folder: Path) -> Any:
    from tunewright.models.heads import room

    if kind not in room.names():
        raise BaseModelError(
            f"describes a head of the kind '{kind}', which this version does not know",
            where=str(folder / SHAPE),
            allowed=room.names(),
        )
    return room[str(kind)]


def drawn(layers: Sequence[nn.Linear | None], generator: Generator) -> None:
    """Give new layers their first weights, from `generator` alone."""
    for layer in layers:
        if layer is not None:
            nn.init.normal_(layer.weight, std=0.02, generator=generator)
            nn.init.zeros_(layer.bias)


def check_labels(labels: Sequence[str], fewest: int, noun: str = "a classification") -> None:
    """Raise `ConfigurationError` for fewer labels than a head needs, or a label given twice."""
    if len(labels) < fewest:
        needed = "two labels or more" if fewest == 2 else "one label or more"
        raise ConfigurationError(f"{noun} needs {needed}, it has {len(labels)}", where="labels")
    twice = next((label for index, label in enumerate(labels) if label in labels[:index]), None)
    if twice is not None:
        raise ConfigurationError(f"the label '{twice}' stands twice", where="labels")


def check_dropout(dropout: float, hidden: int = 0) -> None:
    """Raise `ConfigurationError` for a dropout outside [0, 1) or a negative width."""
    if hidden < 0 or not 0 <= dropout < 1:
        raise ConfigurationError(
            f"hidden is {hidden} and dropout {dropout}", where="head", allowed=("hidden >= 0", "0 <= dropout < 1")
        )
