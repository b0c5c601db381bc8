"""(IA)3: trained factors for keys, values and what enters the last layer of an MLP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.methods import Method
from tunewright.methods._changes import HiddenTuning, attach
from tunewright.methods._saved import PEFT_WEIGHTS, PREFIX, fill, read_peft, read_tensors, refuse_unknown, write_peft
from tunewright.models.safety import read_header

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from tunewright.engine.changes import Spot
    from tunewright.models import Model

_END = ".ia3_l"
# What PEFT's configuration may hold without a change in what is computed here.
_UNDERSTOOD = frozenset(
    ("target_modules", "feedforward_modules", "exclude_modules", "fan_in_fan_out", "init_ia3_weights", "layers_to_transform")
)


class IA3(Method):
    """Multiplies keys, values and the inner states of MLPs by trained factors, one for each number.

    y = l * (W x + b) for layers outside of MLPs, and y = W (l * x) + b for those in `feedforward`; l starts at one, so training
    starts at the base. A fused layer (`c_attn`, `qkv_proj`) is scaled as a whole, its queries too, as PEFT does.

    Source: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", arXiv 2205.05638.
    Cost: one parameter for each output (of a layer in `feedforward`: input) of a chosen layer; nothing at inference once merged.
    Use when: examples are few, or tunings must be as small as they can be. Avoid when: there is much to learn; a LoRA has the room.
    Raises: `ConfigurationError` for a target that matches nothing, also when others match, and for one that is no linear layer.
    """

    default_learning_rate: ClassVar[float] = 1e-2
    steep_rate: ClassVar[bool] = True
    rate_under_new_head: ClassVar[float] = 0.5
    peft_type: ClassVar[str | None] = "IA3"

    targets: tuple[str, ...] = Field(
        default=("attention.key", "attention.value", "mlp.down"), min_length=1, description="sites, module names or patterns"
    )
    feedforward: tuple[str, ...] | None = Field(
        default=None, description="those of the targets that are scaled at their input; the last layers of MLPs when not given"
    )

    @field_validator("targets", "feedforward", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def attach(self, model: Model, seed: int) -> IA3Tuning:
        """Put factors on every target, beside those of tunings that stand there already, and freeze the base."""
        from tunewright.engine.changes import Scale, Spot

        spots = {}
        for path, (host, inside) in self._hosts(model).items():
            outputs, inputs = _shape(host)
            spots[path] = Spot(Scale(inputs if inside else outputs), path, "input" if inside else "output")
        tuning = attach(model, self, spots, "")
        return IA3Tuning(model, self, tuning.slot, spots, "")

    def _hosts(self, model: Model) -> dict[str, tuple[Module, bool]]:
        """The layers by path, and whether each is scaled at its input."""
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        from tunewright.models.sites import canonical, find

        found = find(model.network, self.targets)
        inside = set(canonical(model.network).get("mlp.down", ()))
        if self.feedforward is not None:
            inside = set(find(model.network, self.feedforward)) if self.feedforward else set()
            if not inside <= set(found):
                odd = sorted(inside - set(found))[0]
                raise ConfigurationError(f"'{odd}' is no target", where="method.feedforward", allowed=found, given=odd)
        for path, host in found.items():
            if not isinstance(host, nn.Linear | Conv1D):
                raise ConfigurationError(
                    f"'{path}' is a {type(host).__name__}, and factors stand on linear layers only",
                    where="method.targets",
                    hint="Name linear layers: `attention.key` and `mlp.down` are some.",
                )
        return {path: (host, path in inside) for path, host in found.items()}

    @classmethod
    def from_folder(cls, folder: Path) -> IA3:
        """The method with the settings of a folder in PEFT's format, at exactly the places that its tensors name.

        Raises:
            BaseModelError: the adapter is of another kind, damaged, or uses an option that is not computed here; it is named.
        """
        facts = read_peft(folder)
        if facts.get("peft_type") != cls.peft_type:
            raise BaseModelError(f"the adapter is of type {facts.get('peft_type')}", where=str(folder), allowed=["IA3"])
        refuse_unknown(facts, _UNDERSTOOD, folder)
        shapes = {name: tensor.shape for name, tensor in read_header(folder / PEFT_WEIGHTS).tensors.items()}
        for name, shape in shapes.items():
            if not (name.startswith(PREFIX) and name.endswith(_END) and len(shape) == 2 and 1 in shape):
                raise BaseModelError(f"the tensor '{name}' is none of (IA)3 on linear layers", where=str(folder))
        paths = {name.removeprefix(PREFIX).removesuffix(_END): shape for name, shape in shapes.items()}
        # PEFT keeps a factor of inputs as a row, one of outputs as a column.
        inside = sorted(path for path, shape in paths.items() if shape[0] == 1)
        return cls(targets=tuple(sorted(paths)), feedforward=tuple(inside))


def _shape(host: Module) -> tuple[int, int]:
    """Outputs and inputs of a linear layer."""
    from torch import nn

    if isinstance(host, nn.Linear):
        return host.out_features, host.in_features
    return host.nf, host.nx  # pyright: ignore[reportReturnType]


class IA3Tuning(HiddenTuning):
    """The factors of one (IA)3."""

    @property
    def merges(self) -> bool:
        return True

    def merge(self) -> None:
        """Put the factors into the base's own weights for good, and leave.

        Raises:
            ConfigurationError: the base is not held in numbers that can be scaled, or another part of the network reads them too.
        """
        import torch

        network = self.model.network
        hosts = {path: network.get_submodule(path) for path in self.spots}
        for path, host in hosts.items():
            weight = host._parameters.get("weight")
            if weight is None or not weight.is_floating_point():
                raise ConfigurationError(
                    f"'{path}' does not hold its weight as numbers that can be scaled",
                    where="merge",
                    hint="Load the base without `base_precision`, attach the adapter there, and merge.",
                )
            if sum(module._parameters.get("weight") is weight for module in network.modules()) > 1:
                raise ConfigurationError(
                    f"the weight of '{path}' is read by another part of the network too",
                    where="merge",
                    hint="Keep the adapter attached, or leave this layer out of `targets`.",
                )
        with torch.no_grad():
            for path, host in hosts.items():
                _scale(host, self.spots[path])
        self.detach()

    def save(self, folder: Path) -> None:
        """PEFT's format: `adapter_config.json` and `adapter_model.safetensors`."""
        from torch import nn

        inside = sorted(path for path, spot in self.spots.items() if spot.point == "input")
        facts = {
            "peft_type": "IA3",
            "target_modules": sorted(self.spots),
            "feedforward_modules": inside,
            "fan_in_fan_out": any(not isinstance(self.model.network.get_submodule(path), nn.Linear) for path in self.spots),
            "init_ia3_weights": True,
        }
        write_peft(folder, facts, self.model, {f"{PREFIX}{path}{_END}": self._column(path) for path in self.spots})

    def load(self, folder: Path) -> None:
        """Read PEFT's format back into the factors that stand."""
        stored = read_tensors(folder, PREFIX)
        shapes = {f"{path}{_END}": self._column(path).shape for path in self.spots}
        fill(self.parameters(), _flat(stored, shapes), folder)

    def _column(self, path: str) -> Tensor:
        """The factors of one layer in PEFT's shape."""
        factor = self.spots[path].change.get_parameter("factor_D").detach()
        return factor[None, :] if self.spots[path].point == "input" else factor[:, None]


def _flat(stored: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The stored factors as vectors; those of another shape than PEFT's are left as they are, and refused by name."""
    return {name: value.flatten() if value.shape == shapes.get(name) else value for name, value in stored.items()}


def _scale(host: Module, spot: Spot) -> None:
    """Multiply a layer's weight, and where outputs are scaled its bias, by the factors."""
    from torch import nn

    factor, weight, bias = spot.change.get_parameter("factor_D"), host.get_parameter("weight"), host._parameters.get("bias")
    across = (spot.point == "input") == isinstance(
        host, nn.Linear
    )  # factors of the last dimension of [O, I], or of Conv1D's [I, O]
    weight.mul_(factor if across else factor[:, None])
    if bias is not None and spot.point == "output":
        bias.mul_(factor)
