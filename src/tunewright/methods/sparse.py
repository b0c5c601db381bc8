"""Sparse tuning: train a few entries of the base's own weight matrices, chosen by importance and then fixed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from tunewright.core.errors import BaseModelError, DivergedError
from tunewright.methods import Gradients, Method, Tuning
from tunewright.methods._arithmetic import between
from tunewright.methods._selection import (
    OUTSIDE,
    known_kinds,
    of_kinds,
    own_parameters,
    read_blocks,
    require_some,
    within_blocks,
    written_blocks,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.utils.hooks import RemovableHandle

    from tunewright.models import Model

VALUES, PLACES = ".values", ".places"  # how the names of a weight's two tensors end in the file
_NARROW = 1 << 31  # entries up to which a place fits into 32 bits


class Sparse(Method):
    """Trains a share of the entries of the base's weights: the most important ones, chosen once, before training.

    W[m] is trained and the rest of W is as it was, with m the top k = share * N of all N entries by `by`: `fisher` is
    sum over rows of (dL_row/dW)^2, `gradient` is |dL/dW|, `gradient_times_weight` is |W dL/dW|, and `weight` is |W| itself, which
    asks no data. Gradients are those of the run's own objective on its first training rows; entries of all weights compete.

    Source: Sung et al., "Training Neural Networks with Fixed Sparse Masks" (FISH mask), arXiv 2111.09839; |W dL/dW|: Lee et al.,
    "SNIP", arXiv 1810.02340. Related: Ansell et al., "Composable Sparse Fine-Tuning", arXiv 2110.07560, which tunes everything
    first and takes what changed most.
    Cost: max(1, round(share * N)) parameters, with a place and a copy each; one score an entry while choosing; the time of full
    tuning, since a gradient is made for every weight that has a chosen entry, one weight's at a time.
    Use when: little may change (forgetting, a small file) and it is not known where; sums of tunings that hardly overlap.
    Avoid when: speed counts (LoRA, `selective` with `last_blocks`).
    Raises: `ConfigurationError` for a kind that the base does not have, for more blocks than there are, an empty selection;
    `DivergedError` for gradients that are not finite.
    """

    default_learning_rate: ClassVar[float] = 1e-3
    steep_rate: ClassVar[bool] = True
    rate_under_new_head: ClassVar[float] = 0.5

    share: float = Field(default=0.005, gt=0, le=1, description="of the entries of the chosen kinds that is trained")
    by: Literal["fisher", "gradient", "gradient_times_weight", "weight"] = Field(
        default="fisher", description="what makes an entry important"
    )
    rows: int = Field(default=128, ge=1, description="training rows whose gradients are looked at")
    kinds: tuple[str, ...] = Field(
        default=("attention", "mlp"), min_length=1, description="where entries are chosen; as in `selective`"
    )
    blocks: str = Field(default="", description='choose only inside these blocks: "0-3,7"')

    @field_validator("kinds", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        known_kinds(kinds)
        return kinds

    @field_validator("blocks", mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        return written_blocks(value)

    @field_validator("blocks")
    @classmethod
    def _readable(cls, text: str) -> str:
        read_blocks(text)
        return text

    def attach(self, model: Model, seed: int) -> SparseTuning:
        """Freeze the base; entries are chosen by `choose`, or at once where they are chosen by the weights alone."""
        wanted = of_kinds(model, self.kinds)
        if self.blocks:
            wanted &= within_blocks(model, self.blocks) | of_kinds(model, [kind for kind in self.kinds if kind in OUTSIDE])
        candidates = {name: one for name, one in own_parameters(model).items() if name in wanted}
        return SparseTuning(model, self, require_some(candidates, "Choose other kinds or other blocks."))


@dataclass
class Part:
    """The trained entries of one weight.

    Args:
        weight: the base's own, into which the values are written after each update.
        places: which of its entries, numbered row by row; [K] int64.
        values: what is trained, [K]; `originals`: the base's, [K].
        handle: takes the hook off that brings the weight's gradient to the values.
    """

    weight: Parameter
    places: Tensor
    values: Parameter
    originals: Tensor
    handle: RemovableHandle

    def put(self, values: Tensor) -> None:
        """Write `values` into the weight."""
        self.weight.detach().put_(self.places, values.detach().to(self.weight.dtype))


class SparseTuning(Tuning):
    """The chosen entries of the base's weights, as one vector of values a weight.

    Args:
        candidates: the weights among whose entries is chosen, by name.
    """

    def __init__(self, model: Model, method: Sparse, candidates: dict[str, Parameter]) -> None:
        self.model, self.method, self.candidates = model, method, candidates
        self.parts: dict[str, Part] = {}
        self._off = False
        for parameter in own_parameters(model).values():
            parameter.requires_grad_(False)
        if method.by == "weight":
            self.take(_top({name: one.detach().abs().float() for name, one in candidates.items()}, method.share))

    # ---- choosing ---------------------------------------------------------------------------------------------------------

    @property
    def wants_gradients(self) -> bool:
        return not self.parts and bool(self.candidates)

    def choose(self, gradients: Gradients) -> None:
        """See the class of the method for what is added up; the base is frozen again afterwards but for what was chosen."""
        import torch

        squared = self.method.by == "fisher"
        scores = {name: torch.zeros_like(one, dtype=torch.float32) for name, one in self.candidates.items()}
        for one in self.candidates.values():
            one.requires_grad_(True)  # before there can be a hook on it
        handles = [one.register_post_accumulate_grad_hook(_adding(scores[name], squared)) for name, one in self.candidates.items()]
        try:
            for _ in gradients(self.method.rows, squared):
                pass
        finally:
            for one, handle in zip(self.candidates.values(), handles, strict=True):
                handle.remove()
                one.requires_grad_(False)
        if self.method.by == "gradient_times_weight":
            for name, score in scores.items():
                score.mul_(self.candidates[name].detach())
        self.take(_top({name: score.abs_() for name, score in scores.items()}, self.method.share))

    def chosen_places(self) -> dict[str, Tensor]:
        """The places of each weight's entries, [K], in the narrowest whole numbers that hold them."""
        import torch

        return {
            name: part.places.to(torch.int32 if part.weight.numel() < _NARROW else torch.int64) for name, part in self.parts.items()
        }

    def take(self, places: Mapping[str, Tensor]) -> None:
        import torch

        for name, one in places.items():
            weight = self.candidates.get(name)
            if weight is None or one.ndim != 1 or not len(one) or not 0 <= int(one.min()) <= int(one.max()) < weight.numel():
                raise BaseModelError(f"there are no such entries in the weight '{name}' of this base", where="sparse")
        self.detach()
        for name in sorted(places, key=list(self.candidates).index):
            weight, where = self.candidates[name], places[name].long().to(self.candidates[name].device)
            originals = weight.detach().take(where)
            values = torch.nn.Parameter(originals.float().clone())
            weight.requires_grad_(True)
            handle = weight.register_post_accumulate_grad_hook(_gathering(where, values))
            self.parts[name] = Part(weight, where, values, originals, handle)

    # ---- the contract -----------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Parameter]:
        return {f"{name}{VALUES}": part.values for name, part in self.parts.items()}

    def after_update(self) -> None:
        """Write the values into the weights that they are entries of."""
        for part in () if self._off else self.parts.values():
            part.put(part.values)

    def after_restore(self) -> None:
        self.after_update()

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        if self._off:  # within itself it has nothing to do
            yield
            return
        self._off = True
        for part in self.parts.values():
            part.put(part.originals)
        try:
            yield
        finally:
            self._off = False
            self.after_update()

    def interpolate(self, factor: float) -> None:
        for part in self.parts.values():
            part.values.detach().copy_(between(part.originals, part.values.detach(), factor))
        self.after_update()

    def merge(self) -> None:
        """Nothing to add: the change already is in the weights. The base's values are forgotten."""
        self._leave()

    def detach(self) -> None:
        for part in self.parts.values():
            part.put(part.originals)
        self._leave()

    def _leave(self) -> None:
        for part in self.parts.values():
            part.handle.remove()
            part.weight.requires_grad_(False)
        self.parts = {}

    def save(self, folder: Path) -> None:
        """`tuning.json` and `tuning.safetensors` (see `methods._saved`): `NAME.values` and `NAME.places` of each weight."""
        from tunewright.methods._saved import write_own

        places = {f"{name}{PLACES}": one for name, one in self.chosen_places().items()}
        write_own(folder, self.method, self.model, {**dict(self.state()), **places})

    def load(self, folder: Path) -> None:
        from tunewright.methods._saved import fill, read_tensors

        stored = read_tensors(folder)
        self.take({name.removesuffix(PLACES): stored.pop(name) for name in list(stored) if name.endswith(PLACES)})
        fill(self.parameters(), stored, folder)
        self.after_update()


