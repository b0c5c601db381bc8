"""A model's answers as rows: what a student learns where it cannot see the teacher's distributions, or need not.

The teacher is a model on this machine or one behind an OpenAI-compatible server. Answers are kept as they come in, so that what was
half done goes on where it stopped; what has no answer is listed beside the file with its reason, and can be asked again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError, ConfigurationError, DataError, WorkError
from tunewright.core.narrator import SILENT, Narrator
from tunewright.core.storage import write_text
from tunewright.data.rendering import RowRefused
from tunewright.data.rows import Row
from tunewright.engine.settings import Sampling
from tunewright.graders import Grader, Judge
from tunewright.run.answering.endpoint import Asked, Endpoint, asked_of
from tunewright.run.answering.journal import Journal, Place, Said
from tunewright.run.answering.questions import Questions, as_messages, line, question, questions, told

if TYPE_CHECKING:
    from tunewright.evaluation.opening import Opened

AT_ONCE = 32  # questions that are answered on this machine before their answers are kept


@dataclass(frozen=True)
class How:
    """How a teacher is asked.

    Args:
        drawing: settings of `Sampling` that are given; a run's own hold for the others.
        samples: answers a question.
        best: keeps the best of these, the first of equals; None keeps all that differ.
        probabilities: of the labels, from a classifier, instead of answers.
        unfinished: keep answers that were cut off at their longest length; a student would learn to stop there.
        columns: names of columns in the file and the fields that they are.
        system: a text in front of every conversation that the teacher sees and the student will not.
        endpoint: the server; None asks a model on this machine.
        force: use an adapter although its base has changed.
    """

    drawing: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1
    best: Grader | None = None
    probabilities: bool = False
    unfinished: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    system: str = ""
    endpoint: Endpoint | None = None
    force: bool = False


class Answered(NamedTuple):
    """What came of it.

    Args:
        out: the file of rows; beside it `ledger`, the rows without an answer, or None where all have one.
        rows: questions that were read, and `written` the rows that came of them.
        left_out: how many questions or answers were left out for each reason.
        resumed: answers that were there from before.
        first: the first thing left out, in words; empty where nothing was.
    """

    out: Path
    ledger: Path | None
    rows: int
    written: int
    left_out: dict[str, int]
    resumed: int
    first: str = ""


@dataclass(frozen=True)
class _Job:
    """What one call works with.

    Args:
        asked: the rows as the teacher sees them; `found.rows` are what is written of them.
        opened: the model; None where a server has it.
        judges: the models that choose among several answers.
    """

    model: str
    how: How
    found: Questions
    asked: Sequence[Row]
    sampling: Sampling
    opened: Opened | None
    judges: Mapping[str, Judge]


def answer(data: str, model: str, out: Path, how: How = How(), narrator: Narrator = SILENT) -> Answered:
    """Ask a model every question of a file, and write its answers as rows for `tunewright tune`.

    Args:
        model: a run, a folder, a base; with an endpoint, the server's name for it.
        out: the file to write (.jsonl).

    Raises:
        ConfigurationError: the file is there already, was begun with another request, or the settings do not go together.
        DataError: no row can be asked.
        BaseModelError: the model cannot be opened, or cannot do what is asked.
        EndpointError, StorageError: the work stopped; the same request goes on with it.
    """
    out = out if out.suffix else out.with_suffix(".jsonl")
    _require_place(out)
    _require_sense(how)
    job = _job(data, model, how, narrator)
    journal = Journal(out, _facts(job))
    narrator.stage("Answer")
    if journal.done:
        narrator.say(f"{len(journal.done):,} answers are there from before")
    finished = False
    try:
        failed = _asked(job, journal, narrator)
        if not journal.done:
            raise WorkError(f"no question has an answer ({next(iter(failed.values()))[1]})", where=data)
        result = _written(job, out, journal, failed)
        finished = True
    except WorkError as error:
        if not journal.done:
            raise
        kept = f"{len(journal.done):,} answers are kept; the same command goes on."
        raise type(error)(error.problem, where=error.where, hint=f"{error.hint} {kept}".strip()) from None
    finally:
        journal.close(finished=finished or not journal.done)
    return result


def _job(data: str, model: str, how: How, narrator: Narrator) -> _Job:
    narrator.stage("Read the questions")
    found = questions(data, how.columns, texts=how.probabilities)  # what is wrong with the file is said before anything loads
    opened = None
    if how.endpoint is None:
        narrator.stage(f"Load {model}")
        opened = _opened(model, how)
    classifies = opened is not None and not opened.objective.writes
    found = questions(data, how.columns, texts=True) if classifies else found
    if classifies and how.samples > 1:
        raise ConfigurationError("a classifier draws nothing", where="--samples", hint="Ask it once.")
    asked = found.rows if classifies else [told(row, how.system) for row in found.rows]
    sampling = build(Sampling, {**_own_drawing(opened), **how.drawing})
    if how.samples > 1 and not sampling.temperature:
        raise ConfigurationError("at 0 all answers are the same", where="--temperature", hint="Take 0.7, for example.")
    return _Job(model, how, found, asked, sampling, opened, _judges(how.best, found.rows))


def _require_place(out: Path) -> None:
    if out.suffix != ".jsonl":
        raise ConfigurationError("answers are written as JSON Lines", where=str(out), allowed=(".jsonl",))
    if not out.parent.is_dir():
        raise ConfigurationError("there is no such folder", where=str(out.parent), hint="Make it first.")
    for place in (out, _ledger_of(out)):
        if place.exists() or place.is_symlink():
            raise ConfigurationError("exists already; nothing is ever overwritten", where=str(place), hint="Choose another name.")


def _ledger_of(out: Path) -> Path:
    return out.with_suffix(".left_out.jsonl")


def _require_sense(how: How) -> None:
    remote = how.endpoint is not None
    temperature = how.drawing.get("temperature")
    for wrong, where, problem, hint in (
        (how.samples < 1, "--samples", f"{how.samples} answers were asked for", "Ask for one or more."),
        (how.probabilities and remote, "--probabilities", "a server gives texts and no probabilities of labels", ""),
        (
            how.probabilities and temperature == 0,
            "--temperature",
            "at 0 the likeliest label alone would be left",
            "Take 1 or more.",
        ),
        (how.best is not None and how.samples == 1, "--best", "there is nothing to choose among", "Ask for several --samples."),
        (remote and "top_k" in how.drawing, "--top-k", "chat completions have no top_k", "Use --top-p."),
    ):
        if wrong:
            raise ConfigurationError(problem, where=where, hint=hint)


def _facts(job: _Job) -> dict[str, Any]:
    """What the answers depend on."""
    how = job.how
    return {
        "questions": hashlib.sha256("".join(row.key() for row in job.found.rows).encode()).hexdigest(),
        "model": job.model,
        "endpoint": how.endpoint and how.endpoint.url,
        "probabilities": how.probabilities,
        "samples": how.samples,
        "system": how.system,
        **job.sampling.model_dump(mode="json"),
    }


def _judges(best: Grader | None, rows: Sequence[Row]) -> dict[str, Judge]:
    """The models that a grader asks, opened."""
    if best is None:
        return {}
    best.check(rows[0])
    from tunewright.evaluation.beside import StandsBeside
    from tunewright.evaluation.opening import open_model

    return {name: StandsBeside(name, open_model(name)) for name in best.others()}


def _opened(model: str, how: How) -> Opened:
    from tunewright.evaluation.opening import open_model

    opened = open_model(model, force=how.force)
    classifies = opened.objective.task == "classification" and bool(opened.labels)
    if how.probabilities and not classifies:
        hint = "Leave --probabilities out for a model that writes."
        raise BaseModelError("is no classifier, so it has no labels with probabilities", where=model, hint=hint)
    if not classifies and not opened.objective.writes:
        raise BaseModelError("answers with neither text nor labels", where=model, hint="Take a model that writes, or a classifier.")
    if opened.objective.writes and opened.model.kind == "encoder":
        raise BaseModelError(
            "is an encoder without a head: it generates nothing", where=model, hint="Tune it as a classifier first."
        )
    return opened


def _own_drawing(opened: Opened | None) -> dict[str, Any]:
    """How a run draws by itself; a classifier's probabilities are left as they are."""
    if opened is None:
        return {}
    kept = dict((opened.settings.get("evaluation") or {}).get("sampling") or {})
    return kept if opened.objective.writes else {**kept, "temperature": 1.0}


