"""The process in which a user's grading function runs: a script of its own, started by `graders.python`, importing nothing of ours.

It takes limits from its arguments, loads the function, and answers one line of JSON for each line that it reads. What the function
prints goes nowhere, so that it cannot be mistaken for an answer.
"""

import json
import os
import resource
import runpy
import sys
from typing import Any

LONGEST = 300  # characters of an error, or of what is no number


def limited(memory: int) -> None:
    """Bound address space, written files and core dumps for good."""
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (most, most))


def told(error: BaseException) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:LONGEST]


def answered(function: Any, line: str) -> dict[str, Any]:
    """What the function gives for one request, as something that JSON can say."""
    asked = json.loads(line)
    try:
        value = function(asked["sample"], asked["item"])
        if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
            return {"wrong": repr(value)[:LONGEST], "kind": type(value).__name__}
        return {"value": float(value)}
    except BaseException as error:  # whatever it is, `SystemExit` too, it is this one answer's affair
        return {"raised": told(error)}


def main() -> None:
    """Arguments: the file, the function's name, bytes of memory."""
    path, name, memory = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        limited(memory)
        function = runpy.run_path(path).get(name)
        ready = {"ready": True} if callable(function) else {"raised": f"there is no function '{name}' in it"}
    except BaseException as error:
        ready, function = {"raised": told(error)}, None
    print(json.dumps(ready), file=answers, flush=True)
    if "ready" not in ready:
        return
    for line in sys.stdin:
        print(json.dumps(answered(function, line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
