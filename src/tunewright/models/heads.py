"""What is put on a body to classify: pooling over a segment's hidden states, and a linear layer onto the labels.

Letters: T tokens of the packed row, S segments, D width, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.core.storage import write_json
from tunewright.models.safety import read_header, read_strict

Pooling = Literal["first", "mean", "last"]
WEIGHTS, SHAPE = "head.safetensors", "head.json"


class ClassificationHead(nn.Module):
    """Hidden states of a packed row to one logit a label and segment.

    `logits_S = output(dropout(tanh(dense(pool(hidden)))))`, the dense layer only where `hidden` is not 0. `first` suits encoders
    with a leading special token, `last` decoders (only the last token has seen all), `mean` any; the mean is over the segment's own
    tokens. Weights begin at N(0, 0.02) and biases at 0, drawn from `generator`.

    Cost: D * C + C parameters, and D * hidden + hidden before them with a dense layer; nothing beside the body's pass.
    Raises: `ConfigurationError` for fewer than two labels, a label given twice, an unknown pooling or a dropout outside [0, 1).
    """

    def __init__(
        self,
        width: int,
        labels: Sequence[str],
        generator: Generator,
        *,
        pooling: Pooling = "first",
        hidden: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(labels, pooling, hidden, dropout)
        self.width, self.labels, self.pooling, self.hidden, self.dropout = width, tuple(labels), pooling, hidden, dropout
        self.dense = nn.Linear(width, hidden) if hidden else None
        self.output = nn.Linear(hidden or width, len(labels))
        for layer in (self.dense, self.output):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(
        self, hidden_TD: Tensor, segment_T: Tensor, first_S: Tensor, last_S: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Logits `[S, C]`, in fp32.

        Args:
            hidden_TD: the body's output for one packed row.
            segment_T: which segment each token belongs to; tokens with an index beyond the last segment (padding) are read by none.
            first_S: where each segment begins.
            last_S: where each segment ends; its last token, not the one behind it.
            generator: draws the dropout; without one, the global generator does.
        """
        # The head is small and its inputs may be bf16: its own arithmetic is always the weights' (fp32).
        pooled_SD = self._pool(hidden_TD, segment_T, first_S, last_S).to(self.output.weight.dtype)
        if self.dense is not None:
            pooled_SD = torch.tanh(self.dense(pooled_SD))
        if self.training and self.dropout > 0:
            kept_SD = torch.rand(pooled_SD.shape, generator=generator, device=pooled_SD.device) >= self.dropout
            pooled_SD = pooled_SD * kept_SD / (1 - self.dropout)
        return self.output(pooled_SD)

    def _pool(self, hidden_TD: Tensor, segment_T: Tensor, first_S: Tensor, last_S: Tensor) -> Tensor:
        if self.pooling == "first":
            return hidden_TD[first_S]
        if self.pooling == "last":
            return hidden_TD[last_S]
        count = first_S.shape[0]
        # Padding is summed into a row of its own, which is then dropped: no data-dependent shapes.
        place_T = segment_T.clamp(max=count)
        sums = hidden_TD.new_zeros((count + 1, hidden_TD.shape[1]), dtype=torch.float32).index_add(0, place_T, hidden_TD.float())
        sizes = torch.zeros(count + 1, device=hidden_TD.device).index_add(0, place_T, torch.ones_like(place_T, dtype=torch.float32))
        return sums[:count] / sizes[:count, None]

    def save(self, folder: Path) -> None:
        """Write `head.safetensors` and `head.json` (labels in order, pooling, shape) into an existing folder."""
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in self.state_dict().items()}, folder / WEIGHTS)
        shape = {
            "labels": list(self.labels),
            "pooling": self.pooling,
            "width": self.width,
            "hidden": self.hidden,
            "dropout": self.dropout,
        }
        write_json(folder / SHAPE, shape)

    @classmethod
    def load(cls, folder: Path) -> ClassificationHead:
        """The head that `save` wrote into `folder`, in evaluation mode. Raises `BaseModelError` when it is missing or damaged."""
        for name in (WEIGHTS, SHAPE):
            if not (folder / name).is_file():
                raise BaseModelError(f"holds no classification head ({name})", where=str(folder))
        shape = read_strict(folder / SHAPE)
        expected = {"labels": list, "pooling": str, "width": int, "hidden": int, "dropout": (int, float)}
        if (
            not isinstance(shape, dict)
            or set(shape) != set(expected)
            or not all(isinstance(shape[key], kind) for key, kind in expected.items())
        ):
            raise BaseModelError(f"does not describe a head ({', '.join(expected)})", where=str(folder / SHAPE))
        read_header(folder / WEIGHTS)
        width, labels = shape.pop("width"), shape.pop("labels")
        head = cls(width, labels, Generator(), **shape)
        try:
            head.load_state_dict(load_file(folder / WEIGHTS))
        except RuntimeError as error:
            raise BaseModelError(
                f"does not fit {SHAPE} ({str(error).splitlines()[-1].strip()})", where=str(folder / WEIGHTS)
            ) from None
        return head.eval()


def _check(labels: Sequence[str], pooling: str, hidden: int, dropout: float) -> None:
    if len(labels) < 2:
        raise ConfigurationError(f"a classification needs two labels or more, it has {len(labels)}", where="labels")
    twice = next((label for index, label in enumerate(labels) if label in labels[:index]), None)
    if twice is not None:
        raise ConfigurationError(f"the label '{twice}' stands twice", where="labels")
    if pooling not in get_args(Pooling):
        raise ConfigurationError(f"there is no pooling '{pooling}'", where="pooling", allowed=get_args(Pooling), given=pooling)
    if hidden < 0 or not 0 <= dropout < 1:
        raise ConfigurationError(
            f"hidden is {hidden} and dropout {dropout}", where="head", allowed=("hidden >= 0", "0 <= dropout < 1")
        )