def _asked(job: _Job, journal: Journal, narrator: Narrator) -> dict[Place, tuple[str, str]]:
    """Keep every answer as it comes; returns why others are none."""
    failed: dict[Place, tuple[str, str]] = {}
    total = len(job.asked) * job.how.samples
    for place, said in _answers(job, journal.done):
        journal.add(place, said)
        if said.why is not None:
            failed[place] = said.why
        narrator.progress(len(journal.done) + len(failed), total, {"without answer": len(failed)})
    return failed


def _answers(job: _Job, done: Mapping[Place, Said]) -> Iterator[tuple[Place, Said]]:
    """The answers that are not there yet, in the order in which they come."""
    places = [(number, draw) for number in range(len(job.asked)) for draw in range(job.how.samples) if (number, draw) not in done]
    if job.how.endpoint is not None:
        yield from asked_of(job.how.endpoint, [Asked(place, _body(job, place)) for place in places])
        return
    assert job.opened is not None
    ask = _by_text if job.opened.objective.writes else _by_label
    waiting = list(dict.fromkeys(number for number, _ in places))
    for start in range(0, len(waiting), AT_ONCE):
        yield from ask(job, job.opened, waiting[start : start + AT_ONCE])


def _body(job: _Job, place: Place) -> dict[str, Any]:
    """A request; what nobody asked for is left to the server, since not all know every field."""
    sampling, given = job.sampling, job.how.drawing
    body = {
        "model": job.model,
        "messages": as_messages(job.asked[place[0]]),
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    more = {"top_p": sampling.top_p, "stop": list(sampling.stops), "seed": sampling.seed + place[1]}
    return body | {name: more[name] for name in more if ("stops" if name == "stop" else name) in given}


def _by_text(job: _Job, opened: Opened, numbers: Sequence[int]) -> Iterator[tuple[Place, Said]]:
    from tunewright.engine.sampling import Prompt, sample_groups

    prompts: dict[int, Prompt] = {}
    for number in numbers:
        try:
            prompts[number] = Prompt(opened.renderer.prompt(job.asked[number], room=job.sampling.max_new_tokens), number=number)
        except RowRefused as error:
            why = error.refusal.reason, error.refusal.message
            yield from (((number, draw), Said(why=why)) for draw in range(job.how.samples))
    if not prompts:
        return
    ends = frozenset(opened.renderer.stops)
    groups = sample_groups(opened.engine, list(prompts.values()), job.sampling, ends=ends, samples=job.how.samples)
    for number, group in zip(prompts, groups, strict=True):
        for draw, one in enumerate(group):
            text = (opened.renderer.decode(one.tokens) if one.text is None else one.text).strip()
            yield (number, draw), Said(text, one.finished) if text else Said(why=("empty_answer", "the answer is empty"))


def _by_label(job: _Job, opened: Opened, numbers: Sequence[int]) -> Iterator[tuple[Place, Said]]:
    found = opened.approach(job.sampling).probabilities([job.asked[number] for number in numbers])
    for number, shares in zip(numbers, found, strict=True):
        if shares is None:
            yield (number, 0), Said(why=("unreadable", "the text cannot be read by this model"))
            continue
        best, _ = max(shares.items(), key=lambda pair: pair[1])
        soft = softened(shares, job.sampling.temperature) if job.how.probabilities else None
        yield (number, 0), Said(best, distribution=soft)


def softened(shares: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Probabilities as they would be with logits divided by `temperature`: p^(1/t), divided by their sum."""
    powers = {label: share ** (1 / temperature) for label, share in shares.items()}
    return {label: power / sum(powers.values()) for label, power in powers.items()}


def _written(job: _Job, out: Path, journal: Journal, failed: Mapping[Place, tuple[str, str]]) -> Answered:
    """Put the answers into the order of the questions, choose among them, and write both files."""
    lines: list[dict[str, Any]] = []
    reasons = {number: why for (number, _), why in failed.items()}
    lost: list[dict[str, Any]] = [drop._asdict() for drop in job.found.ledger]
    for number, row in enumerate(job.found.rows):
        good = [journal.done[number, draw] for draw in range(job.how.samples) if (number, draw) in journal.done]
        kept = _chosen(job, row, good)
        lines += [line(row, said.text, said.distribution) for said in kept]
        if not kept:
            cut = "unfinished", f"the answer was cut off after {job.sampling.max_new_tokens} tokens"
            kind, message = cut if good else reasons[number]
            lost.append({"where": row.where, "kind": kind, "message": message, **question(row)})
    if not lines:
        hint = "Take them with --keep-unfinished, or allow longer answers (--max-new-tokens) in another file."
        raise DataError(f"no answer is left to write ({lost[-1]['message']})", where=str(out), hint=hint)
    if lost:
        write_text(_ledger_of(out), "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lost))
    write_text(out, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines))
    return Answered(
        out=out,
        ledger=_ledger_of(out) if lost else None,
        rows=len(job.found.rows) + len(job.found.ledger),
        written=len(lines),
        left_out=dict(Counter(str(one["kind"]) for one in lost).most_common()),
        resumed=journal.resumed,
        first=f"{lost[0]['where']}: {lost[0]['message']}" if lost else "",
    )


def _chosen(job: _Job, row: Row, good: Sequence[Said]) -> list[Said]:
    """Of the answers to a question those that are written: finished ones, each once, or the best of them."""
    from tunewright.graders._grading import graded

    kept = list({said.text: said for said in good if said.finished or job.how.unfinished}.values())
    if job.how.best is None or len(kept) < 2:
        return kept
    grades = graded(job.how.best, [(row, said.text) for said in kept], "zero", job.judges).values
    return [kept[grades.index(max(grades))]]
