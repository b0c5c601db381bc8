"""AdaLoRA: LoRA in the form of a singular value decomposition, whose ranks go to the layers that need them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.core.seeds import derive
from tunewright.methods import Method
from tunewright.methods._linear import LinearTuning, linear_hosts
from tunewright.methods._saved import PREFIX, fill, peft_places, read_peft, read_tensors, refuse_unknown, write_peft

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.methods._adalora import Importance, Schedule, SVDAdapter
    from tunewright.models import Model

# What PEFT's configuration may hold without a change in what is computed here; anything else that is set is refused by name.
_UNDERSTOOD = (
    *("target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step", "rank_pattern"),
    *("r", "lora_alpha", "lora_dropout", "fan_in_fan_out", "init_lora_weights", "use_rslora", "runtime_config"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("megatron_core", "qalora_group_size"),  # settings of options refused on their own
)


class AdaLoRA(Method):
    """Trains P diag(E) Q beside frozen linear layers and takes ranks away where they matter least.

    y = W x + bias + alpha / initial_rank * P diag(E) Q x, with Q [initial_rank, inputs], P [outputs, initial_rank] and E
    [initial_rank], which starts at zero: training starts at the base. Ranks of all layers compete: each is as important as its
    weights' moving averages of |weight * gradient|, times how much that wavers. For `warmup` of the run all stay, then ever fewer
    by a cubic, and for the last `final` of it `rank` a layer stay on average. What is taken away has E = 0 and may come back until
    then. P and Q are kept near orthogonal by a term that training minimises and that the reported loss does not contain.

    Source: Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", arXiv 2303.10512; order of the steps of
    an update and format are those of PEFT.
    Cost: initial_rank * (inputs + outputs + 1) parameters a layer, and two averages of each while training; time as LoRA at
    initial_rank, and files with what stays.
    Use when: parameters are scarce and layers differ in what they must learn. Avoid when: a run has few steps (a hundred or less),
    or stops early: the ranks would be chosen by noise, or not yet.
    Raises: `ConfigurationError` for a target that matches nothing, also when others match.
    """

    default_learning_rate: ClassVar[float] = 4e-3
    peft_type: ClassVar[str | None] = "ADALORA"

    rank: int = Field(default=8, ge=1, le=4096, description="ranks that stay, a layer on average")
    initial_rank: int | None = Field(default=None, ge=1, le=4096, description="ranks at first; 1.5 * rank when not given")
    alpha: float | None = Field(default=None, gt=0, le=1e5, description="scale times initial rank; 2 * initial rank when not given")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="probability of dropping an input of Q")
    targets: tuple[str, ...] = Field(default=("linear",), min_length=1, description="sites, module names or patterns")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the run's steps before the first rank is taken away")
    final: float = Field(default=0.3, ge=0, lt=1, description="share of the run's steps after the last one")
    every: int = Field(default=1, ge=1, description="steps from one decision to the next")
    beta1: float = Field(default=0.85, gt=0, lt=1, description="how much of the average importance stays at each step")
    beta2: float = Field(default=0.85, gt=0, lt=1, description="how much of its average deviation stays")
    orthogonality: float = Field(default=0.5, ge=0, le=100, description="weight of the term that keeps P and Q orthogonal")

    @field_validator("targets", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fitting(self) -> AdaLoRA:
        if self.width < self.rank:
            raise ConfigurationError(
                f"{self.width} ranks at first cannot become {self.rank}", where="initial_rank", hint="Give at least `rank`."
            )
        if self.warmup + self.final >= 1:
            raise ConfigurationError(
                "warmup and final together leave no step in which ranks are taken away", where="final", hint="Their sum is below 1."
            )
        return self

    @property
    def width(self) -> int:
        """R, the ranks of a layer at first."""
        return math.ceil(1.5 * self.rank) if self.initial_rank is None else self.initial_rank

    @property
    def strength(self) -> float:
        """Alpha, given or not."""
        return 2.0 * self.width if self.alpha is None else self.alpha

    def attach(self, model: Model, seed: int) -> AdaLoRATuning:
        """Put a decomposition on every target, beside tunings that stand there, and freeze the base."""
        from tunewright.methods._adalora import SVDAdapter

        hosts = linear_hosts(model, self.targets, "an AdaLoRA")
        layers = {
            path: SVDAdapter(host, self.width, self.strength, self.dropout, derive(seed, path)) for path, host in hosts.items()
        }
        return AdaLoRATuning(self, model, layers)

    @classmethod
    def from_folder(cls, folder: Path) -> AdaLoRA:
        """The AdaLoRA that a folder in PEFT's format describes, at exactly the places that its tensors name."""
        facts = read_peft(folder)
        refuse_unknown(facts, _UNDERSTOOD, folder)
        initial, alpha, steps = facts.get("init_r", 12), facts.get("lora_alpha", 8), facts.get("total_step") or 1
        try:
            stated = {
                "rank": min(facts.get("target_r", 8), initial),
                "initial_rank": initial,
                "alpha": alpha if alpha > 0 else initial,  # PEFT's rule
                "warmup": facts.get("tinit", 0) / steps,
                "final": facts.get("tfinal", 0) / steps,
            }
        except TypeError as error:
            raise BaseModelError(f"its settings are no numbers ({error})", where=str(folder)) from None
        named = {
            "dropout": "lora_dropout",
            "every": "deltaT",
            "beta1": "beta1",
            "beta2": "beta2",
            "orthogonality": "orth_reg_weight",
        }
        stated |= {ours: facts[theirs] for ours, theirs in named.items() if theirs in facts}
        return build(cls, stated | {"targets": peft_places(folder, "lora_")}, str(folder))


