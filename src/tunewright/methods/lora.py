"""LoRA: a low-rank change beside frozen linear layers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.core.seeds import derive
from tunewright.methods import Method, Tuning
from tunewright.models.safety import read_header, read_strict

if TYPE_CHECKING:
    from torch.nn import Module, Parameter

    from tunewright.engine.linear import LoRAAdapter
    from tunewright.models import Model

_PREFIX = "base_model.model."  # in front of every name in PEFT's files
PEFT_TASKS = {"decoder": "CAUSAL_LM", "encoder": "FEATURE_EXTRACTION", "encoder_decoder": "SEQ_2_SEQ_LM"}


class LoRA(Method):
    """Adds a trainable low-rank product to chosen linear layers of a frozen base.

    y = W x + b + (alpha / rank) B A x, with A [rank, inputs] and B [outputs, rank]; B starts at zero, so training starts at the
    base. With `rank_stabilized`, alpha / sqrt(rank).

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685; rank stabilisation: arXiv 2312.03732.
    Cost: rank * (inputs + outputs) parameters a layer; about two thirds of the time and, without gradients and moments of
    the base, about a quarter of the memory of full tuning.
    Use when: a few hundred to tens of thousands of examples; many tunings of one base. Avoid when: the base must learn much that
    is new (continued pre-training on a new language): full tuning has the room.
    Raises: `ConfigurationError` for a target that matches nothing, also when others match.
    """

    default_learning_rate: ClassVar[float] = 1e-3

    rank: int | None = Field(
        default=None, ge=1, le=4096, description="inner width of the change; by the number of rows when not given"
    )
    alpha: float | None = Field(default=None, gt=0, le=1e5, description="scale times rank; 2 * rank when not given")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="probability of dropping an input of A")
    targets: tuple[str, ...] = Field(default=("linear",), min_length=1, description="sites, module names or patterns")
    rank_stabilized: bool = Field(default=False, description="scale by alpha / sqrt(rank) instead of alpha / rank")

    @field_validator("targets", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def settled(self, rows: int) -> tuple[LoRA, dict[str, str]]:
        if self.rank is not None:
            return self, {}
        rank = 8 if rows < 200 else 16 if rows < 10_000 else 32
        return self.model_copy(update={"rank": rank}), {"method.rank": f"{rank}: {rows} training rows"}

    @property
    def width(self) -> int:
        """The rank that is used: 16 where nothing decided otherwise."""
        return 16 if self.rank is None else self.rank

    @property
    def scale(self) -> float:
        """What B A x is multiplied by."""
        alpha = 2.0 * self.width if self.alpha is None else self.alpha
        return alpha / (self.width**0.5 if self.rank_stabilized else self.width)

    def attach(self, model: Model, seed: int) -> LoRATuning:
        """Put an adapter on every target, beside those of tunings that stand there already, and freeze the base."""
        from tunewright.engine.linear import LoRAAdapter, load_on
        from tunewright.models.attached import freeze_base
        from tunewright.models.sites import find

        hosts = _linear_only(find(model.network, self.targets))
        freeze_base(model.network)
        layers = {
            path: LoRAAdapter(host, self.width, self.scale, self.dropout, derive(seed, "lora", path))
            for path, host in hosts.items()
        }
        slot = model.lanes.open()
        load_on(model.network, model.lanes, slot, layers)
        return LoRATuning(model, self, slot, layers)


def _linear_only(hosts: dict[str, Module]) -> dict[str, Module]:
    """`hosts` where all are linear layers; a named block, norm or embedding is refused by name."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for path, host in hosts.items():
        if not isinstance(host, nn.Linear | Conv1D):
            raise ConfigurationError(
                f"'{path}' is a {type(host).__name__}, and a LoRA stands on linear layers only",
                where="method.targets",
                hint="Name linear layers: `linear` is all of them, `attention.query` or `mlp.up` some.",
            )
    return hosts


