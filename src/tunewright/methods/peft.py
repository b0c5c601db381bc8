"""Every other method of the PEFT library, as the library computes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError, ConfigurationError, UnknownNameError
from tunewright.core.seeds import derive
from tunewright.methods import Method, Tuning, room
from tunewright.methods._saved import PEFT_WEIGHTS, PREFIX, peft_places, read_peft, read_tensors, write_tensors

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.nn import Parameter

    from tunewright.models import Model

SERVED = (
    *(
        "ADAMSS",
        "BEFT",
        "BOFT",
        "C3A",
        "DEFT",
        "DELORA",
        "FOURIERFT",
        "FROD",
        "GLORA",
        "GRALORA",
        "HIRA",
        "HRA",
        "LILY",
        "LN_TUNING",
    ),
    *("LOHA", "LOKR", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "PVERA", "RANDLORA", "ROAD", "SHIRA", "SUPERTUNING", "TINYLORA"),
    *("TRAINABLE_TOKENS", "UNILORA", "VBLORA", "WAVEFT"),
)
"""The types of PEFT that were tried here and pass."""

_WHOLE_MODEL = "it changes how PEFT calls the whole network and not single layers of it"
_REFUSED = {
    **dict.fromkeys(("ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "SHADOW"), _WHOLE_MODEL),
    "POLY": "it asks for the number of a task with every row",
    "XLORA": "it mixes adapters that are trained already",
}
_PLACES = {"LN_TUNING": ("norm",), "TRAINABLE_TOKENS": ("embedding",)}  # where a type stands when nothing is said; else `linear`


class Peft(Method):
    """Trains any method of the PEFT library that has no entry of its own, with the library's own layers.

    `type` is what PEFT calls it (`LOHA`), `settings` are the fields of its configuration class, checked against it. PEFT puts its
    layers around those that `targets` name; rows are padded, as the library expects.

    Source: Mangrulkar et al., "PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods", github.com/huggingface/peft; each
    type's documentation there names its paper.
    Cost: the parameters of the type; LOHA has 2 * r * (inputs + outputs) a layer. Time is the library's: no product is shared
    between layers or tunings, and rows are padded.
    Use when: a method is wanted that only PEFT has. Avoid when: an entry of its own serves, which is faster and can stand beside
    others on one base.
    Raises: `ConfigurationError` for an unknown type, key or value, for a layer that the type cannot stand on, and for a target that
    matches nothing; on merging, where the type cannot be merged.
    """

    default_learning_rate: ClassVar[float] = 1e-3
    starts_at_base: ClassVar[bool] = (
        False  # C3A, FOURIERFT, UNILORA and VBLORA start beside it, unless their settings say otherwise
    )
    layouts: ClassVar[tuple[str, ...]] = ("padded", "sequence_to_sequence")

    type: str = Field(description="PEFT's name of the method, such as LOHA, OFT or LN_TUNING")
    targets: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="sites, module names or patterns; the type's own when not given"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="fields of PEFT's configuration class and their values")

    @field_validator("targets", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("type")
    @classmethod
    def _served(cls, value: str) -> str:
        """The type in PEFT's spelling; nothing of PEFT is loaded to know it."""
        kind = value.upper().replace("-", "_")
        if kind in SERVED:
            return kind
        own = {entry.peft_type: name for name in room.names() if name != "peft" and (entry := room[name]).peft_type is not None}
        if kind in own:
            raise ConfigurationError(f"{kind} has an entry of its own", hint=f"Write `method: {own[kind]}`.")
        if kind in _REFUSED:
            raise ConfigurationError(f"{kind} is not served: {_REFUSED[kind]}", allowed=SERVED)
        raise UnknownNameError(f"no type '{value}' of PEFT is served", allowed=SERVED, given=kind)

    def attach(self, model: Model, seed: int) -> PeftTuning:
        """Let PEFT put its layers around the targets and freeze everything else.

        Raises:
            ConfigurationError: another tuning stands on the model, or PEFT refuses a setting or a layer.
        """
        from tunewright.methods._peft import configuration, injected

        if model.lanes.members:
            raise ConfigurationError(
                "PEFT's layers change every row, so they cannot stand beside another tuning",
                where="method",
                hint="Detach it first.",
            )
        hosts = model.sites(*(self.targets or _PLACES.get(self.type, ("linear",))))
        config = configuration(self.type, self.settings, hosts, model)
        return PeftTuning(model, self, injected(model, config, hosts, derive(seed, "peft", self.type)))

    @classmethod
    def from_folder(cls, folder: Path) -> Peft:
        """The method that a folder in PEFT's format describes, at exactly the places that its tensors name."""
        from tunewright.methods._peft import given_settings, word_of

        facts = read_peft(folder)
        kind = str(facts.get("peft_type"))
        if kind not in SERVED:
            raise BaseModelError(f"the adapter is of type {kind}", where=str(folder), allowed=SERVED, given=kind)
        named = facts.get("target_modules")
        # Tensors that layers share name no layer, and those of tied tables name the tie as well.
        if kind in ("TRAINABLE_TOKENS", "UNILORA") and isinstance(named, list):
            targets = tuple(map(str, named))
        else:
            targets = peft_places(folder, word_of(kind))
        return build(cls, {"type": kind, "targets": targets, "settings": given_settings(kind, facts, folder)}, str(folder))


