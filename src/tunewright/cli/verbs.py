"""The table of verbs: finds the one that is meant, and turns what cyclopts objects to into errors of ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cyclopts import App, Group
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from tunewright import __version__
from tunewright.cli.terminal import Outcome
from tunewright.core.errors import ConfigurationError, UnknownNameError

ABOUT = "Fine-tune open models on your own examples, and prove what that bought."
HELP_FLAGS = ["--help", "-h"]
CLOSING = """Every verb takes --json (one JSON object on standard output, progress on standard error) and --debug.
Exit codes: 0 done, 1 the work failed, 2 the request was wrong.

Begin with:  tunewright quickstart
Then:        tunewright tune your-examples.jsonl"""

VERBS = {
    "Make": {
        "quickstart": "See everything work, with what ships with the package; needs no network.",
        "tune": "Tune a base on your examples, test it once, and write the report.",
        "resume": "Go on with a run that was stopped or killed: the same bits as if it never had been.",
        "merge": "Put an adapter into its base, verified, as one folder that everything can load.",
        "interpolate": "Put a tuned model between its base and itself: measure it at several places, or write it at one.",
        "combine": "Add and subtract what runs of one base changed, as one model.",
    },
    "Look first": {
        "check": "Read the data and say what was found; with --base also what would be learned.",
        "label": "Label rows by rules that vote (patterns, keywords, Python), and say what each rule is worth.",
        "rank": "Compare answers by hand, in the terminal or a browser; what you prefer becomes pairs to tune on.",
        "estimate": "Say what a run would cost (memory, tokens, time), leaving nothing behind.",
        "show": "Show a run, a base, what is learned of rows, or what a method does.",
        "list": "List runs, methods, objectives, metrics, shapes of rows, and bases.",
    },
    "Compare": {"compare-methods": "Tune by several methods, several times each: quality and costs side by side."},
    "Use": {
        "evaluate": "Measure a model on rows: every metric with its interval.",
        "generate": "Answer prompts: with text, or, for a classifier, with a label.",
        "answer": "Write a model's or a server's answers to a file of questions, for a student to learn.",
        "chat": "Talk with a model; also through a pipe.",
    },
    "Installation": {"selftest": "Check that the promises hold on this machine."},
}
"""Written here and not read from the verbs' files, so that help imports none of them."""

SHOWN = {
    "run": "What a run was asked, what came of it, where its parts lie.",
    "base": "The facts of a base, from its files' headers.",
    "targets": "Rows as the model sees them, with the learned tokens marked.",
    "prompt": "Which words the virtual tokens of a soft prompt are near.",
    "method": "What a method does, what it costs, when to use it, its settings.",
    "objective": "What an objective minimises, when to use it, its settings.",
    "metric": "What a metric measures.",
}
WITH_SETTINGS = ("tune", "quickstart", "estimate", "check", "compare-methods")
"""These take the settings of a run as flags, so their help is drawn from the settings."""


def app() -> App:
    """All verbs; none of their files is imported before it is needed."""
    whole = App(name="tunewright", help=ABOUT, help_epilogue=CLOSING, help_format="plaintext", version=__version__)
    whole.result_action = "return_value"
    for place, (title, verbs) in enumerate(VERBS.items()):
        group = Group(title, sort_key=place)
        for rank, (name, about) in enumerate(verbs.items()):
            if name == "show":
                whole.command(_show(about, group, rank))
                continue
            flags = [] if name in WITH_SETTINGS else HELP_FLAGS
            module = name.replace("-", "_")
            target = f"tunewright.cli.{module}:{module}"
            whole.command(target, name=name, help=about, group=group, sort_key=rank, help_flags=flags, help_epilogue="")
        if title == "Installation":
            whole["--help"].group = whole["--version"].group = group
    return whole


def _show(about: str, group: Group, rank: int) -> App:
    inner = App(name="show", help=about, group=group, sort_key=rank, version_flags=[], help_epilogue="")
    for place, (name, line) in enumerate(SHOWN.items()):
        file = f"show_{name}" if name in ("targets", "prompt") else "show"
        flags = [] if name == "targets" else HELP_FLAGS
        inner.command(f"tunewright.cli.{file}:show_{name}", name=name, help=line, sort_key=place, help_flags=flags)
    return inner


def dispatch(tokens: Sequence[str]) -> Outcome:
    """Run the verb that `tokens` name.

    Raises:
        ConfigurationError: an unknown verb or flag, a missing or ill-typed value.
    """
    try:
        result = app()(list(tokens), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise _translated(error) from None
    return result if isinstance(result, Outcome) else Outcome()


def _translated(error: CycloptsError) -> ConfigurationError:
    verb = " ".join(error.command_chain or ())
    hint = f"See `tunewright {verb} --help`." if verb else "See `tunewright --help`."
    if isinstance(error, UnknownCommandError):
        given = next(iter(error.unused_tokens or ()), "")
        names = SHOWN if verb == "show" else [name for names in VERBS.values() for name in names]
        what = "nothing to show called" if verb == "show" else "no verb"
        return UnknownNameError(f"there is {what} '{given}'", where=f"tunewright {verb}".strip(), allowed=names, given=given)
    if isinstance(error, UnknownOptionError):
        given = error.token.keyword or error.token.value
        return ConfigurationError(
            "there is no such flag", where=given, allowed=_flags(error), given=given, hint="" if _flags(error) else hint
        )
    if isinstance(error, UnusedCliTokensError):
        extra = " ".join(error.unused_tokens or ())
        return ConfigurationError(f"does not know what to do with '{extra}'", where=verb, hint=hint)
    if isinstance(error, MissingArgumentError):
        names = error.argument.names if error.argument is not None else ()
        name = error.keyword or next(iter(names), "an argument")
        flag = error.argument is not None and error.argument.field_info.is_keyword_only
        bare = name if error.keyword or flag else name.lstrip("-").upper()
        return ConfigurationError(
            f"{bare} is missing" if not error.keyword else "needs a value", where=verb if not error.keyword else name, hint=hint
        )
    if isinstance(error, CoercionError) and error.token is not None:
        kind = getattr(error.target_type, "__name__", "value")
        wanted = {"int": "a whole number", "float": "a number", "bool": "true or false"}.get(kind, f"a {kind}")
        return ConfigurationError(f"should be {wanted}, got '{error.token.value}'", where=error.token.keyword or verb, hint=hint)
    return ConfigurationError(str(error).rstrip("."), where=verb, hint=hint)


def _flags(error: UnknownOptionError) -> Iterable[str]:
    found = [name for argument in error.argument_collection for name in argument.names if name.startswith("--")]
    return sorted(name for name in dict.fromkeys(found) if not name.startswith("--no-"))
