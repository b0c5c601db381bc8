"""The files of a saved tuning: PEFT's where PEFT has the method, else `tuning.json` and `tuning.safetensors`.

PEFT's: `adapter_config.json` and `adapter_model.safetensors`, whose tensor names begin with `base_model.model.`. Ours:

- `tuning.json`: `{"format": 1, "method": {"name": ..., every setting}, "base": what the user called it}`
- `tuning.safetensors`: the tuning's tensors by the names of `Tuning.state()`, in the precision they were trained in.

Beside either stands `base.json` with the fingerprint of the base (weights, tokenizer, template), which is compared on opening.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.core.errors import BaseModelError, RequestError, StorageError
from tunewright.core.storage import read_json, write_json
from tunewright.methods import Method, Tuning, room
from tunewright.models.safety import read_header, read_strict

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from tunewright.models import Model

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OWN_CONFIG, OWN_WEIGHTS = "tuning.json", "tuning.safetensors"
STAMP = "base.json"
PREFIX = "base_model.model."  # in front of every name in PEFT's files
PEFT_TASKS = {"decoder": "CAUSAL_LM", "encoder": "FEATURE_EXTRACTION", "encoder_decoder": "SEQ_2_SEQ_LM"}
FORMAT = 1


def method_of(folder: Path) -> Method | None:
    """The method that a saved tuning's folder describes; None where it holds no tuning (a new head alone).

    Raises:
        BaseModelError: the folder is damaged, or of a method that is not known here.
    """
    if (folder / OWN_CONFIG).is_file():
        return read_own(folder)
    if not (folder / PEFT_CONFIG).is_file():
        return None
    facts = read_peft(folder)
    kind = str(facts.get("peft_type"))
    entries = {entry.peft_type: entry for name in room.names() if (entry := room[name]).peft_type is not None}
    entry = entries.get(kind) or (room["peft"] if "peft" in room.names() else None)
    if entry is None:
        raise BaseModelError(f"the adapter is of type {kind}", where=str(folder), allowed=sorted(entries), given=str(kind))
    return entry.from_folder(folder)


def save_tuning(tuning: Tuning, folder: Path, model: Model) -> None:
    """Write a tuning and the stamp of the base that it stands on into an existing folder."""
    tuning.save(folder)
    write_json(folder / STAMP, {"base": model.base, "fingerprint": model.fingerprint})


def require_base(folder: Path, model: Model, where: str) -> None:
    """Refuse a saved tuning that was made on another base than `model`; those of other makers carry no stamp and are not asked.

    Args:
        where: what the user called the tuning.

    Raises:
        BaseModelError: the fingerprints differ, or the stamp is damaged.
    """
    if not (folder / STAMP).is_file():
        return
    try:
        stamp = read_json(folder / STAMP)
    except StorageError as error:
        raise BaseModelError(f"its stamp cannot be read ({error.problem})", where=str(folder / STAMP)) from None
    wanted = stamp.get("fingerprint") if isinstance(stamp, dict) else None
    if not isinstance(wanted, str):
        raise BaseModelError("names no fingerprint", where=str(folder / STAMP), hint="Save the tuning again, or use --force.")
    if wanted != model.fingerprint:
        raise BaseModelError(
            f"the adapter was made on another base (fingerprint {wanted[:12]}, this one is {model.fingerprint[:12]})",
            where=where,
            hint="Use the base it was made on, or --force if you know that they fit.",
        )


def read_peft(folder: Path) -> dict[str, Any]:
    """What PEFT's configuration says. Raises `BaseModelError` where it is none."""
    facts = read_strict(folder / PEFT_CONFIG)
    if not isinstance(facts, dict):
        raise BaseModelError("is not the configuration of an adapter", where=str(folder / PEFT_CONFIG))
    return facts


def read_own(folder: Path) -> Method:
    """The method in `tuning.json`. Raises `BaseModelError` where it is damaged or of a later version."""
    path = folder / OWN_CONFIG
    facts = read_strict(path)
    if not isinstance(facts, dict) or not isinstance(facts.get("method"), dict):
        raise BaseModelError("does not describe a tuning", where=str(path))
    if facts.get("format") != FORMAT:
        raise BaseModelError(
            f"is of format {facts.get('format')}, this version reads {FORMAT}", where=str(path), hint="Update tunewright."
        )
    try:
        return room.make(facts["method"])
    except RequestError as error:
        raise BaseModelError(f"does not describe a tuning ({error.problem})", where=str(path)) from None


