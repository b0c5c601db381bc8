"""What the entry `peft` asks of the PEFT library: its configuration classes checked, its layers put in, its tensors in and out."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import typing
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft
import torch
from peft import PeftType, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers.pytorch_utils import Conv1D

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.methods._saved import PEFT_TASKS

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor
    from torch.nn import Module

    from tunewright.models import Model

# What PEFT raises for settings and layers that do not fit; it has no root class of its own for them.
OBJECTIONS = (ValueError, TypeError, NotImplementedError, LookupError, AttributeError, AssertionError, RuntimeError, ImportError)
# Fields of PEFT's configuration classes that say something else than how the layers compute.
_SAID_ELSEWHERE = {
    **dict.fromkeys(("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"), ""),
    "inference_mode": "",
    "target_modules": "Use `targets`, which takes PEFT's names too.",
    "modules_to_save": "A new head comes with the objective; `method: selective` trains whole layers.",
    "bias": "The base's biases stay as they are; `method: bitfit` trains them.",
    "use_asa": "It needs calls of PEFT's own after each update; `method: adalora` allocates ranks.",
}


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """PEFT warns of what it corrects by itself, and of what transformers is about to rename."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def configuration(kind: str, settings: Mapping[str, Any], hosts: Mapping[str, Module], model: Model) -> PeftConfig:
    """PEFT's configuration of a type, for exactly the layers in `hosts`.

    Raises:
        ConfigurationError: a key that the class does not have, a value of another type, or one that PEFT objects to.
    """
    entry = _class_of(kind)
    known = {field.name for field in dataclasses.fields(entry)}
    hints = typing.get_type_hints(entry)
    given = {}
    for key, value in settings.items():
        where = f"method.settings.{key}"
        if key in _SAID_ELSEWHERE and key in known:
            raise ConfigurationError(
                f"'{key}' is not set here", where=where, hint=_SAID_ELSEWHERE[key] or "It follows from the run."
            )
        if key not in known:
            raise ConfigurationError(
                f"unknown key '{key}' of {kind}", where=where, allowed=sorted(known - set(_SAID_ELSEWHERE)), given=key
            )
        given[key] = _checked(value, hints[key], where)
    if "fan_in_fan_out" in known:
        given.setdefault("fan_in_fan_out", any(isinstance(host, Conv1D) for host in hosts.values()))
    if "progressbar" in known:
        given.setdefault("progressbar", False)
    given |= {"task_type": PEFT_TASKS[model.kind], "base_model_name_or_path": model.base, "target_modules": sorted(hosts)}
    try:
        with quietly():
            return entry(**given)
    except OBJECTIONS as error:
        raise ConfigurationError(f"PEFT refuses the settings of {kind} ({reason(error)})", where="method.settings") from error


def injected(model: Model, config: PeftConfig, hosts: Mapping[str, Module], seed: int) -> PeftModel:
    """The network of `model` with PEFT's layers in it, drawn from `seed` alone.

    Raises:
        ConfigurationError: PEFT cannot put this type there; the network is as it was.
    """
    network = model.network
    cuda = [network.device] if network.device.type == "cuda" else []
    flags = {parameter: parameter.requires_grad for parameter in network.parameters()}
    try:
        with torch.random.fork_rng(devices=cuda), quietly():
            torch.manual_seed(seed)
            wrapped = get_peft_model(network, config)
        left = [path for path, host in hosts.items() if network.get_submodule(path) is host]
        if left:
            raise ValueError(f"'{left[0]}' was passed over, a {type(hosts[left[0]]).__name__}")
        return wrapped  # pyright: ignore[reportReturnType]
    except OBJECTIONS as error:
        for path, host in hosts.items():
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, host)
        network.__dict__.pop("peft_config", None)
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        raise ConfigurationError(
            f"PEFT cannot put it on these layers ({reason(error)})", where="method", hint="Choose other `targets` or another type."
        ) from error


def _class_of(kind: str) -> type[PeftConfig]:
    entry = PEFT_TYPE_TO_CONFIG_MAPPING.get(PeftType.__members__.get(kind))  # pyright: ignore[reportArgumentType, reportCallIssue]
    if entry is None:
        raise ConfigurationError(
            f"the installed PEFT {peft.__version__} has no {kind}", where="method.type", hint="pip install --upgrade peft"
        )
    return entry


def _checked(value: Any, hint: Any, where: str) -> Any:
    # Numbers are not made of texts, but names of an enumeration are texts in a run file, so these may be.
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(
            value, strict=not _names_enum(hint)
        )
    except ValidationError as error:
        detail = error.errors()[0]
        said = detail["msg"].removeprefix("Input ")
        raise ConfigurationError(f"{said[0].lower()}{said[1:]}, got {value!r} ({type(value).__name__})", where=where) from None


def _names_enum(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return True
    return any(_names_enum(argument) for argument in typing.get_args(hint))


def reason(error: Exception) -> str:
    """The first line of what PEFT says."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")


def word_of(kind: str) -> str:
    """What the names of a type's tensors begin with, behind the path of their layer."""
    return PEFT_TYPE_TO_TUNER_MAPPING[PeftType[kind]].prefix


def given_settings(kind: str, facts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings that a saved configuration says and that are not the class's own.

    Raises:
        BaseModelError: it uses an option that is not computed here.
    """
    fields = {field.name: field for field in dataclasses.fields(_class_of(kind))}
    found, used = {}, []
    for key, value in facts.items():
        if key in ("bias", "modules_to_save", "use_asa"):
            used += [key] if value not in (None, False, "none", []) else []
        elif key in fields and key not in _SAID_ELSEWHERE and value != _plain(fields[key]):
            found[key] = value
        elif key not in fields and value not in (None, False, [], {}):
            used.append(key)
    if used:
        raise BaseModelError(
            f"the adapter uses {', '.join(sorted(used))}, which is not supported",
            where=str(folder),
            hint="Merge it with PEFT first.",
        )
    return found


def _plain(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def tensors_of(wrapped: PeftModel) -> dict[str, Tensor]:
    """What PEFT would save, by its names."""
    with quietly():
        found = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return {name: value.detach().clone() for name, value in found.items()}


def fill(wrapped: PeftModel, stored: dict[str, Tensor], folder: Path) -> None:
    """Let PEFT put saved tensors into its layers.

    Raises:
        BaseModelError: names or shapes differ from those of the layers that stand; nothing was changed.
    """
    own = tensors_of(wrapped)
    if set(own) != set(stored):
        odd = sorted(set(own) ^ set(stored))[0]
        raise BaseModelError(
            f"the adapter and this base do not have the same places (first difference: '{odd}')", where=str(folder)
        )
    for name, value in own.items():
        if value.shape != stored[name].shape:
            given = tuple(stored[name].shape)
            raise BaseModelError(f"'{name}' is {given} in the adapter and {tuple(value.shape)} here", where=str(folder))
    with quietly():
        set_peft_model_state_dict(wrapped, stored)


def write_configuration(wrapped: PeftModel, folder: Path) -> None:
    """PEFT's `adapter_config.json`, as of an adapter that only answers."""
    config: Any = wrapped.peft_config["default"]
    config.inference_mode = True
    try:
        config.save_pretrained(str(folder))
    finally:
        config.inference_mode = False
