"""The account of a run: everything that happened, put into the shape of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tunewright.core.surroundings import code_hash, machine, versions
from tunewright.core.units import count_text
from tunewright.data.ledger import Findings
from tunewright.data.replay import GENERAL, is_replayed
from tunewright.data.rows import Row
from tunewright.evaluation import predictions
from tunewright.evaluation.measuring import LOSS, by_task, direction, in_percent, measures, retained, title
from tunewright.evaluation.report.labels import confusion_tables, label_report, scatter
from tunewright.evaluation.report.schema import (
    Cost,
    Curves,
    Data,
    Environment,
    Finding,
    Lengths,
    Measure,
    Report,
    Rows,
    Series,
    Settings,
    Subject,
    Targets,
    Weights,
)
from tunewright.evaluation.report.verdict import judge
from tunewright.evaluation.task import Answer
from tunewright.methods import room as methods
from tunewright.methods._saved import OWN_CONFIG
from tunewright.objectives import Task
from tunewright.objectives import room as objectives
from tunewright.run.workshop import Workshop
from tunewright.training.around import Best
from tunewright.training.estimate import peak_memory

OWN = {"reward": "Mean reward of drawn answers", "kl": "KL to the base (nats a token)", "length": "Length of answers (tokens)"}
"""What of the steps' own measurements is drawn as a curve."""
PARAGRAPH = 25  # words of the median answer from which on an exact match says little


def account(shop: Workshop, best: Best, before: Sequence[Answer], after: Sequence[Answer]) -> Report:
    """The report of a finished run.

    Args:
        before, after: what the baseline and the tuned model answered to the test rows.
    """
    found = _measured(shop, before, after)
    note = shop.guess.note if shop.guess is not None else ""
    curves, task = _curves(shop, best), shop.objective.task
    return Report(
        name=shop.folder.path.name,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        verdict=judge(found, curves, note),
        subject=_subject(shop),
        measures=found,
        baseline_note=note,
        curves=curves,
        data=data_of(shop.run.data.source, shop.dataset.findings),
        targets=_targets(shop),
        rows=_rows(shop.dataset.test, task, before, after),
        confusion=confusion_tables(task, shop.dataset.test, before, after),
        settings=Settings(values=shop.run.model_dump(mode="json"), reasons=shop.reasons),
        environment=Environment(machine=machine(), versions=versions(), hashes=_hashes(shop)),
        cost=_cost(shop),
        warnings=tuple(shop.warnings),
    )


def _rows(rows: Sequence[Row], task: Task, before: Sequence[Answer], after: Sequence[Answer]) -> Rows:
    parts = {"by_label": label_report(task, rows, before, after), "scatter": scatter(task, rows, after)}
    return predictions.best_and_worst(rows, before, after).model_copy(update=parts)


def _measured(shop: Workshop, before: Sequence[Answer], after: Sequence[Answer]) -> tuple[Measure, ...]:
    """The measures of the test rows; the verdict is about the first, which is the user's own choice where there is one."""
    rows, parts = shop.dataset.test, shop.dataset.findings.parts
    if not rows:
        return ()
    held_out = {name for name, facts in parts.items() if facts["held_out"]}
    task_of = {place: row.metadata.get("task") for place, row in enumerate(rows)} if parts else {}
    general = [place for place, row in enumerate(rows) if is_replayed(row)]

    def of(chosen: Sequence[int]) -> list[Measure]:
        asked = [rows[place] for place in chosen]
        return measures(shop.metrics, [before[place] for place in chosen], [after[place] for place in chosen], asked, shop.run.seed)

    # The verdict is about what was tuned for; tasks that are held out, and what was not to be lost, stand beside it.
    whole = [place for place, row in enumerate(rows) if task_of.get(place) not in held_out and not is_replayed(row)]
    found = of(whole) if whole else []
    # Which of two answers is better can be matched, however long they are.
    if whole and not shop.run.evaluation.metrics and shop.objective.task not in ("preference", "reward"):
        found = telling_first(found, [rows[place].target_text() for place in whole])
    for name in parts:
        chosen = [place for place, task in task_of.items() if task == name]
        found += by_task(of(chosen), name, name in held_out) if chosen else []
    if len(held_out) > 1:
        found += by_task(of([place for place, task in task_of.items() if task in held_out]), "all tasks", held_out=True)
    return tuple(found + retained(of(general), GENERAL)) if general else tuple(found)


