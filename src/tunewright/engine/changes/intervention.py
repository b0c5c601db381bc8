"""Interventions on hidden states within a low-rank subspace, at the first and the last tokens of a prompt: the family of ReFT.

All of them are h + B^T (A h + b), with A and B [R, D] made of what is trained.

Source: Wu et al., "ReFT: Representation Finetuning for Language Models", arXiv 2404.03592, and its library pyreft, from which the
starting values are.
Shape suffixes: T tokens, K chosen ones, D width, R rank, C interventions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from tunewright.engine.changes.change import HiddenChange, Tokens
from tunewright.models.lanes import Places

Ends = Literal["both", "first", "last"]


class Selection:
    """Which tokens of a prompt are changed: the first so many and the last so many, each once.

    All interventions of a tuning share one, which finds the tokens of a batch once for all blocks.

    Args:
        first, last: how many at either end of a prompt.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self._places: Places | None = None
        self._found: dict[tuple[object, ...], Tensor] = {}

    def rows(self, ends: Ends, tokens: Tokens, device: torch.device) -> Tensor:
        """The chosen ones among the tokens from `tokens.start` on, [K].

        Args:
            ends: all of them, or those of one end. A token that is near both ends of a short prompt belongs to the nearer one, to
                the last in the middle.
        """
        if tokens.places is not self._places:
            self._places, self._found = tokens.places, {}
        key = (ends, tokens.start, tokens.stop, tokens.width, device)
        if key not in self._found:
            if len(self._found) > 64:  # without places, each length of a row is another key
                self._found = {}
            self._found[key] = self._chosen(ends, tokens, device).nonzero()[:, 0]
        return self._found[key]

    def _chosen(self, ends: Ends, tokens: Tokens, device: torch.device) -> Tensor:
        if tokens.places is None:
            ahead_T = torch.arange(tokens.start, tokens.stop, device=device) % tokens.width
            behind_T = tokens.width - 1 - ahead_T
        else:
            ahead_T, behind_T = (marks_T[tokens.start : tokens.stop] for marks_T in tokens.places)
        inside_T = ahead_T >= 0
        first_T, last_T = inside_T & (ahead_T < self.first), inside_T & (behind_T < self.last)
        if ends == "both":
            return first_T | last_T
        nearer_T = ahead_T < behind_T  # to the first end; it is asked only where both claim the token
        return first_T & (~last_T | nearer_T) if ends == "first" else last_T & ~(first_T & nearer_T)


class Intervention(HiddenChange):
    """h + B^T (A h + b) at chosen tokens, and dropout of the result, as in pyreft. Computed in float32.

    Args:
        shape: rank and width, [R, D].
        selection: the tuning's own.
        ends: which of the chosen tokens this one changes.
        drop: probability of dropping a number of a changed state while training.
        seed: what is drawn is drawn from it.
    """

    called: ClassVar[str]
    """What it is called in the names of parameters."""
    reads_places: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, int], selection: Selection, ends: Ends, drop: float, seed: int) -> None:
        super().__init__()
        self._selection, self._drop = selection, drop
        self._ends: Ends = ends
        self._begin(shape, 1 / math.sqrt(shape[1]), torch.Generator().manual_seed(seed))

    @abstractmethod
    def _begin(self, shape: tuple[int, int], bound: float, generator: torch.Generator) -> None:
        """Draw the starting values; `bound` is that of torch's linear layers."""

    @abstractmethod
    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """A [R, D], b [R] and B [R, D]."""

    def forward(self, hidden_TD: Tensor, tokens: Tokens, read_TD: Tensor) -> Tensor:
        """See the class."""
        rows_K = self._selection.rows(self._ends, tokens, hidden_TD.device)
        if not len(rows_K):
            return hidden_TD
        with torch.autocast(hidden_TD.device.type, enabled=False):
            in_RD, bias_R, out_RD = self.maps()
            chosen_KD = hidden_TD.index_select(0, rows_K).to(out_RD.dtype)
            changed_KD = torch.addmm(chosen_KD, linear(chosen_KD, in_RD, bias_R), out_RD)
            changed_KD = dropout(changed_KD, self._drop, self.training) if self._drop else changed_KD
        return hidden_TD.index_copy(0, rows_K, changed_KD.to(hidden_TD.dtype))


class DiReFTChange(Intervention):
    """h + W2^T (W1 h + b)."""

    called: ClassVar[str] = "direft"
    names: ClassVar[dict[str, str]] = {
        "source.weight": "source_RD",
        "source.bias": "source_R",
        "projection.weight": "projection_RD",
    }

    def _begin(self, shape: tuple[int, int], bound: float, generator: torch.Generator) -> None:
        self.source_RD = nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
        self.source_R = nn.Parameter(torch.empty(shape[0]).uniform_(-bound, bound, generator=generator))
        self.projection_RD = nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.source_RD, self.source_R, self.projection_RD

    def resize(self, factor: float) -> None:
        self.source_RD.mul_(factor)
        self.source_R.mul_(factor)


class NoReFTChange(DiReFTChange):
    """h + W2^T (W1 h + b - W2 h)."""

    called: ClassVar[str] = "noreft"

    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.source_RD - self.projection_RD, self.source_R, self.projection_RD

    def resize(self, factor: float) -> None:
        self.source_RD.sub_(self.projection_RD).mul_(factor).add_(self.projection_RD)
        self.source_R.mul_(factor)


class LoReFTChange(Intervention):
    """h + R^T (W h + b - R h), R with orthonormal rows: the Q of the QR decomposition of what is trained, transposed.

    R does not change when what is trained becomes R itself (`retract`), which keeps the decomposition exact for ever.
    """

    called: ClassVar[str] = "loreft"
    names: ClassVar[dict[str, str]] = {"source.weight": "source_RD", "source.bias": "source_R", "rotation.weight": "rotation_RD"}

    def _begin(self, shape: tuple[int, int], bound: float, generator: torch.Generator) -> None:
        drawn_RD = torch.empty(shape)
        nn.init.orthogonal_(drawn_RD, generator=generator)
        self.rotation_RD = nn.Parameter(drawn_RD)
        self.source_RD = nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
        self.source_R = nn.Parameter(torch.empty(shape[0]).uniform_(-bound, bound, generator=generator))

    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        turned_RD = orthonormal(self.rotation_RD)
        return self.source_RD - turned_RD, self.source_R, turned_RD

    def resize(self, factor: float) -> None:
        turned_RD = orthonormal(self.rotation_RD)
        self.source_RD.sub_(turned_RD).mul_(factor).add_(turned_RD)
        self.source_R.mul_(factor)


def orthonormal(rows: Tensor) -> Tensor:
    """[..., R, D] with orthonormal rows that span the same: the Q of a QR decomposition with a positive diagonal, by Cholesky.

    Few operations, forward and backward. Accurate where the rows are nearly orthonormal, which `retract` sees to.
    """
    lower, _ = torch.linalg.cholesky_ex(rows @ rows.mT)
    return torch.linalg.solve_triangular(lower, rows, upper=False)


@torch.no_grad()
def retract(interventions: Sequence[LoReFTChange]) -> None:
    """What is trained becomes R itself, for all of one shape at once; nothing that is computed changes."""
    trained: list[Tensor] = [one.rotation_RD for one in interventions]
    exact_CRD = orthonormal(orthonormal(torch.stack(trained)))  # twice: the second time removes the first one's rounding
    torch._foreach_copy_(trained, list(exact_CRD.unbind()))  # pyright: ignore[reportPrivateImportUsage]