class LoRATuning(Tuning):
    """The adapters of one LoRA.

    Args:
        slot: its number among the tunings on the model (`tunewright.models.lanes`).
        layers: its adapters, by the path of the layer that each stands beside.
    """

    def __init__(self, model: Model, method: LoRA, slot: int, layers: dict[str, LoRAAdapter]) -> None:
        self.model, self.method, self.slot, self.layers = model, method, slot, layers

    def parameters(self) -> dict[str, Parameter]:
        return {
            f"{path}.lora_{letter}.weight": parameter
            for path, layer in self.layers.items()
            for letter, parameter in (("A", layer.A_RI), ("B", layer.B_OR))
        }

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Within the context this tuning changes nothing; others on the same base do as before."""
        before = {path: layer.enabled for path, layer in self.layers.items()}
        for layer in self.layers.values():
            layer.enabled = False
        try:
            yield
        finally:
            for path, layer in self.layers.items():
                layer.enabled = before[path]

    def detach(self) -> None:
        """Leave the base, whose layers are plain ones again when the last tuning has left; a second call does nothing."""
        from tunewright.engine.linear import take_off

        if self.layers:
            take_off(self.model.network, self.slot, tuple(self.layers))
            self.model.lanes.close(self.slot)
        self.layers = {}

    def merge(self) -> None:
        """Put the change into the base's own weights for good, and leave.

        Raises:
            ConfigurationError: the base is not held in numbers that a change can be added to.
        """
        import torch

        network = self.model.network
        hosts = {path: network.get_submodule(path) for path in self.layers}
        for path, host in hosts.items():
            if "weight" not in host._parameters:
                raise ConfigurationError(
                    f"'{path}' does not hold its weight as numbers that a change can be added to",
                    where="merge",
                    hint="Load the base without `base_precision`, attach the adapter there, and merge.",
                )
        embedding = network.get_input_embeddings()._parameters["weight"]
        with torch.no_grad():
            for path, host in hosts.items():
                weight = host.get_parameter("weight")
                if weight is embedding:
                    # A head that shares the embeddings' weight is given its own: the change is the head's alone.
                    weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
                    host.register_parameter("weight", weight)
                    # In encoder-decoders the setting ties the two embeddings too; there, weights that differ are kept apart.
                    network.config.tie_word_embeddings = network.config.is_encoder_decoder
                weight.add_(self.layers[path].change())
        self.detach()

    def save(self, folder: Path) -> None:
        """PEFT's format: `adapter_config.json` and `adapter_model.safetensors`."""
        from safetensors.torch import save_file

        tensors = {f"{_PREFIX}{name}": value.contiguous().cpu() for name, value in self.state()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        facts = {
            "peft_type": "LORA",
            "task_type": PEFT_TASKS[self.model.kind],
            "base_model_name_or_path": self.model.base,
            "r": self.method.width,
            "lora_alpha": self.method.scale * (self.method.width**0.5 if self.method.rank_stabilized else self.method.width),
            "lora_dropout": self.method.dropout,
            "use_rslora": self.method.rank_stabilized,
            "target_modules": sorted(self.layers),
            "fan_in_fan_out": any(layer.transposed for layer in self.layers.values()),
            "bias": "none",
            "inference_mode": True,
        }
        (folder / "adapter_config.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read PEFT's format back into the layers that stand."""
        import torch
        from safetensors.torch import load_file

        stored = {name.removeprefix(_PREFIX): value for name, value in load_file(folder / "adapter_model.safetensors").items()}
        own = self.parameters()
        copies = {name.replace(".base_layer.", "."): stored.pop(name) for name in list(stored) if "lora_" not in name}
        held = dict(self.model.network.named_parameters(remove_duplicate=False))
        for name, copy in copies.items():
            if name not in held or not torch.equal(copy, held[name]):
                raise BaseModelError(f"the adapter brings a '{name}' of its own, which is not supported", where=str(folder))
        if set(stored) != set(own):
            odd = sorted(set(stored) ^ set(own))[0]
            raise BaseModelError(
                f"the adapter and this base do not have the same places (first difference: '{odd}')", where=str(folder)
            )
        for name, parameter in own.items():
            if parameter.shape != stored[name].shape:
                given = tuple(stored[name].shape)
                raise BaseModelError(f"'{name}' is {given} in the adapter and {tuple(parameter.shape)} here", where=str(folder))
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(stored[name])


# What PEFT's configuration may hold without a change in what is computed here; anything else that is set is refused by name.
_UNDERSTOOD = frozenset(
    (
        *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
        *("r", "lora_alpha", "lora_dropout", "use_rslora", "fan_in_fan_out", "init_lora_weights", "runtime_config"),
        # where the layers stand is read from the tensors themselves
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("megatron_core", "qalora_group_size", "eva_config", "ensure_weight_tying"),  # settings of options refused on their own
    )
)
# Ways to begin that leave the base as it was; the others (PiSSA, OLoRA, CorDA, LoftQ, ...) subtract something from it.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


def from_peft(folder: Path) -> LoRA:
    """The LoRA that a PEFT adapter folder describes, at exactly the places that its tensors name.

    Raises:
        BaseModelError: the adapter is of another kind, damaged, or uses an option that is not computed here; it is named.
    """
    facts = read_strict(folder / "adapter_config.json")
    if not isinstance(facts, dict) or facts.get("peft_type") != "LORA":
        kind = facts.get("peft_type") if isinstance(facts, dict) else None
        raise BaseModelError(f"the adapter is of type {kind}", where=str(folder), allowed=["LORA"])
    used = sorted(name for name, value in facts.items() if name not in _UNDERSTOOD and value not in (None, False, "none", {}, []))
    if facts.get("init_lora_weights", True) not in _PLAIN_STARTS:
        used.append(f"init_lora_weights ({facts['init_lora_weights']})")
    if used:
        raise BaseModelError(
            f"the adapter uses {', '.join(used)}, which is not supported", where=str(folder), hint="Merge it with PEFT first."
        )
    return LoRA(
        rank=facts["r"],
        alpha=facts["lora_alpha"],
        dropout=facts.get("lora_dropout", 0.0),
        rank_stabilized=bool(facts.get("use_rslora")),
        targets=_places(folder / "adapter_model.safetensors"),
    )


def _places(path: Path) -> tuple[str, ...]:
    """The paths of the layers that an adapter's tensors belong to. PEFT's own patterns may name more than the base has."""
    places = set()
    for name in read_header(path).tensors:
        if "lora_" not in name:
            continue  # PEFT adds embeddings to the adapter when the head is a target; `load` compares them with the base's
        place, letter, _ = name.removeprefix(_PREFIX).rpartition(".lora_A.weight" if ".lora_A." in name else ".lora_B.weight")
        if not letter or not name.startswith(_PREFIX):
            raise BaseModelError(f"the tensor '{name}' is none of a LoRA on linear layers", where=str(path))
        places.add(place)
    if not places:
        raise BaseModelError("holds no tensor", where=str(path))
    return tuple(sorted(places))
