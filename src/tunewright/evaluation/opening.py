"""Opening what a user names - a base, a run, an adapter - as an engine that answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError
from tunewright.core.runs import settings_of
from tunewright.core.storage import read_json
from tunewright.data.rendering import Renderer, Rendering
from tunewright.engine.engine import Engine
from tunewright.engine.fused import fuse
from tunewright.engine.probe import Probed, probe
from tunewright.engine.settings import Sampling
from tunewright.evaluation.beside import Besides
from tunewright.evaluation.tuned import Tuned
from tunewright.methods import Method, Tuning
from tunewright.methods._saved import method_of, require_base
from tunewright.models import Model
from tunewright.models.heads import Head
from tunewright.models.loading import load, resolve
from tunewright.models.sources import folder_of
from tunewright.objectives import Objective
from tunewright.objectives import room as objectives
from tunewright.objectives.sft import SFT


@dataclass
class Opened:
    """A base or a tuned model, ready to answer.

    Args:
        tuning: the attached change, when `name` is a run or an adapter; None for a plain base.
        objective: what it was tuned for; `sft` for a plain base.
        settings: the resolved run file of a run, else empty.
        shape: of the rows that it was tuned on ("chat"); empty for a plain base.
    """

    name: str
    model: Model
    engine: Engine
    renderer: Renderer
    objective: Objective
    probed: Probed
    labels: tuple[str, ...] = ()
    tuning: Tuning | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    shape: str = ""

    def approach(self, sampling: Sampling) -> Tuned:
        """The model as an approach that answers rows."""
        return Tuned(self.engine, self.renderer, self.objective, labels=self.labels, sampling=sampling, name=self.name)


def open_model(name: str, *, force: bool = False) -> Opened:
    """Load a hub id, a folder, a run, an adapter or `embedded`, with everything it was tuned with.

    Args:
        force: use an adapter although its base is not the one it was made on.

    Raises:
        BaseModelError: it cannot be found, is damaged, or its base has changed since.
    """
    found = resolve(name)
    settings = settings_of(name)
    renderer_settings = build(Rendering, settings.get("rendering", {}))
    objective: Objective = objectives.make(settings["objective"]) if settings.get("objective") else SFT()
    tuning: Tuning | None = None
    layouts, room = Method.layouts, None
    if found.adapter is None:
        model = _loaded(name, own_head=objective.own_head)
        place = folder_of(found)
    else:
        place = found.adapter
        model = _base_of(name, found.base_of_adapter, settings, objective.own_head)
        if not force:
            require_base(place, model, name)
        method = method_of(place)
        if method is not None:
            tuning, layouts, room = method.attach(model, 0), method.layouts, method.text_room(model.context)
            tuning.load(place)
    head = Head.load(place) if (place / "head.json").is_file() else None
    probed = probe(model, layouts)
    engine = Engine(model, probed=probed, head=head)
    if tuning is not None:
        engine.first.disabled = tuning.disabled
    engine.beside = Besides(objective.others(), open_model, engine)  # opened when asked: to write, what was tuned needs none
    renderer = Renderer(model.tokenizer, model.kind, room or model.context, renderer_settings)
    labels = head.labels if head is not None else tuple((settings.get("objective") or {}).get("labels", ()))
    return Opened(name, model, engine, renderer, objective, probed, labels, tuning, settings, _shape(name, settings))


def _loaded(name: str, dtype: str = "float32", own_head: bool = False) -> Model:
    """The base as it is, with its norms and rotations in fewer passes over memory; its names and weights stay."""
    model = load(name, head=True if own_head else None, dtype=dtype)
    fuse(model.network)
    return model


def load_base(name: str, dtype: str = "float32", *, own_head: bool = False) -> Model:
    """What is tuned: a base as it is, or, where a run or an adapter is named, its tuned model with the adapter merged in memory.

    Args:
        dtype: of the weights in memory (`models.loading.load`); an adapter is merged in float32 only.
        own_head: an encoder is wanted with the head that it was pre-trained with.

    Raises:
        BaseModelError: it cannot be found, is damaged, or is an adapter that cannot be merged.
    """
    if resolve(name).adapter is None:
        return _loaded(name, dtype, own_head)
    if dtype != "float32":
        raise BaseModelError(
            f"is an adapter, and what it is merged into cannot be loaded as {dtype}",
            where=name,
            hint="Merge it first: tunewright merge.",
        )
    opened = open_model(name)
    if opened.tuning is None:
        raise BaseModelError("is not an adapter that can be merged into its base", where=name, hint="Name its base instead.")
    state = b"".join(value.cpu().contiguous().numpy().tobytes() for _, value in opened.tuning.state())
    opened.tuning.merge()
    stamp = hashlib.sha256(opened.model.fingerprint.encode() + state).hexdigest()
    return replace(opened.model, base=name, fingerprint=stamp)


def _shape(name: str, settings: dict[str, Any]) -> str:
    findings = Path(name) / "data" / "findings.json"
    if findings.is_file():
        return str(read_json(findings)["shape"])
    return str(settings.get("data", {}).get("shape") or "")


def _base_of(name: str, base: str | None, settings: dict[str, Any], own_head: bool) -> Model:
    asked = settings.get("base") or base
    if not asked:
        raise BaseModelError(
            "the adapter does not say which base it was made on", where=name, hint="Give it in adapter_config.json."
        )
    return load_base(asked, own_head=own_head)
