"""LoRAs in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

A start that subtracts a product from the base (`pissa`, `olora`) is written as PEFT converts it: an ordinary LoRA of twice the
rank, [B, -B0] [A; A0], which any reader computes on the base as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.core.errors import BaseModelError
from tunewright.methods._lora_tuning import named
from tunewright.methods._saved import PEFT_WEIGHTS, PREFIX, fill, read_peft, read_tensors, refuse_unknown, write_peft
from tunewright.models.safety import read_header

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.engine.linear import Change, LoRAAdapter
    from tunewright.models import Model

_A, _B = ".lora_A.weight", ".lora_B.weight"
_MAGNITUDE = ".lora_magnitude_vector"
_ENDS = (_A, _B, ".lora_embedding_A", ".lora_embedding_B", _MAGNITUDE)


def save_adapters(folder: Path, model: Model, layers: Mapping[str, Change], stated: Mapping[str, Any]) -> None:
    """Write adapters into an existing folder.

    Args:
        layers: by path.
        stated: the settings of PEFT's configuration that the adapters do not show: `lora_dropout`, `use_rslora`, `use_dora`.
    """
    import torch

    tensors: dict[str, Tensor] = {name: value.detach() for name, value in named(layers).items()}
    shifted = _shifted(layers)
    for path, layer in shifted.items():
        tensors[path + _A] = torch.cat((tensors[path + _A], layer.A0_RI))
        tensors[path + _B] = torch.cat((tensors[path + _B], -layer.B0_OR), dim=1)
    for path, wide in _wide(layers).items():
        tensors[path + _MAGNITUDE] = tensors[path + _MAGNITUDE].view(wide)
    ranks = {path: layer.rank * (2 if path in shifted else 1) for path, layer in layers.items()}
    alphas = {path: layer.scale * (ranks[path] ** 0.5 if stated["use_rslora"] else ranks[path]) for path, layer in layers.items()}
    rank, alpha = _commonest(ranks), _commonest(alphas)
    facts = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: own for path, own in ranks.items() if own != rank},
        "alpha_pattern": {path: own for path, own in alphas.items() if own != alpha},
        **stated,
        "target_modules": sorted(layers),
        "fan_in_fan_out": any(getattr(layer, "transposed", False) for layer in layers.values()),
        "bias": "none",
    }
    write_peft(folder, facts, model, {PREFIX + name: value for name, value in tensors.items()})


def _shifted(layers: Mapping[str, Change]) -> dict[str, LoRAAdapter]:
    """Those that subtract what they began with."""
    from tunewright.engine.linear import LoRAAdapter

    return {path: layer for path, layer in layers.items() if isinstance(layer, LoRAAdapter) and layer.shifted}


def _wide(layers: Mapping[str, Change]) -> dict[str, tuple[int, ...]]:
    """The shape in which PEFT keeps the magnitudes of convolutions."""
    from tunewright.engine.linear import ConvolutionAdapter

    conv = {path: layer for path, layer in layers.items() if isinstance(layer, ConvolutionAdapter) and layer.gained}
    return {path: (1, -1, *(1 for _ in layer.A.shape[2:])) for path, layer in conv.items()}


def _commonest(values: Mapping[str, Any]) -> Any:
    every = list(values.values())
    return max(dict.fromkeys(every), key=every.count)


def load_adapters(folder: Path, model: Model, layers: Mapping[str, Change]) -> None:
    """Read a folder back into the adapters that stand.

    Raises:
        BaseModelError: the places, shapes or kinds differ; nothing was changed.
    """
    import torch

    stored = read_tensors(folder, PREFIX)
    copies = {name.replace(".base_layer.", "."): stored.pop(name) for name in list(stored) if "lora_" not in name}
    held = dict(model.network.named_parameters(remove_duplicate=False))
    for name, copy in copies.items():
        if name not in held or not torch.equal(copy, held[name]):
            raise BaseModelError(f"the adapter brings a '{name}' of its own, which is not supported", where=str(folder))
    for path in _wide(layers):
        if path + _MAGNITUDE in stored:
            stored[path + _MAGNITUDE] = stored[path + _MAGNITUDE].flatten()
    subtracted: dict[str, tuple[Tensor, Tensor]] = {}
    shifted = _shifted(layers)
    for path, layer in shifted.items():
        if path + _A in stored and len(stored[path + _A]) == 2 * layer.rank:
            A_RI, A0_RI = stored[path + _A].chunk(2)
            B_OR, B0_OR = stored[path + _B].chunk(2, dim=1)
            stored |= {path + _A: A_RI, path + _B: B_OR}
            subtracted[path] = A0_RI, -B0_OR
    fill(named(layers), stored, folder)
    for path, (A0_RI, B0_OR) in subtracted.items():
        shifted[path].A0_RI.copy_(A0_RI)
        shifted[path].B0_OR.copy_(B0_OR)


# What PEFT's configuration may hold without a change in what is computed here; anything else that is set is refused by name.
_UNDERSTOOD = frozenset(
    (
        *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"),
        *("fan_in_fan_out", "init_lora_weights", "runtime_config"),
        # where the layers stand is read from the tensors themselves
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("megatron_core", "qalora_group_size", "eva_config", "ensure_weight_tying"),  # settings of options refused on their own
    )
)
# Ways to begin that leave the base as it was, and those that subtract something which is a function of the base alone.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
_SHIFTED_STARTS = ("pissa", "olora")


def described(folder: Path) -> dict[str, Any]:
    """The settings of the `LoRA` that a PEFT adapter folder describes, at exactly the places that its tensors name.

    Raises:
        BaseModelError: the adapter is of another kind, damaged, or uses an option that is not computed here; it is named.
    """
    facts = read_peft(folder)
    if facts.get("peft_type") != "LORA":
        raise BaseModelError(f"the adapter is of type {facts.get('peft_type')}", where=str(folder), allowed=["LORA"])
    start = facts.get("init_lora_weights", True)
    unknown = {} if start in (*_PLAIN_STARTS, *_SHIFTED_STARTS) else {f"init_lora_weights ({start})": True}
    refuse_unknown({**facts, **unknown}, _UNDERSTOOD, folder)
    missing = sorted({"r", "lora_alpha"} - set(facts))
    if missing:
        raise BaseModelError(f"its configuration does not say '{missing[0]}'", where=str(folder))
    ranks = _ranks(folder / PEFT_WEIGHTS)
    patterns = facts.get("alpha_pattern") or {}
    alphas = {path: _first(patterns, path, facts["lora_alpha"]) for path in ranks}
    return {
        "rank": facts["r"],
        "alpha": facts["lora_alpha"],
        "dropout": facts.get("lora_dropout", 0.0),
        "rank_stabilized": bool(facts.get("use_rslora")),
        "dora": bool(facts.get("use_dora")),
        "init": start if start in _SHIFTED_STARTS else "kaiming",
        "rank_pattern": {path: rank for path, rank in ranks.items() if rank != facts["r"]},
        "alpha_pattern": {path: alpha for path, alpha in alphas.items() if alpha != facts["lora_alpha"]},
        "targets": tuple(ranks),
    }


def _first(patterns: Mapping[str, float], path: str, otherwise: float) -> float:
    """The value of the first of PEFT's patterns that matches a path; each is an expression for the path or the end of it."""
    try:
        return next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", path)), otherwise)
    except re.error as error:
        raise BaseModelError(f"one of its patterns is no regular expression ({error})", where="alpha_pattern") from None


def _ranks(file: Path) -> dict[str, int]:
    """The rank at every layer that an adapter's tensors belong to, by path. PEFT's own patterns may name more than the base has.

    Raises:
        BaseModelError: a tensor is none of a LoRA's.
    """
    if not file.is_file():
        raise BaseModelError(f"holds no {file.name}", where=str(file.parent))
    found: dict[str, int] = {}
    for name, tensor in read_header(file).tensors.items():
        if "lora_" not in name:
            continue  # PEFT adds embeddings to the adapter when head or embedding is a target; `load` compares them with the base's
        end = next((end for end in _ENDS if name.endswith(end)), None)
        if end is None or not name.startswith(PREFIX):
            raise BaseModelError(
                f"the tensor '{name}' is none of a LoRA on linear layers, embeddings or convolutions", where=str(file)
            )
        if end in (_A, ".lora_embedding_A"):
            found[name.removeprefix(PREFIX).removesuffix(end)] = tensor.shape[0]
    if not found:
        raise BaseModelError("holds no tensor", where=str(file))
    return dict(sorted(found.items()))