class PeftTuning(Tuning):
    """What PEFT has put on a network.

    Args:
        wrapped: PEFT's object around the network, which itself was changed in place.

    Attributes:
        slot: its number among the tunings on the model; no other may join.
    """

    def __init__(self, model: Model, method: Peft, wrapped: PeftModel) -> None:
        self.model, self.method, self.wrapped = model, method, wrapped
        self.slot = model.lanes.open()
        self._gone = self._off = False
        self._trained = {
            name.removeprefix(PREFIX).replace(".default", ""): parameter
            for name, parameter in wrapped.named_parameters()
            if parameter.requires_grad
        }

    @property
    def _tuner(self) -> Any:
        """PEFT's object for the type, which switches, merges and unloads its layers."""
        return self.wrapped.base_model

    def parameters(self) -> dict[str, Parameter]:
        """What PEFT trains, by its names without the adapter's; what layers share stands there once."""
        return {} if self._gone else dict(self._trained)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Within the context the network computes what the base computes."""
        if self._off or self._gone:  # PEFT would switch its layers on again at the end of an inner context
            yield
            return
        flags = {parameter: parameter.requires_grad for parameter in self.wrapped.parameters()}
        self._tuner.disable_adapter_layers()
        self._off = True
        try:
            yield
        finally:
            self._tuner.enable_adapter_layers()
            self._off = False
            for parameter, flag in flags.items():  # PEFT freezes what it switches off and trains what it switches on
                parameter.requires_grad_(flag)

    def merge(self) -> None:
        """Let PEFT put the change into the base's own weights, and leave.

        Raises:
            ConfigurationError: PEFT cannot merge this type, or not on this base; its reason is given, and the tuning still stands.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        from tunewright.methods._peft import OBJECTIONS, quietly, reason

        head, table = self.model.network.get_output_embeddings(), self.model.network.get_input_embeddings()
        if (
            head is not None
            and hasattr(head, "base_layer")
            and self.method.type != "TRAINABLE_TOKENS"
            and head.weight is table.weight
        ):
            raise ConfigurationError(
                "the head shares its weight with the embeddings, which merging would change too", where="merge"
            )
        try:
            with quietly():
                self._tuner.merge_adapter()
        except OBJECTIONS as error:
            for layer in self.wrapped.modules():
                if isinstance(layer, BaseTunerLayer) and layer.merged:  # those before the one that could not be
                    layer.unmerge()
            hint = "Use the adapter as it is (`generate`, `evaluate` and PEFT can)."
            raise ConfigurationError(
                f"PEFT cannot merge {self.method.type} here ({reason(error)})", where="merge", hint=hint
            ) from error
        self.detach()

    def detach(self) -> None:
        """Leave the base, whose layers are in their places again; a second call does nothing."""
        from tunewright.methods._peft import quietly

        if self._gone:
            return
        with quietly():
            self._tuner.unload()
        for parameter in self.model.network.parameters():
            parameter.requires_grad_(False)
        self.model.lanes.close(self.slot)
        self._gone = True

    def save(self, folder: Path) -> None:
        """PEFT's format, with the configuration and the tensors that PEFT gives."""
        from tunewright.methods._peft import tensors_of, write_configuration

        write_tensors(folder / PEFT_WEIGHTS, tensors_of(self.wrapped))
        write_configuration(self.wrapped, folder)

    def load(self, folder: Path) -> None:
        """Read PEFT's format back into the layers that stand."""
        from tunewright.methods._peft import fill

        fill(self.wrapped, read_tensors(folder), folder)
