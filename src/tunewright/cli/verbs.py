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
CLOSING = """Every verb takes --json (one JSON object on standard output, progress on standard error) and --debug.
Exit codes: 0 done, 1 the work failed, 2 the request was wrong.

Begin with:  tunewright quickstart
Then:        tunewright tune your-examples.jsonl"""

VERBS = {
    "Make": ("quickstart", "tune", "resume", "merge"),
    "Look first": ("check", "estimate", "show", "list"),
    "Use": ("evaluate", "generate", "chat"),
    "Installation": ("selftest",),
}
SHOWN = ("run", "base", "targets", "method", "objective", "metric")
WITH_SETTINGS = ("tune", "quickstart", "estimate", "check")
"""These take the settings of a run as flags, so their help is drawn from the settings."""


def app() -> App:
    """All verbs; none of their files is imported before it is needed."""
    whole = App(
        name="tunewright", help=ABOUT, help_epilogue=CLOSING, help_format="plaintext", version=__version__, result_action="return_value"
    )
    whole["--help"].group = whole["--version"].group = Group("Installation", sort_key=9)
    for place, (title, names) in enumerate(VERBS.items()):
        group = Group(title, sort_key=place)
        for rank, name in enumerate(names):
            if name == "show":
                whole.command(_show(), group=group, sort_key=rank)
                continue
            flags = [] if name in WITH_SETTINGS else ["--help", "-h"]
            whole.command(f"tunewright.cli.{name}:{name}", name=name, group=group, sort_key=rank, help_flags=flags)
    return whole


def _show() -> App:
    inner = App(name="show", help="Show a run, a base, what is learned of rows, or what a method does.", version_flags=[])
    for rank, name in enumerate(SHOWN):
        file = "show_targets" if name == "targets" else "show"
        flags = [] if name == "targets" else ["--help", "-h"]
        inner.command(f"tunewright.cli.{file}:show_{name}", name=name, sort_key=rank, help_flags=flags)
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
        return ConfigurationError("there is no such flag", where=given, allowed=_flags(error), given=given, hint="" if _flags(error) else hint)
    if isinstance(error, UnusedCliTokensError):
        extra = " ".join(error.unused_tokens or ())
        return ConfigurationError(f"does not know what to do with '{extra}'", where=verb, hint=hint)
    if isinstance(error, MissingArgumentError):
        names = error.argument.names if error.argument is not None else ()
        name = error.keyword or next(iter(names), "an argument")
        bare = name.lstrip("-").upper() if not error.keyword else name
        return ConfigurationError(f"{bare} is missing" if not error.keyword else "needs a value", where=verb if not error.keyword else name, hint=hint)
    if isinstance(error, CoercionError) and error.token is not None:
        kind = getattr(error.target_type, "__name__", "value")
        wanted = {"int": "a whole number", "float": "a number", "bool": "true or false"}.get(kind, f"a {kind}")
        return ConfigurationError(f"should be {wanted}, got '{error.token.value}'", where=error.token.keyword or verb, hint=hint)
    return ConfigurationError(str(error).rstrip("."), where=verb, hint=hint)


def _flags(error: UnknownOptionError) -> Iterable[str]:
    found = [name for argument in error.argument_collection for name in argument.names if name.startswith("--")]
    return sorted(name for name in dict.fromkeys(found) if not name.startswith("--no-"))