def write_own(folder: Path, method: Method, model: Model, tensors: Mapping[str, Tensor]) -> None:
    """Write `tuning.json` and `tuning.safetensors` into an existing folder."""
    write_tensors(folder / OWN_WEIGHTS, tensors)
    write_json(folder / OWN_CONFIG, {"format": FORMAT, "method": room.dump(method), "base": model.base})


def write_peft(
    folder: Path, facts: Mapping[str, Any], model: Model, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> None:
    """Write PEFT's two files into an existing folder.

    Args:
        facts: the settings of PEFT's configuration class, `peft_type` among them; task, base and mode are added here.
        tensors: by PEFT's names, the prefix `base_model.model.` included where PEFT has it.
        notes: what else stands in the header of the tensors, where PEFT does not look.
    """
    write_tensors(folder / PEFT_WEIGHTS, tensors, notes)
    common = {"task_type": PEFT_TASKS[model.kind], "base_model_name_or_path": model.base, "inference_mode": True}
    (folder / PEFT_CONFIG).write_text(json.dumps({**common, **facts}, indent=1) + "\n", encoding="utf-8")


# Said in every configuration of PEFT, and of no effect on what is computed; where layers stand is read from the tensors' names.
_COMMON = frozenset(
    ("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode")
)


def refuse_unknown(facts: Mapping[str, Any], understood: Iterable[str], folder: Path) -> None:
    """Refuse an adapter of PEFT that uses an option which is not computed here.

    Args:
        facts: what its configuration says.
        understood: the options that are computed, or have no effect on what is.

    Raises:
        BaseModelError: an option is set that is none of them; every one is named.
    """
    known = _COMMON | set(understood)
    used = sorted(name for name, value in facts.items() if name not in known and value not in (None, False, "none", {}, []))
    if used:
        raise BaseModelError(
            f"the adapter uses {', '.join(used)}, which is not supported", where=str(folder), hint="Merge it with PEFT first."
        )


def peft_places(folder: Path, word: str) -> tuple[str, ...]:
    """The paths of the modules that PEFT's tensors belong to: what stands in front of the part of a name that begins with `word`.

    Raises:
        BaseModelError: there is no such tensor.
    """
    path = folder / PEFT_WEIGHTS
    if not path.is_file():
        raise BaseModelError(f"holds no {path.name}", where=str(folder))
    names = [name.removeprefix(PREFIX) for name in read_header(path).tensors if name.startswith(PREFIX) and f".{word}" in name]
    if not names:
        raise BaseModelError(f"holds no tensor of the kind '{word}'", where=str(path))
    return tuple(sorted({name[: name.index(f".{word}")] for name in names}))


def read_notes(folder: Path) -> dict[str, str]:
    """What the header of a saved tuning's tensors says besides their names and shapes."""
    from safetensors import safe_open

    with safe_open(folder / PEFT_WEIGHTS, "pt") as file:
        return file.metadata() or {}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """One safetensors file, with `notes` in its header."""
    from safetensors.torch import save_file

    held = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    save_file(held, path, metadata={"format": "pt", **(notes or {})})


def read_tensors(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a saved tuning, `prefix` taken off their names.

    Raises:
        BaseModelError: the file is missing or damaged.
    """
    from safetensors.torch import load_file

    path = folder / (OWN_WEIGHTS if (folder / OWN_CONFIG).is_file() else PEFT_WEIGHTS)
    if not path.is_file():
        raise BaseModelError(f"holds no {path.name}", where=str(folder))
    read_header(path)
    return {name.removeprefix(prefix): value for name, value in load_file(path).items()}


def fill(own: Mapping[str, Parameter], stored: Mapping[str, Tensor], folder: Path) -> None:
    """Copy `stored` into the parameters of the same names.

    Raises:
        BaseModelError: a name is missing or too many, or a shape differs; nothing was changed.
    """
    import torch

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
