"""The help of verbs that take the settings of a run: usage, examples, and every setting with its default, drawn from the models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tunewright.cli.terminal import Outcome

if TYPE_CHECKING:
    from rich.console import RenderableType

USAGE = {
    "tune": (
        "tunewright tune DATA [settings]",
        "Tune a base on your examples, test it once, and write the report. DATA needs no settings.",
        (
            "tunewright tune examples.jsonl",
            "tunewright tune reviews.csv --base minilm --epochs 3",
            "tunewright tune train.jsonl --test test.jsonl --method lora --rank 8 --method.targets '[mlp, attention.query]'",
            "tunewright tune --config run.yaml --training.learning_rate 1e-4 --name second-try",
        ),
    ),
    "estimate": (
        "tunewright estimate DATA [settings]",
        "Say what a run would cost (memory, tokens, time), without leaving anything behind. Takes what tune takes.",
        ("tunewright estimate examples.jsonl --base minilm --method full",),
    ),
    "check": (
        "tunewright check DATA [--base BASE] [settings]",
        "Read the data and say what was found: shape, duplicates, leaks, splits, dropped rows; with --base what is learned.",
        (
            "tunewright check examples.jsonl",
            "tunewright check examples.jsonl --base embedded",
            "tunewright check qa.csv --data.columns.question prompt",
        ),
    ),
    "compare-methods": (
        "tunewright compare-methods DATA [--methods A,B,C] [--repeats 3] [--general FILE] [settings]",
        "Tune by several methods, several times each, and set test quality, memory, time, parameters, size on disk, slow-down "
        "and forgetting side by side. Repeat r of every method has seed r and its own split. The same command goes on where it "
        "stopped.",
        (
            "tunewright compare-methods reviews.csv --base minilm --methods lora,bottleneck_adapter,head,full",
            "tunewright compare-methods examples.jsonl --methods '[{name: lora, rank: 4}, {name: lora, rank: 64}]' --repeats 5",
        ),
    ),
    "quickstart": (
        "tunewright quickstart [settings]",
        "See everything work in a minute or two, with the base and the examples that ship with the package. Needs no network.",
        ("tunewright quickstart", "tunewright quickstart --epochs 1"),
    ),
    "targets": (
        "tunewright show targets DATA --base BASE [--rows 3] [--html FILE] [settings]",
        "Show rows as the model sees them, with the learned tokens marked.",
        (
            "tunewright show targets examples.jsonl --base embedded",
            "tunewright show targets chats.jsonl --base embedded --html targets.html",
        ),
    ),
}
GROUPS = {
    "": "The run",
    "data": "Data (data.)",
    "method": "Method (method.), as for lora; others: tunewright show method NAME",
    "objective": "Objective (objective.)",
    "training": "Training (training.)",
    "rendering": "Rows to tokens (rendering.)",
    "evaluation": "Evaluation (evaluation.)",
}


def asks_for_help(tokens: Sequence[str]) -> bool:
    """Whether the tokens ask for help and nothing else matters."""
    return any(token in ("--help", "-h") for token in tokens)


def settings_help(verb: str) -> Outcome:
    """The help of one verb."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    from tunewright.cli.settings import SHORT, settings

    usage, about, examples = USAGE[verb]
    known = list(settings({"method": "lora", "objective": None}).values())
    body = [Text.assemble("Usage: ", (usage, "bold")), Text(), Text(about), Text()]
    body += [Text("Examples", style="bold"), *(Text(f"  {example}") for example in examples), Text()]
    for group, title in GROUPS.items():
        chosen = [one for one in known if one.name.rpartition(".")[0] == group or (group and one.name.startswith(f"{group}."))]
        rows = [(f"--{one.name}", one.default, one.about) for one in chosen if not one.name.endswith(".name")]
        body += [Text(title, style="bold"), Padding(settings_table(rows), (0, 0, 1, 2))]
    short = [(f"--{name.replace('_', '-')}", "", f"the same as --{full}") for name, full in SHORT.items() if name != "data"]
    rows = [("--config FILE", "", "a run file (YAML or TOML); flags override it"), *short]
    body += [Text("Conveniences", style="bold"), Padding(settings_table(rows), (0, 0, 1, 2))]
    body.append(
        Text(
            "Lists: repeat the flag, or write '[a, b]'. --key value and --key=value, dashes and underscores are the same.",
            style="dim",
        )
    )
    body.append(Text("--json: one JSON object on standard output. --debug: tracebacks.", style="dim"))
    data = {
        "usage": usage,
        "about": about,
        "settings": [{"name": one.name, "default": one.default, "about": one.about} for one in known],
    }
    return Outcome(data, Group(*body))


def settings_table(rows: Iterable[tuple[str, str, str]]) -> RenderableType:
    """Settings as lines: flag, what it is, its default."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for flag, default, about in rows:
        line = Text(about)
        if default:
            line.append(f"{' ' if about else ''}[{default}]", style="cyan")
        table.add_row(Text(flag), line)
    return table
