"""Floor 8: the command line. One verb a file; this one finds the verb, shows what comes of it, and gives the exit code.

Exit codes: 0 done, 1 the work failed (or was interrupted), 2 the request was wrong. With `--json` one JSON object goes to standard
output, errors included; progress and logs always go to standard error. No traceback ever reaches the user unless `--debug` asks.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from tunewright.core.surroundings import set_default

QUIET = {
    # Threads that spin while they wait slow training tenfold where cores are shared; read by OpenMP when torch loads.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the words after `tunewright`; those of this process when not given.
    """
    # Not `list(...)`: once the verb of that name is loaded, its module stands under the name in this package.
    tokens, as_json, debug = _global_flags([*(sys.argv[1:] if argv is None else argv)])
    for name, value in QUIET.items():
        set_default(name, value)
    from tunewright.cli import failing, terminal
    from tunewright.core.errors import TunewrightError

    try:
        from tunewright.cli.verbs import dispatch

        # With --json standard output holds one object and nothing else, whoever prints.
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            outcome = dispatch(tokens)
        terminal.show(outcome, as_json)
        return outcome.exit_code
    except BrokenPipeError:
        return failing.reader_left()
    except KeyboardInterrupt:
        return failing.stopped(as_json)
    except TunewrightError as error:
        return failing.refused(error, as_json, debug)
    except Exception as error:
        return failing.crashed(error, as_json, debug)


def _global_flags(tokens: list[str]) -> tuple[list[str], bool, bool]:
    """`--json` and `--debug` hold for every verb and may stand anywhere before `--`."""
    end = tokens.index("--") if "--" in tokens else len(tokens)
    head = [token for token in tokens[:end] if token not in ("--json", "--debug")]
    return head + tokens[end:], "--json" in tokens[:end], "--debug" in tokens[:end]