def telling_first(found: Sequence[Measure], references: Sequence[str]) -> list[Measure]:
    """The measures with the most telling one first: the loss, where answers are paragraphs that nobody matches word for word."""
    words = sorted(len(reference.split()) for reference in references)
    paragraphs = words[len(words) // 2] > PARAGRAPH
    return sorted(found, key=lambda measure: paragraphs and measure.metric != LOSS)


def _subject(shop: Workshop) -> Subject:
    model, precision = shop.model, str(shop.engine.precision)
    settings = ", ".join(f"{key} {value}" for key, value in shop.run.method.model_dump(mode="json", exclude_defaults=True).items())
    size = f"{count_text(shop.estimate.parameters)} parameters"
    held = shop.run.training.base_precision
    precision += "" if held == "auto" else f", frozen layers in {held}"
    return Subject(
        base=shop.run.base,
        base_description=f"{model.family} {model.kind.replace('_', '-')}, {size}, {precision}",
        method=methods.name_of(shop.run.method),
        method_description=settings,
        objective=objectives.name_of(shop.objective),
        task=shop.objective.task,
        weights=_weights(shop),
        kind=model.kind,
        head=shop.has_new_head,
        merges=shop.tuning.merges,
    )


def _weights(shop: Workshop) -> Weights:
    """Where what was tuned is kept, and in whose format: as the run has saved it by now."""
    if shop.tuning.folder_name == "model":
        return "full_model"
    return "own_adapter" if (shop.folder.path / "adapter" / OWN_CONFIG).is_file() else "peft_adapter"


def _curves(shop: Workshop, best: Best) -> Curves:
    steps = shop.folder.logged()
    numbers = tuple(step["number"] for step in steps)
    names = list(dict.fromkeys([*shop.base_validation, *(name for step in steps for name in step["validation"])]))
    return Curves(
        train_loss=Series(title="Training loss", steps=numbers, values=tuple(step["loss"] for step in steps)),
        validation=tuple(_validation(name, shop.base_validation, steps) for name in names),
        measured=tuple(_own(name, steps) for name in OWN if any(name in step.get("facts", {}) for step in steps)),
        learning_rate=Series(title="Learning rate", steps=numbers, values=tuple(step["learning_rate"] for step in steps)),
        gradient_norm=Series(title="Gradient norm", steps=numbers, values=tuple(step["gradient_norm"] for step in steps)),
        kept_step=best.step or None,
    )


def _validation(name: str, base: Mapping[str, float], steps: Sequence[Mapping[str, Any]]) -> Series:
    points = [(0, base[name])] if name in base else []
    points += [(step["number"], step["validation"][name]) for step in steps if name in step["validation"]]
    return Series(
        title=f"Validation {title(name)}",
        steps=tuple(number for number, _ in points),
        values=tuple(value for _, value in points),
        higher_is_better=direction(name),
        percent=in_percent(name),
    )


def _own(name: str, steps: Sequence[Mapping[str, Any]]) -> Series:
    points = [(step["number"], step["facts"][name]) for step in steps if name in step["facts"]]
    numbers, values = zip(*points, strict=True)
    return Series(title=OWN[name], steps=numbers, values=values)


def data_of(source: str, findings: Findings) -> Data:
    """What the data room found, in the words of the report."""
    groups: dict[str, list[Finding]] = {"duplicates": [], "leakage": [], "other": []}
    for name, facts in findings.found.items():
        if facts["found"]:
            place = "leakage" if "leak" in name else "duplicates" if "duplicate" in name else "other"
            action = (
                f"{facts['dropped']} dropped"
                if facts["dropped"]
                else "kept, on one side of each split"
                if place == "duplicates"
                else "kept"
            )
            examples = tuple(_example(example) for example in facts["examples"])
            groups[place].append(Finding(name=name.replace("_", " "), count=facts["found"], examples=examples, action=action))
    dropped = tuple(
        Finding(
            name=kind.replace("_", " "),
            count=facts["count"],
            examples=tuple(_example(one) for one in facts["examples"]),
            action="dropped",
        )
        for kind, facts in findings.dropped.items()
    )
    lengths = {
        split: Lengths(
            shortest=0,
            median=sides["input"]["p50"],
            percentile_95=sides["input"]["p95"],
            longest=sides["input"]["max"],
            unit="characters of input",
        )
        for split, sides in findings.lengths.items()
    }
    others = [f"{finding.name}: {finding.count} ({finding.action})" for finding in groups["other"]]
    return Data(
        source=source,
        shape=f"{findings.shape} ({findings.why})",
        read=sum(findings.read.values()),
        kept=sum(findings.kept.values()),
        splits=findings.kept,
        dropped=dropped,
        duplicates=tuple(groups["duplicates"]),
        leakage=tuple(groups["leakage"]),
        labels=findings.labels,
        lengths=lengths,
        notes=(*others, *findings.notes),
    )


def _example(example: Any) -> str:
    return example if isinstance(example, str) else "; ".join(str(value) for value in example.values())


def _targets(shop: Workshop) -> Targets:
    counts = shop.targets
    first = [shop.engine.collate(trees) for trees in shop.plan.micro_batches(0)]
    real = sum(tree.size for trees in shop.plan.micro_batches(0) for tree in trees)
    return Targets(
        rows=counts.rows,
        tokens=counts.tokens,
        trained_tokens=counts.trained,
        rows_without_targets=sum(entry.rows for entry in counts.refused),
        truncated_rows=counts.truncated_rows,
        packing_efficiency=min(1.0, real / sum(batch.tokens for batch in first)),
        layout=shop.probed.layout,
        layout_reason=shop.probed.reason,
        probe_difference=shop.probed.difference if shop.probed.difference < 1e9 else None,
    )


def _hashes(shop: Workshop) -> dict[str, str]:
    return {**shop.folder.manifest["hashes"], "base": shop.model.fingerprint, "code": code_hash()}


def _cost(shop: Workshop) -> Cost:
    steps = shop.folder.logged()
    tokens, seconds = sum(step["tokens"] for step in steps), sum(step["seconds"] for step in steps)
    return Cost(
        stages=shop.seconds,
        tokens=tokens,
        tokens_per_second=tokens / seconds if seconds else None,
        predicted_tokens_per_second=shop.estimate.tokens_per_second,
        peak_memory=peak_memory(),
        estimated_memory=shop.estimate.peak,
        trainable_parameters=shop.estimate.trainable,
        total_parameters=shop.estimate.parameters,
    )
