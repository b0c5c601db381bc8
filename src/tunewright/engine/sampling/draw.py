"""The next token of every row: greedy, or drawn by a number that is a function of (seed, row, sample, position) and nothing else.

Shape suffixes: B rows, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tunewright.core.seeds import derive
from tunewright.engine.settings import Sampling

CANDIDATES = 256  # tokens that `top_p` looks at before it sorts the whole vocabulary


class Place(NamedTuple):
    """Which number is drawn: the prompt's index, the number of its sample, the position in the answer."""

    row: int
    sample: int
    position: int


def uniform(seed: int, place: Place) -> float:
    """A number in [0, 1)."""
    return derive(seed, "sample", *place) / 2.0**63


def pick(logits_BV: Tensor, settings: Sampling, places: Sequence[Place]) -> Tensor:
    """The next token of every row, [B]; `logits_BV` is float32."""
    if settings.temperature == 0:
        return logits_BV.argmax(dim=1)
    chances_BV = (logits_BV / settings.temperature).softmax(dim=1)
    drawn_B = torch.tensor([uniform(settings.seed, place) for place in places], device=logits_BV.device)
    if not settings.top_k and settings.top_p == 1:
        heights_BV = chances_BV.cumsum(1)
        return _at_height(heights_BV, drawn_B, last_B1=_last_possible(chances_BV))
    ordered_BC, tokens_BC = _candidates(chances_BV, settings)
    before_BC = ordered_BC.cumsum(1) - ordered_BC
    ordered_BC = ordered_BC.masked_fill(before_BC >= settings.top_p, 0)
    picked_B = _at_height(ordered_BC.cumsum(1), drawn_B, last_B1=(ordered_BC > 0).sum(1, keepdim=True) - 1)
    return tokens_BC.gather(1, picked_B[:, None])[:, 0]


def _at_height(heights_BC: Tensor, drawn_B: Tensor, last_B1: Tensor) -> Tensor:
    """The first candidate whose height passes the drawn share of the whole height."""
    aimed_B1 = heights_BC[:, -1:] * drawn_B[:, None].to(heights_BC.dtype)
    # A draw that rounds up to the whole height must not fall off the end onto tokens that were cut away.
    return torch.searchsorted(heights_BC, aimed_B1, right=True).minimum(last_B1)[:, 0]


def _last_possible(chances_BV: Tensor) -> Tensor:
    """The last token of each row that has a chance at all, [B, 1]."""
    return chances_BV.shape[1] - 1 - (chances_BV.flip(1) > 0).to(torch.uint8).argmax(1, keepdim=True)


def _candidates(chances_BV: Tensor, settings: Sampling) -> tuple[Tensor, Tensor]:
    """Probabilities from the largest down, and whose they are: as many as `top_k` leaves, or as `top_p` could need."""
    width = chances_BV.shape[1]
    if settings.top_k:
        ordered_BC, tokens_BC = chances_BV.topk(min(settings.top_k, width), dim=1)
        return ordered_BC / ordered_BC.sum(1, keepdim=True), tokens_BC  # as in transformers: `top_p` is a share of what is left
    if width > 4 * CANDIDATES:
        ordered_BC, tokens_BC = chances_BV.topk(CANDIDATES, dim=1)
        if bool((ordered_BC.sum(1) > settings.top_p).all()):
            return ordered_BC, tokens_BC
    return chances_BV.sort(dim=1, descending=True)


def log_probabilities(logits_BV: Tensor, tokens_B: Tensor, settings: Sampling) -> Tensor:
    """log p of the picked tokens under the softmax that they were drawn from, before anything was cut off it, [B]."""
    scaled_BV = logits_BV / settings.temperature if settings.temperature > 0 else logits_BV
    return scaled_BV.gather(1, tokens_B[:, None])[:, 0] - scaled_BV.logsumexp(dim=1)