class AdaLoRATuning(LinearTuning):
    """The decompositions of one AdaLoRA, and the choice of their ranks.

    Args:
        layers: its adapters, by the path of the layer that each stands beside.

    Attributes:
        schedule: how many ranks may stay when; None until `begin` says how long the run is, and all of them do.
    """

    layers: dict[str, SVDAdapter]  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, method: AdaLoRA, model: Model, layers: dict[str, SVDAdapter]) -> None:
        super().__init__(model, layers)
        self.method = method
        self.schedule: Schedule | None = None
        self._arrived: dict[int, Tensor] = {}

    @cached_property
    def importance(self) -> Importance:
        """What is known about the ranks; made when it is first asked for, since a tuning that answers needs none."""
        from tunewright.methods._adalora import Importance

        return Importance(self.layers, (self.method.beta1, self.method.beta2))

    def kept(self) -> dict[str, Tensor]:
        return self.importance.kept()

    def begin(self, steps: int) -> None:
        from tunewright.methods._adalora import Schedule

        count, method = len(self.layers), self.method
        warmup, final = int(steps * method.warmup), int(steps * method.final)
        self.schedule = Schedule(count * method.width, count * method.rank, warmup, final, steps, method.every)

    def before_update(self) -> None:
        """Add what keeps P and Q orthogonal. The gradients are looked at when the weights have moved, as PEFT and the paper's code
        do, so only where they stand is noted.
        """
        from tunewright.methods._adalora import straighten

        if self.method.orthogonality:
            straighten(self.layers, self.method.orthogonality)
        if self.schedule is not None and int(self.importance.step) + 1 < self.schedule.settled:
            self._arrived = {id(one): one.grad for one in self.parameters().values() if one.grad is not None}

    def after_update(self) -> None:
        """Take the update into account, and ranks away where it is time to."""
        if self.schedule is None:
            return
        importance, arrived = self.importance, self._arrived
        self._arrived = {}
        importance.step += 1
        step = int(importance.step)
        if step < self.schedule.settled:
            importance.see(arrived)
        if self.schedule.decides(step):
            importance.choose(self.schedule.budget(step))
            importance.silence()
        elif step > self.schedule.settled:
            importance.silence()

    def ranks(self) -> dict[str, int]:
        """How many ranks of each layer change anything now, by path."""
        return {path: int(layer.E_R1.count_nonzero()) for path, layer in self.layers.items()}

    def save(self, folder: Path) -> None:
        """PEFT's format: ranks that change nothing are left out, and `rank_pattern` says which those were."""
        masks = {path: layer.E_R1.detach().flatten() != 0 for path, layer in self.layers.items()}
        whole = not any(bool(mask.any()) for mask in masks.values()) or all(bool(mask.all()) for mask in masks.values())
        tensors = {}
        for path, layer in self.layers.items():
            for letter, value in zip("ABE", layer.triple(), strict=True):
                cut = value if whole else value[:, masks[path]] if letter == "B" else value[masks[path]]
                tensors[f"{PREFIX}{path}.lora_{letter}"] = cut
        method, schedule = self.method, self.schedule
        facts = {
            "peft_type": "ADALORA",
            "target_r": method.rank,
            "init_r": method.width,
            "tinit": schedule.warmup if schedule else 0,
            "tfinal": schedule.final if schedule else 0,
            "total_step": schedule.steps if schedule else 1,
            "deltaT": method.every,
            "beta1": method.beta1,
            "beta2": method.beta2,
            "orth_reg_weight": method.orthogonality,
            "lora_alpha": method.strength,
            "lora_dropout": method.dropout,
            "rank_pattern": None if whole else {f"{path}.lora_E": mask.tolist() for path, mask in masks.items()},
            "target_modules": sorted(self.layers),
            "fan_in_fan_out": any(layer.transposed for layer in self.layers.values()),
            "bias": "none",
        }
        write_peft(folder, facts, self.model, tensors)

    def load(self, folder: Path) -> None:
        """Read PEFT's format back; ranks that were left out come back to their places, with E = 0."""
        stored = read_tensors(folder, PREFIX)
        pattern = read_peft(folder).get("rank_pattern")
        if isinstance(pattern, dict):
            stored = {name: self._spread(name, value, pattern, folder) for name, value in stored.items()}
        with self.apart():
            fill(self.parameters(), stored, folder)

    def _spread(self, name: str, value: Tensor, pattern: Mapping[str, list[bool]], folder: Path) -> Tensor:
        import torch

        path, _, letter = name.rpartition(".lora_")
        mask = torch.tensor(pattern.get(f"{path}.lora_E", [True] * self.method.width), dtype=torch.bool)
        axis = 1 if letter == "B" else 0
        if len(mask) != self.method.width or value.shape[axis] not in (len(mask), int(mask.sum())):
            raise BaseModelError(f"'{name}' and its rank_pattern do not fit together", where=str(folder))
        if value.shape[axis] == len(mask):
            return value
        whole = value.new_zeros([len(mask) if place == axis else size for place, size in enumerate(value.shape)])
        return whole.index_copy_(axis, mask.nonzero().flatten(), value)
