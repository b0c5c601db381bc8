"""What a run leaves behind, written as it happens: settings, manifest, rows, steps, checkpoints, weights, predictions, reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewright.core.configuration import as_yaml
from tunewright.core.errors import BaseModelError, StorageError
from tunewright.core.runs import RunFolder
from tunewright.core.storage import read_json, sha256_of, write_folder, write_json, write_text
from tunewright.core.surroundings import code_hash, machine, versions
from tunewright.data.ledger import Findings, Ledger
from tunewright.data.reading import Dataset
from tunewright.data.stored import read_rows, write_rows
from tunewright.evaluation import predictions
from tunewright.evaluation.report.card import render_card
from tunewright.evaluation.report.html import render_html
from tunewright.evaluation.report.schema import Report
from tunewright.evaluation.task import Answer
from tunewright.methods._saved import save_tuning as write_tuning
from tunewright.run import choice
from tunewright.run.workshop import Workshop
from tunewright.training import checkpoints
from tunewright.training.around import Best
from tunewright.training.loop import Step

SPLITS = ("train", "validation", "test")
TOLD = ("reward", "kl", "length", "constant_groups")  # of what a step measured on its own


def begin(shop: Workshop) -> None:
    """Make the folder a run: rows first, so that a folder that is a run can always be resumed."""
    folder = shop.folder
    if not shop.placement.leads:
        return
    folder.data.mkdir(exist_ok=True)
    for split in SPLITS:
        write_rows(folder.data / f"{split}.jsonl", getattr(shop.dataset, split))
    shop.dataset.ledger.write(folder.data / "ledger.jsonl")
    write_json(folder.data / "findings.json", {"shape": shop.dataset.shape, **shop.dataset.findings.as_dict()})
    folder.start(as_yaml(shop.run), _manifest(shop))


def _manifest(shop: Workshop) -> dict[str, Any]:
    hashes = {f"data/{split}": sha256_of(shop.folder.data / f"{split}.jsonl") for split in SPLITS}
    beside = {f"beside/{name}": other.stamp for name, other in shop.engine.beside.items()}
    hashes |= choice.keep(shop.tuning, shop.folder) | shop.aided.keep(shop.folder)
    return {
        "hashes": {**hashes, "base": shop.model.fingerprint, "code": code_hash(), **beside},
        "versions": versions(),
        "machine": machine(),
        "layout": shop.probed._asdict() | {"difference": min(shop.probed.difference, 1e9)},
        "reasons": shop.reasons,
        "estimate": shop.estimate.as_dict(),
        "base_validation": shop.base_validation,
        "seconds": shop.seconds,
        "warnings": shop.warnings,
    }


def update(shop: Workshop) -> None:
    """Write the manifest anew, with what is known by now."""
    if shop.placement.leads:
        write_json(shop.folder.path / "manifest.json", _manifest(shop))


def kept_dataset(folder: RunFolder) -> Dataset:
    """The rows as the run kept them; the user's own file is not looked at again."""
    hashes = folder.manifest["hashes"]
    for split in SPLITS:
        path = folder.data / f"{split}.jsonl"
        if sha256_of(path) != hashes[f"data/{split}"]:
            raise StorageError("the rows that the run kept have changed since it began", where=str(path), hint="Start a new run.")
    rows = {split: read_rows(folder.data / f"{split}.jsonl") for split in SPLITS}
    findings = read_json(folder.data / "findings.json")
    return Dataset(**rows, shape=findings["shape"], ledger=Ledger.read(folder.data / "ledger.jsonl"), findings=Findings(**findings))


def carry_on(shop: Workshop) -> None:
    """Take up what the manifest of a stopped run says, after checking that the base and the models beside it are still the same."""
    kept = shop.folder.manifest
    if kept["hashes"]["base"] != shop.model.fingerprint:
        raise BaseModelError(
            "the base has changed since the run began", where=shop.run.base, hint="Put the old one back, or start a new run."
        )
    for name, other in shop.engine.beside.items():
        if kept["hashes"].get(f"beside/{name}", other.stamp) != other.stamp:
            problem = "the model that the run asks has changed since it began"
            raise BaseModelError(problem, where=name, hint="Put the old one back, or start a new run.")
    for name in ("torch", "transformers"):
        then, now = kept["versions"].get(name), versions().get(name)
        if then != now:
            shop.warn(f"{name} was {then} when the run began and is {now} now: the result may differ in the last bits.")
    if kept["machine"]["processor"] != machine()["processor"]:
        shop.warn("The run began on another processor: the result may differ in the last bits.")
    shop.reasons = kept["reasons"] | shop.reasons
    shop.base_validation = kept["base_validation"]
    shop.warnings = list(dict.fromkeys([*kept["warnings"], *shop.warnings]))
    for title, seconds in kept["seconds"].items():
        shop.seconds[title] = shop.seconds.get(title, 0.0) + seconds


def log(shop: Workshop, step: Step) -> None:
    """One line in `steps.jsonl`, and word to the narrator.

    Raises:
        StorageError: the disk is full; the last checkpoint is untouched.
    """
    try:
        shop.folder.log(step.as_dict())
    except OSError as error:
        hint = f"Free space, then continue: tunewright resume {shop.folder.path}"
        raise StorageError(f"could not be written ({error.strerror})", where=str(shop.folder.steps), hint=hint) from error
    facts: dict[str, Any] = {
        **{name: step.facts[name] for name in TOLD if name in step.facts},
        "loss": step.loss,
        "learning_rate": step.learning_rate,
        "tokens_per_second": step.tokens / max(step.seconds, 1e-9),
    }
    shop.narrator.progress(
        step.number, shop.plan.total, facts | {f"validation {name}": value for name, value in step.validation.items()}
    )


def checkpoint(shop: Workshop, step: Step, best: Best) -> None:
    """A checkpoint of this step. A disk that is full does not end the run: the last good one stays, and the user is told."""
    try:
        checkpoints.save(shop.folder.checkpoints, step, shop.engine, best, shop.placement)
    except StorageError as error:
        shop.warn(f"The checkpoint of step {step.number} could not be written: {error}")


def save_tuning(shop: Workshop) -> None:
    """The tuned weights: `adapter/` in PEFT's format, or `model/`; with the head, and the stamp of the base."""
    target = shop.folder.path / shop.tuning.folder_name

    def fill(place: Path) -> None:
        write_tuning(shop.tuning, place, shop.model)
        if shop.engine.head is not None and shop.has_new_head:
            shop.engine.head.save(place)

    heads = [shop.engine.head] if shop.engine.head is not None else []
    with shop.placement.written(shop.model.network, *heads):
        if shop.placement.leads and not target.exists():
            write_folder(target, fill)


def finish(shop: Workshop, report: Report, before: Sequence[Answer], after: Sequence[Answer]) -> None:
    """Predictions and the report in its three forms; `report.json` last, since it marks the run as finished."""
    folder = shop.folder
    if not shop.placement.leads:
        return
    predictions.write(folder.predictions / "test.jsonl", shop.dataset.test, before, after)
    update(shop)
    write_text(folder.path / "report.html", render_html(report))
    write_text(folder.path / "README.md", render_card(report))
    write_text(folder.path / "report.json", report.model_dump_json(indent=1) + "\n")


def curve(folder: RunFolder) -> list[Step]:
    """The logged steps as steps."""
    return [Step(**line) for line in folder.logged()]
