"""The last block computes only the positions that somebody reads.

The head, a pooled classifier or a reward reads some positions, and what the last block does between attention and there concerns
one position at a time. So its query, attention output and MLP layers are given those rows alone; keys and values need all.
At the rows the numbers are the same up to the order of sums; elsewhere the block leaves finite values without a meaning.

Suffixes: T positions of the batch (B*T, flat), N rows asked for, D width.
Cost: one gather and one scatter around attention's output and one pair around the MLP. Saves up to the last block's whole share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from tunewright.engine.around import Around, Forward
from tunewright.engine.linear.carrying import Carrying
from tunewright.models import Model
from tunewright.models.lanes import Lane, Lanes
from tunewright.models.sites import blocks_of, roles

WORTH_IT = 0.75  # share of the positions above which gathering and scattering eat what narrower products save
TOLERANCE = 2e-4  # of the largest value, as in the probe
Part = Literal["whole", "entry", "exit"]  # narrowed by itself, or the first and the last layer of a narrowed stretch


class Narrow:
    """The layers of one model's last block that may be given fewer rows; none where the block is not of the ordinary kind.

    An ordinary block has one attention output, one MLP of one or two layers in and one layer out, and nothing else that is linear:
    no mixture of experts, no encoder-decoder. Between the MLP's layers the rows stay gathered.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.parts: dict[str, Part] = _parts(model)

    @contextmanager
    def to(self, rows_N: Tensor | None) -> Iterator[None]:
        """Inside, the last block computes these rows only; outside, nothing of it is left on the network.

        The passes forward belong inside; the pass backward need not, unless it computes the last block anew.

        Args:
            rows_N: sorted, unique flat positions (of B*T); None, or more than `WORTH_IT` of the positions, computes all.
        """
        if rows_N is None:
            yield
            return
        once = _Pass(self.model.lanes, rows_N)
        standing: list[tuple[nn.Module, Part]] = [
            (self.model.network.get_submodule(path), part) for path, part in self.parts.items()
        ]
        around = [Around(layer, once.wraps(part)) for layer, part in standing if not _shares_its_input(layer, part)]
        try:
            yield
        finally:
            for one in reversed(around):
                one.remove()

    def agrees(self, hidden: Callable[[], Tensor]) -> bool:
        """Compare a narrowed pass with a whole one; where they differ, this model is never narrowed again.

        Args:
            hidden: runs the network on some batch and gives all last hidden states, [T, D].
        """
        with torch.no_grad():
            whole_TD = hidden()
            rows_N = torch.arange(1, len(whole_TD), 3, device=whole_TD.device)
            with self.to(rows_N):
                narrowed_TD = hidden()
        difference = (narrowed_TD[rows_N] - whole_TD[rows_N]).abs().max() / whole_TD.abs().max()
        if not difference <= TOLERANCE:
            self.parts = {}
        return bool(self.parts)


def _parts(model: Model) -> dict[str, Part]:
    if model.kind == "encoder_decoder":
        return {}
    last = list(blocks_of(model.network))[-1]
    found = {path: names for path, names in roles(model.network).items() if path.startswith(f"{last}.")}
    outputs = [path for path, names in found.items() if names == ("attention.output",)]
    entries = [path for path, names in found.items() if names and set(names) <= {"mlp.gate", "mlp.up"}]
    exits = [path for path, names in found.items() if names == ("mlp.down",)]
    ordinary = len(outputs) == len(exits) == 1 and len(entries) in (1, 2) and all(found.values())
    if not ordinary:
        return {}
    queries = [path for path, names in found.items() if names == ("attention.query",)]
    stretch: dict[str, Part] = {exits[0]: "exit"}
    stretch.update(dict.fromkeys(entries, "entry"))
    stretch.update(dict.fromkeys((*queries, *outputs), "whole"))
    return stretch


def _shares_its_input(layer: nn.Module, part: Part) -> bool:
    """A query that is computed in one product with key and value would lose more than it saves."""
    return part == "whole" and isinstance(layer, Carrying) and layer.cargo.siblings is not None


