"""VeRA: random matrices that all layers share, and two trained vectors a layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError
from tunewright.methods import Method
from tunewright.methods._linear import LinearTuning, linear_hosts
from tunewright.methods._saved import PREFIX, fill, peft_places, read_notes, read_peft, read_tensors, refuse_unknown, write_peft

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.methods._vera import Projection, VeRAAdapter
    from tunewright.models import Model

_SHARED = ("base_model.vera_A", "base_model.vera_B")
_NOTE = "projection"  # in the header of the file with the tensors: the hash of the projection
# What PEFT's configuration may hold without a change in what is computed here; anything else that is set is refused by name.
_UNDERSTOOD = (
    *("r", "projection_prng_key", "save_projection", "vera_dropout", "d_initial", "fan_in_fan_out", "init_weights"),
    *("target_modules", "layers_to_transform", "layers_pattern"),
)


class VeRA(Method):
    """Trains two vectors a layer around a pair of frozen random matrices that all layers share.

    y = W x + bias + diag(b) B diag(d) A x, with A [rank, inputs] and B [outputs, rank] drawn once, as wide as the widest layer,
    and cut to each; d [rank] and b [outputs] are trained. b starts at zero, so training starts at the base.

    Source: Kopiczko, Blankevoort and Asano, "VeRA: Vector-based Random Matrix Adaptation", arXiv 2310.11454; formats and draws are
    those of PEFT.
    Cost: rank + outputs parameters a layer, and rank * (most inputs + most outputs) frozen numbers once; time as LoRA at that rank.
    Use when: very many tunings of one base are kept, or few examples would overfit a LoRA. Avoid when: a LoRA's size is no
    matter: it learns more a step.
    Raises: `ConfigurationError` for a target that matches nothing, also when others match.
    """

    default_learning_rate: ClassVar[float] = 1e-2
    steep_rate: ClassVar[bool] = True
    rate_under_new_head: ClassVar[float] = 0.5
    peft_type: ClassVar[str | None] = "VERA"

    rank: int = Field(default=256, ge=1, le=16384, description="inner width of the shared matrices; costs few parameters")
    initial: float = Field(default=0.1, gt=0, le=10, description="what every entry of d starts at")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="probability of dropping an input of A")
    targets: tuple[str, ...] = Field(default=("linear",), min_length=1, description="sites, module names or patterns")
    projection_seed: int = Field(default=0, ge=0, lt=2**63, description="what A and B are drawn from; equal seeds share them")
    save_projection: bool = Field(default=True, description="write A and B too; without, they are drawn again on loading")

    @field_validator("targets", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def attach(self, model: Model, seed: int) -> VeRATuning:
        """Put the vectors on every target, beside tunings that stand there, and freeze the base; nothing depends on `seed`."""
        from tunewright.methods._vera import Projection, VeRAAdapter, widest

        hosts = linear_hosts(model, self.targets, "a VeRA")
        projection = Projection.drawn(self.projection_seed, self.rank, *widest(hosts.values()))
        return VeRATuning(
            self, model, {path: VeRAAdapter(host, projection, self.initial, self.dropout) for path, host in hosts.items()}
        )

    @classmethod
    def from_folder(cls, folder: Path) -> VeRA:
        """The VeRA that a folder in PEFT's format describes, at exactly the places that its tensors name."""
        facts = read_peft(folder)
        refuse_unknown(facts, _UNDERSTOOD, folder)
        stated = {
            "rank": facts.get("r", 256),
            "initial": facts.get("d_initial", 0.1),
            "dropout": facts.get("vera_dropout", 0.0),
            "projection_seed": facts.get("projection_prng_key", 0),
            "save_projection": facts.get("save_projection", True),
            "targets": peft_places(folder, "vera_lambda_"),
        }
        return build(cls, stated, str(folder))


class VeRATuning(LinearTuning):
    """The vectors of one VeRA.

    Args:
        layers: its adapters, by the path of the layer that each stands beside.
    """

    layers: dict[str, VeRAAdapter]  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, method: VeRA, model: Model, layers: dict[str, VeRAAdapter]) -> None:
        super().__init__(model, layers)
        self.method = method

    def save(self, folder: Path) -> None:
        """PEFT's format. The hash of the projection stands in the header of the tensors, so that drawing it again is checked."""
        projection = next(iter(self.layers.values())).projection
        tensors = {PREFIX + name: value for name, value in self.state()}
        if self.method.save_projection:
            tensors |= dict(zip(_SHARED, (projection.A_RI, projection.B_OR), strict=True))
        facts = {
            "peft_type": "VERA",
            "r": self.method.rank,
            "d_initial": self.method.initial,
            "vera_dropout": self.method.dropout,
            "projection_prng_key": self.method.projection_seed,
            "save_projection": self.method.save_projection,
            "target_modules": sorted(self.layers),
            "fan_in_fan_out": any(layer.transposed for layer in self.layers.values()),
            "bias": "none",
        }
        write_peft(folder, facts, self.model, tensors, {_NOTE: projection.digest()})

    def load(self, folder: Path) -> None:
        """Read PEFT's format back into the layers that stand.

        Raises:
            BaseModelError: other places or shapes, or a projection that is not the one the vectors were trained with.
        """
        stored = read_tensors(folder, PREFIX)
        shared = [stored.pop(name) for name in _SHARED if name in stored]
        projection = self._projection(shared, folder)
        with self.apart():
            fill(self.parameters(), stored, folder)
            for layer in self.layers.values():
                layer.projection = projection

    def _projection(self, shared: list[Tensor], folder: Path) -> Projection:
        from tunewright.methods._vera import Projection

        drawn = next(iter(self.layers.values())).projection
        if not shared:
            noted = read_notes(folder).get(_NOTE)
            if noted is not None and noted != drawn.digest():
                raise BaseModelError(
                    "its random matrices were not saved, and drawing them again on this machine gives others",
                    where=str(folder),
                    hint="Save it with `save_projection: true` where it was made.",
                )
            return drawn
        shapes = [tuple(one.shape) for one in shared]
        wanted = [tuple(drawn.A_RI.shape), tuple(drawn.B_OR.shape)]
        if shapes != wanted:
            raise BaseModelError(f"its random matrices are {shapes}, and {wanted} are needed here", where=str(folder))
        given = Projection(*(one.float() for one in shared))
        return drawn if given.digest() == drawn.digest() else given