def _adding(score: Tensor, squared: bool) -> Any:
    """A hook that adds a weight's gradient to its score and frees it, so that one weight's gradient stands at a time."""

    def add(weight: Tensor) -> None:
        assert weight.grad is not None
        if squared:
            score.addcmul_(weight.grad, weight.grad)
        else:
            score.add_(weight.grad)
        weight.grad = None

    return add


def _gathering(places: Tensor, values: Parameter) -> Any:
    """A hook that brings the gradient of the chosen entries to `values` and frees the whole one."""

    def gather(weight: Tensor) -> None:
        assert weight.grad is not None
        found = weight.grad.take(places).to(values.dtype)
        weight.grad = None
        values.grad = found if values.grad is None else values.grad.add_(found)

    return gather


def _top(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The places of the `share` of all entries with the largest scores (non-negative, float32), by name, each [K] in order.

    The bits of floats that are not negative are ordered as the floats are, so the k-th largest is found by halving the range of its
    bits: 31 counts, and no second copy of the scores. Of equal scores the first ones in the order of names and places are taken.
    """
    import torch

    count = max(1, round(share * sum(one.numel() for one in scores.values())))
    if not all(bool(torch.isfinite(one).all()) for one in scores.values()):
        raise DivergedError("the gradients by which entries are chosen are not finite")
    bits = {name: one.contiguous().view(-1).view(torch.int32) for name, one in scores.items()}
    low, high = 0, 0x7F800000  # so many entries are at least `low`; fewer are at least `high`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(int((one >= middle).sum()) for one in bits.values()) >= count else (low, middle)
    equal = count - sum(int((one > low).sum()) for one in bits.values())
    found = {}
    for name, one in bits.items():
        last = (one == low).nonzero().flatten()[:equal]
        equal -= len(last)
        places = torch.cat([(one > low).nonzero().flatten(), last]).sort().values
        if len(places):
            found[name] = places
    return found
