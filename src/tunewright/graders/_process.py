"""One limited process that serves many calls of a grading function over pipes, and is started anew when it hangs or dies."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tunewright.graders import GradeFailure

SCRIPT = Path(__file__).with_name("_worker.py")
START = 20.0  # seconds that the start may take beyond the limit of a call: a user's file may import much
READ = 1 << 16


class Limits(NamedTuple):
    """What a call may take: seconds, and bytes of address space."""

    seconds: float
    memory: int


class Worker:
    """The process, as a context.

    Args:
        path: the file with the function, in a folder of its own, in which the process stands.
        function: its name.
        limits: of every call.
    """

    def __init__(self, path: Path, function: str, limits: Limits) -> None:
        self._path, self._function, self._limits = path, function, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._left = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def call(self, sample: dict[str, Any], item: dict[str, Any]) -> Any:
        """What the function gives: the number, or text that stands for what is none.

        Raises:
            GradeFailure: it raised, took too long, died, gave what is no number, or cannot be loaded.
        """
        process = self.started()
        line = json.dumps({"sample": sample, "item": item}, default=str).encode() + b"\n"
        try:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
        except OSError:
            raise GradeFailure(self._died()) from None
        said = self._answer(self._limits.seconds, "took longer than {:g} s")
        if "raised" in said:
            raise GradeFailure(f"raised {said['raised']}")
        if "wrong" in said:
            raise GradeFailure(f"gave {said['wrong']} ({said['kind']}), which is no number,")
        return said["value"]

    def started(self) -> subprocess.Popen[bytes]:
        """The process, started if there is none.

        Raises:
            GradeFailure: the file cannot be loaded, or has no such function.
        """
        if self._process is not None:
            return self._process
        command = [sys.executable, "-I", "-X", "utf8", str(SCRIPT), str(self._path), self._function, str(self._limits.memory)]
        # No variable of the environment reaches it: keys and tokens stand there.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._path.parent,
            env={},
            start_new_session=True,
        )
        self._left = b""
        said = self._answer(START + self._limits.seconds, "took longer than {:g} s to load")
        if "raised" in said:
            self._end()
            raise GradeFailure(f"cannot be loaded ({said['raised']})")
        return self._process

    def _answer(self, seconds: float, late: str) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe, until = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._left:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                self._end()
                raise GradeFailure(late.format(seconds))
            read = os.read(pipe, READ)
            if not read:
                raise GradeFailure(self._died())
            self._left += read
        line, _, self._left = self._left.partition(b"\n")
        return json.loads(line)

    def _died(self) -> str:
        """Why there is no process any more, as a clause."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.returncode
        self._end()
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return f"ended its process ({name}; memory is limited to {self._limits.memory >> 20} MiB)"

    def _end(self) -> None:
        """Kill the process and everything it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()
