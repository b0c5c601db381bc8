"""Task arithmetic: what several runs changed in one base, added and subtracted, as one model.

theta = theta_0 + sum_i w_i (theta_i - theta_0). Weights that add up to 1 average runs of one task (a model soup); a negative weight
takes away what a run learned. Adapters are merged one after the other, so methods may differ, and one network is held beside base
and sum. LoRAs can be made into one LoRA instead.

Source: Ilharco et al., "Editing Models with Task Arithmetic", arXiv 2212.04089; Wortsman et al., "Model soups", arXiv 2203.05482.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.core.narrator import SILENT, Narrator
from tunewright.core.runs import settings_of
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.evaluation.opening import Opened, load_base, open_model
from tunewright.methods._arithmetic import Sum
from tunewright.methods._lora_arithmetic import concatenation, svd
from tunewright.methods._lora_tuning import LowRankTuning
from tunewright.methods._saved import method_of, require_base
from tunewright.methods._selection import own_parameters
from tunewright.methods.lora import LoRATuning
from tunewright.models import Model
from tunewright.models.sources import folder_of, resolve
from tunewright.run.merging import outputs, probe_trees, require_free, write_adapter, write_whole


class Combined(NamedTuple):
    """What was written, how many weights (tensors) it changes, and what a reader must know."""

    folder: Path
    changed: int
    notes: tuple[str, ...]


class Term(NamedTuple):
    """A run, and what its change is multiplied by."""

    run: str
    weight: float


def combine(terms: Sequence[Term], out: Path, narrator: Narrator = SILENT, *, force: bool = False) -> Combined:
    """Add what runs of one base changed, each times its weight, and write a whole model.

    Args:
        terms: runs or adapters; the first one's way of rendering rows is the combined model's.
        out: the folder to write; it must not exist.
        force: also when fingerprints say that the bases differ.

    Raises:
        ConfigurationError: there is no run.
        RunFolderError: `out` exists.
        BaseModelError: the runs have different bases, or one answers through a head of its own.
        VerificationError: what was written computes something else when it is read back.
    """
    _require_some(terms)
    require_free(out)
    narrator.stage("Load the base")
    asked = _base_of(terms[0].run)
    base = load_base(asked)
    total, whole = Sum(own_parameters(base)), None
    for name, weight in terms:
        narrator.stage(f"Add {weight:g} times {name}")
        opened = open_model(name, force=force)
        _refuse_head(opened)
        if not force:
            _same_base(opened, base, terms[0].run)
        if opened.tuning is not None:
            opened.tuning.merge()
        total.add(own_parameters(opened.model), weight, name)
        if whole is None:
            probed = probe(base)
            whole = replace(opened, model=base, engine=Engine(base, probed=probed), probed=probed, tuning=None)
    assert whole is not None
    total.put(own_parameters(base))
    narrator.stage("Write, read back and compare")
    write_whole(whole, out, outputs(whole.engine, probe_trees(base)), _facts(terms, asked))
    return Combined(out, total.changed(), _differing(terms))


def combine_adapters(
    terms: Sequence[Term], out: Path, narrator: Narrator = SILENT, *, rank: int | None = None, force: bool = False
) -> Combined:
    """Add what LoRAs of one base changed, each times its weight, and write one LoRA. Args and errors as `combine`, and:

    Args:
        rank: of what is written: the nearest LoRA of this rank. The sum of theirs when not given, which is exact.

    Raises:
        ConfigurationError: one is of another method, or a LoRA with magnitudes of its own.
    """
    _require_some(terms)
    require_free(out)
    narrator.stage("Load the base and the adapters")
    opened = open_model(terms[0].run, force=force)
    _refuse_head(opened)
    tunings: list[LowRankTuning] = []
    for name, _ in terms:
        place = resolve(name).adapter
        method = None if place is None else method_of(place)
        if place is None or method is None:
            raise _no_lora(name)
        if not force:
            require_base(place, opened.model, name)
        tuning = opened.tuning if not tunings else method.attach(opened.model, 0)
        if not isinstance(tuning, LowRankTuning):
            raise _no_lora(name)
        if tunings:
            tuning.load(place)
        tunings.append(tuning)
    weights = [weight for _, weight in terms]
    made = concatenation(tunings, weights) if rank is None else svd(tunings, weights, rank)
    made = _alone(made, tunings)
    narrator.stage("Write, read back and compare")
    wanted = outputs(opened.engine, probe_trees(opened.model))
    write_adapter(opened, made, out, wanted, _facts(terms, _base_of(terms[0].run)))
    return Combined(out, len(made.layers), _differing(terms))


@torch.no_grad()
def _alone(made: LoRATuning, others: Sequence[LowRankTuning]) -> LoRATuning:
    """The same LoRA on the base without those that it was made of, as the first and only tuning there."""
    values = {name: value.clone() for name, value in made.state()}
    for tuning in (*others, made):
        tuning.detach()
    again = made.method.attach(made.model, 0)
    for name, parameter in again.parameters().items():
        parameter.copy_(values[name])
    return again


def _require_some(terms: Sequence[Term]) -> None:
    if not terms:
        raise ConfigurationError("there is no run to combine", where="combine", hint="Name one or more runs.")


def _no_lora(name: str) -> ConfigurationError:
    return ConfigurationError("is no LoRA, and only LoRAs are made into one", where=name, hint="Write a whole model instead.")


def _refuse_head(opened: Opened) -> None:
    if opened.engine.head is not None:
        hint = "Tune with `objective: {name: classification, head: words}` to add what classifiers learned."
        problem = "answers through a head of its own, which no base has: it cannot be added"
        raise BaseModelError(problem, where=opened.name, hint=hint)


def _base_of(name: str) -> str:
    base = settings_of(name).get("base") or resolve(name).base_of_adapter
    if not base:
        raise BaseModelError("does not say which base it was tuned from", where=name, hint="Name a run, or an adapter.")
    return str(base)


def _same_base(opened: Opened, base: Model, first: str) -> None:
    """Refuse a run that was tuned from another base than the first one."""
    own = opened.model.fingerprint
    if opened.tuning is None:
        require_base(folder_of(opened.name), base, opened.name)
    elif own != base.fingerprint:
        raise BaseModelError(
            f"was tuned from another base than {first} (fingerprint {own[:12]}, not {base.fingerprint[:12]})",
            where=opened.name,
            hint="Only changes of one base can be added.",
        )


def _facts(terms: Sequence[Term], base: str) -> dict[str, Any]:
    return {"combined_from": [term._asdict() for term in terms], "base": base}


def _differing(terms: Sequence[Term]) -> tuple[str, ...]:
    """What the combined model cannot have of all: how rows are rendered, and what was asked of them."""
    first, found = settings_of(terms[0].run), dict[str, None]()
    for name, _ in terms[1:]:
        other = settings_of(name)
        for key in ("objective", "rendering"):
            if first.get(key) != other.get(key):
                found[f"{terms[0].run} and {name} differ in {key}: the combined model has the first one's."] = None
    return tuple(found)