class _Pass:
    """What the wrapped layers of one block share while it runs."""

    def __init__(self, lanes: Lanes, rows_N: Tensor) -> None:
        self.lanes, self.rows = lanes, rows_N
        # What the MLP's first layer was given and what was gathered from it: the second is handed the very same tensor.
        self._given: Tensor | None = None
        self._gathered: Tensor | None = None
        self._runs: tuple[tuple[Lane, ...], tuple[Lane, ...]] = ((), ())

    def wraps(self, part: Part) -> Callable[[Forward], Forward]:
        """What to put around a layer."""
        return {"whole": self._whole, "entry": self._entry, "exit": self._exit}[part]

    def _whole(self, plain: Forward) -> Forward:
        def forward(x: Tensor) -> Any:
            if not self._pays(x):
                return plain(x)
            with self.lanes.during(self._lowered()):
                y = plain(_gather(x, self.rows))
            return _scatter(y, self.rows, x.shape)

        return forward

    def _entry(self, plain: Forward) -> Forward:
        def forward(x: Tensor) -> Any:
            if not self._pays(x):
                return plain(x)
            if self._given is not x or self._gathered is None:
                self._given, self._gathered = x, _gather(x, self.rows)
            with self.lanes.during(self._lowered()):
                return plain(self._gathered)

        return forward

    def _exit(self, plain: Forward) -> Forward:
        def forward(x: Tensor) -> Any:
            if self._given is None:
                return plain(x)
            shape, self._given, self._gathered = self._given.shape, None, None
            with self.lanes.during(self._lowered()):
                y = plain(x)
            return _scatter(y, self.rows, shape)

        return forward

    def _pays(self, x: Tensor) -> bool:
        return len(self.rows) <= WORTH_IT * (x.numel() // x.shape[-1])

    def _lowered(self) -> tuple[Lane, ...]:
        """The lanes counted in rows: what attached modules must see beside a narrowed x."""
        runs = self.lanes.runs
        if len(runs) > 1 and self._runs[0] is not runs:
            bounds = torch.tensor([(run.start, run.stop) for run in runs], device=self.rows.device)
            places = torch.searchsorted(self.rows, bounds).tolist()
            lowered = tuple(Lane(run.tuning, start, stop) for run, (start, stop) in zip(runs, places, strict=True))
            self._runs = (runs, lowered)
        return self._runs[1] if len(runs) > 1 else tuple(Lane(run.tuning, 0, len(self.rows)) for run in runs)


def _gather(x: Tensor, rows_N: Tensor) -> Tensor:
    """[..., D] to the rows, with as many dimensions as x has."""
    narrowed_ND: Tensor = _Gather.apply(x.flatten(0, -2), rows_N)  # pyright: ignore[reportAssignmentType]
    return narrowed_ND.view(*(1,) * (x.dim() - 2), *narrowed_ND.shape)


def _scatter(y: Tensor, rows_N: Tensor, shape: torch.Size) -> Tensor:
    """The rows back to where they stood in a tensor whose leading dimensions are those of `shape`; zeros elsewhere."""
    count = shape[:-1].numel()
    whole_TO: Tensor = _Scatter.apply(y.flatten(0, -2), rows_N, count)  # pyright: ignore[reportAssignmentType]
    return whole_TO.view(*shape[:-1], y.shape[-1])


class _Gather(torch.autograd.Function):
    """Rows are unique, so the backward pass copies where `index_select` would have to add."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_TD: Tensor, rows_N: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(rows_N)
        ctx.count = len(x_TD)  # pyright: ignore[reportAttributeAccessIssue]
        return x_TD.index_select(0, rows_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient_ND: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (rows_N,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return _placed(gradient_ND, rows_N, ctx.count), None  # pyright: ignore[reportAttributeAccessIssue]


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, y_NO: Tensor, rows_N: Tensor, count: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(rows_N)
        return _placed(y_NO, rows_N, count)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient_TO: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (rows_N,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return gradient_TO.index_select(0, rows_N), None, None


def _placed(x_ND: Tensor, rows_N: Tensor, count: int) -> Tensor:
    return x_ND.new_zeros((count, x_ND.shape[-1])).index_copy_(0, rows_N, x_ND)
