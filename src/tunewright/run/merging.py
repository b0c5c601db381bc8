"""Merging: an adapter put into its base's weights for good, verified before and after it is written.

Merged = attached is promised and therefore checked: the same probe rows go through the attached network, the merged one, and the
merged one as it is read back from the disk. Beyond a tolerance nothing is written.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from tunewright.core.errors import BaseModelError, RunFolderError, VerificationError
from tunewright.core.narrator import SILENT, Narrator
from tunewright.core.runs import MERGED
from tunewright.core.seeds import derive
from tunewright.core.storage import write_folder
from tunewright.data.forest import Segment, Tree
from tunewright.engine.engine import Engine
from tunewright.evaluation.opening import Opened, open_model
from tunewright.methods import Tuning
from tunewright.methods._saved import save_tuning
from tunewright.models import Model
from tunewright.models.loading import load_folder, quiet

READ_BACK = "what was written computes something else when it is read back"
TOLERANCE = 1e-4  # of the largest logit; float32 rounding of a rank-16 change gives 1e-6


class Merged(NamedTuple):
    """What was written, and how far its logits are from the attached network's (as a share of the largest)."""

    folder: Path
    difference: float
    parameters: int


def merge(name: str, out: Path, narrator: Narrator = SILENT, *, force: bool = False) -> Merged:
    """Put the adapter of a run (or an adapter folder) into its base and write a whole Hugging Face folder.

    Args:
        name: a run or an adapter.
        out: the folder to write; it must not exist.
        force: also when the base is not the one that the adapter was made on.

    Raises:
        RunFolderError: `out` exists.
        BaseModelError: there is no adapter to merge.
        VerificationError: merged and attached do not compute the same; nothing was written.
    """
    require_free(out)
    narrator.stage("Load the base and the adapter")
    opened = open_model(name, force=force)
    if opened.tuning is None:
        raise BaseModelError("has no adapter to merge: its weights are whole already", where=name, hint=_whole(opened))
    narrator.stage("Merge and compare")
    engine, trees = opened.engine, probe_trees(opened.model)
    attached = outputs(engine, trees)
    opened.tuning.merge()
    found = compare(attached, outputs(engine, trees), "merging changed what the network computes", name)
    narrator.say(f"merged = attached within {found:.1e}")
    narrator.stage("Write, read back and compare")
    facts = {"merged_from": name, "base": opened.settings.get("base", opened.model.base), "difference": found}
    write_whole(opened, out, attached, facts)
    return Merged(out, found, sum(parameter.numel() for parameter in opened.model.network.parameters()))


def require_free(out: Path) -> None:
    """Raise `RunFolderError` where something stands already in the place of what is to be written."""
    if out.exists() or out.is_symlink():
        raise RunFolderError("exists already; nothing is ever overwritten", where=str(out), hint="Choose another folder.")


def write_whole(opened: Opened, out: Path, wanted: Tensor, facts: Mapping[str, Any]) -> None:
    """Write the network as it stands as a whole Hugging Face folder, with its head and how it renders; read it back and compare.

    Args:
        wanted: its `outputs` on `probe_trees`.
        facts: where it comes from; kept in the folder's manifest.

    Raises:
        VerificationError: what was written computes something else; no folder is left.
    """
    model, engine, head = opened.model, opened.engine, opened.engine.head

    def fill(place: Path) -> None:
        with quiet():
            model.network.save_pretrained(place, safe_serialization=True)
            model.tokenizer.save_pretrained(place)
        if head is not None:
            head.save(place)
        if opened.settings:
            (place / MERGED).write_text(settings_text(opened), encoding="utf-8")
        back = Engine(load_folder(place, head=model.has_own_head), probed=engine.probed._replace(own_head=False), head=head)
        compare(wanted, outputs(back, probe_trees(model)), READ_BACK, str(out))

    out.parent.mkdir(parents=True, exist_ok=True)
    write_folder(out, fill, facts)


def write_adapter(opened: Opened, tuning: Tuning, out: Path, wanted: Tensor, facts: Mapping[str, Any]) -> None:
    """Write a tuning as it stands as an adapter, with the head beside it and how it renders; open it again and compare.

    Args:
        opened: whose head, settings and base it has.
        wanted: its `outputs` on `probe_trees`.
        facts: where it comes from; kept in the folder's manifest.

    Raises:
        VerificationError: what was written computes something else; no folder is left.
    """

    def fill(place: Path) -> None:
        save_tuning(tuning, place, opened.model)
        if opened.engine.head is not None:
            opened.engine.head.save(place)
        if opened.settings:
            (place / MERGED).write_text(settings_text(opened), encoding="utf-8")
        back = open_model(str(place))
        compare(wanted, outputs(back.engine, probe_trees(back.model)), READ_BACK, str(out))

    out.parent.mkdir(parents=True, exist_ok=True)
    write_folder(out, fill, facts)


def probe_trees(model: Model) -> list[Tree]:
    """A few random rows of several lengths, every position of which is looked at."""
    draw = random.Random(derive(0, "merge"))
    longest = min(48, (model.context or 48) // 2)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, model.vocabulary) for _ in range(count))

    trees = []
    for count in (longest, longest // 2, 5):
        drawn = tokens(count)
        if model.kind == "encoder_decoder":
            answer = Segment(tokens(7), 0, (1.0,) * 7)
            trees.append(Tree((Segment(drawn, None, (0.0,) * count), answer)))
        else:
            trees.append(Tree((Segment(drawn, None, (0.0, *[1.0] * (count - 1))),)))
    return trees


def outputs(engine: Engine, trees: list[Tree]) -> Tensor:
    """What is compared: class logits with a head, hidden states of a bare encoder, logits at every target otherwise; float32."""
    with engine.evaluating():
        batch = engine.collate(trees)
        if engine.head is not None:
            return engine.label_logits(batch).float()
        if engine.model.kind == "encoder":
            hidden = engine.hidden(batch)
            return torch.cat([hidden[start:end] for start, end in batch.spans_S2.tolist()]).float()
        return engine.target_logits(batch).float()


def compare(attached: Tensor, merged: Tensor, problem: str, where: str) -> float:
    """How far two outputs are apart, as a share of the largest value.

    Raises:
        VerificationError: further than `TOLERANCE`; `problem` says what that means.
    """
    difference = float((merged - attached).abs().max() / attached.abs().max().clamp_min(1e-9))
    if not difference <= TOLERANCE:
        hint = "Nothing was written. Use the adapter as it is (`generate`, `evaluate` and PEFT can)."
        raise VerificationError(
            f"{problem} (by {difference:.1e} of the largest value, limit {TOLERANCE:.0e})", where=where, hint=hint
        )
    return difference


def _whole(opened: Opened) -> str:
    return f"The folder is {opened.model.folder}." if opened.model.folder is not None else "Use it as it is."


def settings_text(opened: Opened) -> str:
    """What of the run file goes on holding: how rows are read, rendered and answered; no paths of the data."""
    settings = opened.settings
    kept: dict[str, Any] = {
        key: settings[key] for key in ("base", "method", "objective", "rendering", "evaluation") if key in settings
    }
    kept["data"] = {"shape": opened.shape, "columns": settings.get("data", {}).get("columns", {})}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
