"""The model card: README.md of the run folder, with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tunewright.evaluation.report.html import created_text, environment, flat
from tunewright.evaluation.report.schema import Measure, Report, Subject
from tunewright.evaluation.report.wording import bare_text, p_text, points, signed, value_text
from tunewright.models import Kind
from tunewright.objectives import Task

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PIPELINES: dict[Task, str] = {
    **dict.fromkeys(("classification", "multi_label", "regression", "reward"), "text-classification"),
    **{"token_classification": "token-classification", "question_answering": "question-answering"},
    **dict.fromkeys(("generation", "text", "preference"), "text-generation"),
}
# (of PEFT, of transformers): neither knows our heads, so what loads is the body, or the base with its own head.
_AUTO_CLASSES: dict[Kind, tuple[str, str]] = {
    "decoder": ("AutoPeftModelForCausalLM", "AutoModelForCausalLM"),
    "encoder": ("AutoPeftModelForFeatureExtraction", "AutoModel"),
    "encoder_decoder": ("AutoPeftModelForSeq2SeqLM", "AutoModelForSeq2SeqLM"),
}


def render_card(report: Report) -> str:
    """The card of a report, Markdown with YAML front matter. The licence is left `unknown`: only the user knows it."""
    return environment().get_template("card.md.jinja").render(
        report=report,
        front=yaml.safe_dump(front_matter(report), sort_keys=False, allow_unicode=True).strip(),
        created=created_text(report.created),
        table=[_line(measure) for measure in report.measures],
        settings=[(inline(key), inline(value)) for key, value in flat(report.settings.values)],
        peft_class=_AUTO_CLASSES[report.subject.kind][0],
        auto_class="AutoModelForMaskedLM" if _fills_in(report.subject) else _AUTO_CLASSES[report.subject.kind][1],
        fills_in=_fills_in(report.subject),
        asks=report.subject.task not in ("generation", "text", "preference") or not report.subject.writes,
        inline=inline,
    )  # fmt: skip


def _fills_in(subject: Subject) -> bool:
    """Whether it was tuned to fill in hidden words, with the head of its base."""
    return subject.task == "text" and subject.kind == "encoder"


def front_matter(report: Report) -> dict[str, Any]:
    """What stands between the `---` lines. `base_model` only where the base is a hub id: a folder of ours means nothing there."""
    subject = report.subject
    front: dict[str, Any] = {"license": "unknown"}
    if _HUB_ID.fullmatch(subject.base):
        front["base_model"] = subject.base
        front["base_model_relation"] = "finetune" if subject.weights == "full_model" else "adapter"
    library = {"peft_adapter": "peft", "full_model": "transformers", "own_adapter": "tunewright"}[subject.weights]
    front |= {
        "library_name": library,
        "pipeline_tag": "fill-mask" if _fills_in(subject) else _PIPELINES[subject.task],
        "tags": ["tunewright", subject.method, subject.objective],
    }
    return front


def inline(text: object) -> str:
    """Text that came from outside, on one line and without meaning in Markdown tables or HTML."""
    line = " ".join(str(text).split())
    for sign, safe in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("`", "'"), ("[", "\\["), ("*", "\\*")):
        line = line.replace(sign, safe)
    return line


def _line(measure: Measure) -> tuple[str, ...]:
    tuned = f"{value_text(measure.tuned.value, measure.percent)} ({_ends(measure.tuned.low, measure.tuned.high, measure.percent)})"
    base = "not measured"
    if measure.base is not None:
        base = f"{value_text(measure.base.value, measure.percent)} ({_ends(measure.base.low, measure.base.high, measure.percent)})"
    change = ""
    if (found := measure.difference) is not None:
        ends = f"{signed(found.low, measure.percent)} to {signed(found.high, measure.percent)}"
        change = f"{signed(found.value, measure.percent)}{points(measure)} ({ends}; {p_text(found.p).replace('<', '&lt;')})"
    rows = f"{measure.tuned.count:,} {measure.split}"
    return (measure.title if measure.higher_is_better else f"{measure.title} (lower is better)", rows, base, tuned, change)


def _ends(low: float, high: float, percent: bool) -> str:
    return f"{bare_text(low, percent)} to {bare_text(high, percent)}"
