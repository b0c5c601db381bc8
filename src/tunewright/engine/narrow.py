"""The last block computes only the positions that somebody reads.

The head, a pooled classifier or a reward reads some positions, and what the last block does between attention and there concerns
one position at a time. So its query, attention output and MLP layers are given those rows alone; keys and values need all.
At the rows the numbers are the same up to the order of sums; elsewhere the block leaves finite values without a meaning.

Suffixes: T positions of the batch (B*T, flat), N rows asked for, D width.
Cost: one gather and one scatter around attention's output and one pair around the MLP. Saves up to the last block's whole share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from tunewright.engine.around import Around, Forward
from tunewright.engine.batch import spare
from tunewright.engine.changes.host import Changes, changes_on
from tunewright.engine.linear.carrying import Carrying
from tunewright.models import Model
from tunewright.models.lanes import Lane, Lanes
from tunewright.models.sites import blocks_of, roles

WORTH_IT = 0.75  # share of the positions above which gathering and scattering eat what narrower products save
TOLERANCE = 2e-4  # of the largest value, as in the probe
Part = Literal["whole", "entry", "exit"]  # narrowed by itself, or the first and the last layer of a narrowed stretch


def recurring(needed_N: Tensor, positions: int) -> Tensor:
    """The flat positions that somebody reads, sorted and each once, and so many others that their number recurs (`batch.GRAINS`).

    The others are computed as well as any; what nobody reads gets no gradient.

    Args:
        positions: how many there are.
    """
    rows_N = torch.unique(needed_N)
    filling = spare(len(rows_N)) if rows_N.device.type == "cpu" else 0
    if not filling:
        return rows_N
    read_T = torch.zeros(positions, dtype=torch.bool).index_fill_(0, rows_N, True)
    others = (~read_T).nonzero().flatten()[:filling]
    return torch.cat([rows_N, others]).sort().values


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
        around = [once.stand(layer, part) for layer, part in standing if not _shares_its_input(layer, part)]
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
        self.given: Tensor | None = None
        self.gathered: Tensor | None = None
        self._runs: tuple[tuple[Lane, ...], tuple[Lane, ...]] = ((), ())

    def stand(self, layer: nn.Module, part: Part) -> Around | _Hooked:
        """Give a layer fewer rows from now on; what changes its hidden states is given those too."""
        changes = changes_on(layer)
        return Around(layer, _Layer(self, part).wraps) if changes is None else _Hooked(_Layer(self, part), layer, changes)

    def pays(self, x: Tensor) -> bool:
        """Whether the rows are few among those of x."""
        return len(self.rows) <= WORTH_IT * (x.numel() // x.shape[-1])

    def lowered(self) -> AbstractContextManager[None]:
        """Inside, lanes are counted in rows: what attached modules must see beside a narrowed x."""
        return self.lanes.during(self._lowered(), rows=self.rows)

    def _lowered(self) -> tuple[Lane, ...]:
        runs = self.lanes.runs
        if len(runs) > 1 and self._runs[0] is not runs:
            bounds = torch.tensor([(run.start, run.stop) for run in runs], device=self.rows.device)
            places = torch.searchsorted(self.rows, bounds).tolist()
            lowered = tuple(Lane(run.tuning, start, stop) for run, (start, stop) in zip(runs, places, strict=True))
            self._runs = (runs, lowered)
        return self._runs[1] if len(runs) > 1 else tuple(Lane(run.tuning, 0, len(self.rows)) for run in runs)


class _Layer:
    """One layer that is given fewer rows."""

    def __init__(self, once: _Pass, part: Part) -> None:
        self._once, self._part = once, part
        self._shape: torch.Size | None = None

    def enter(self, x: Tensor) -> tuple[bool, Tensor]:
        """Whether the layer is narrowed in this call, and what it is given in place of x."""
        once = self._once
        if self._part == "exit":
            if once.given is None:
                return False, x
            self._shape, once.given, once.gathered = once.given.shape, None, None
            return True, x
        if not once.pays(x):
            return False, x
        if self._part == "whole":
            self._shape = x.shape
            return True, _gather(x, once.rows)
        if once.given is not x or once.gathered is None:
            once.given, once.gathered = x, _gather(x, once.rows)
        return True, once.gathered

    def lowered(self) -> AbstractContextManager[None]:
        """Inside, lanes are counted in the rows of this pass."""
        return self._once.lowered()

    def leave(self, y: Tensor) -> Tensor:
        """What the network sees of a narrowed layer's output."""
        return y if self._shape is None else _scatter(y, self._once.rows, self._shape)

    def wraps(self, plain: Forward) -> Forward:
        """What runs in place of the layer's forward."""

        def forward(x: Tensor) -> Any:
            narrowed, x = self.enter(x)
            if not narrowed:
                return plain(x)
            with self.lowered():
                y = plain(x)
            return self.leave(y)

        return forward


class _Hooked:
    """The same for a layer whose input or output is changed by hooks: first and last of all hooks, so that these see the rows."""

    def __init__(self, layer: _Layer, module: nn.Module, changes: Changes) -> None:
        self._layer, self._changes = layer, changes
        self._inside: AbstractContextManager[None] | None = None
        self._handles = (
            module.register_forward_pre_hook(self._before, prepend=True),
            module.register_forward_hook(self._after, always_call=True),  # the lanes are put back when a pass is broken off too
        )
        changes.narrowed = True

    def _before(self, _module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        narrowed, x = self._layer.enter(given[0])
        if narrowed:
            self._inside = self._layer.lowered()
            self._inside.__enter__()
        return (x,)

    def _after(self, _module: nn.Module, _given: tuple[Tensor, ...], output: Tensor | None) -> Tensor | None:
        if self._inside is None:
            return output
        self._inside.__exit__(None, None, None)
        self._inside = None
        return None if output is None else self._layer.leave(output)

    def remove(self) -> None:
        """The layer is given everything again."""
        self._changes.narrowed = False
        for handle in self._handles:
            handle.remove()


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
