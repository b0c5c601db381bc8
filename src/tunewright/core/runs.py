"""A run is a folder: what was asked, what happened, what came of it.

runs/NAME/  run.yaml  manifest.json  data/  steps.jsonl  checkpoints/
            adapter/ or model/  predictions/  report.json  report.html  README.md
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tunewright.core.configuration import parse_yaml
from tunewright.core.errors import RunFolderError
from tunewright.core.storage import read_json, write_json, write_text

LEAST_FREE = 20_000_000  # bytes; less than this and not even logs are safe
MERGED = "tunewright.yaml"
"""In the folder of a merged model: how it was tuned, so that it goes on rendering prompts and naming labels in the same way."""


class RunFolder:
    """The paths of one run, and the few things that are done to it as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def settings(self) -> Path:
        """The fully resolved run file."""
        return self.path / "run.yaml"

    @property
    def steps(self) -> Path:
        """One line an optimizer step."""
        return self.path / "steps.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Numbered checkpoints."""
        return self.path / "checkpoints"

    @property
    def data(self) -> Path:
        """The rows of each split, and the ledger of dropped rows."""
        return self.path / "data"

    @property
    def predictions(self) -> Path:
        """Answers of base and tuned model, row by row."""
        return self.path / "predictions"

    @property
    def manifest(self) -> dict[str, Any]:
        """Hashes, versions, machine, chosen layout; what makes the run repeatable."""
        return read_json(self.path / "manifest.json")

    @property
    def is_run(self) -> bool:
        """Whether the folder holds a run at all."""
        return self.settings.is_file()

    @property
    def is_done(self) -> bool:
        """Whether the run went through to its report."""
        return (self.path / "report.json").is_file()

    def start(self, settings: str, manifest: dict[str, Any]) -> None:
        """Write what makes it a run."""
        write_text(self.settings, settings)
        write_json(self.path / "manifest.json", manifest)
        self.checkpoints.mkdir(exist_ok=True)

    def log(self, step: dict[str, Any]) -> None:
        """Append one step to `steps.jsonl`."""
        with self.steps.open("a", encoding="utf-8") as file:
            file.write(json.dumps(step, allow_nan=False) + "\n")

    def logged(self) -> list[dict[str, Any]]:
        """The steps logged so far; a line cut by a crash is left out."""
        if not self.steps.exists():
            return []
        lines = self.steps.read_text(encoding="utf-8").splitlines()
        return [step for step in map(_step, lines) if step is not None]

    def forget_after(self, step: int) -> None:
        """Drop logged steps above `step`: they will be done again."""
        kept = [line for line in self.logged() if line["number"] <= step]
        write_text(self.steps, "".join(json.dumps(line) + "\n" for line in kept))

    def discard(self) -> None:
        """Remove the folder of a run that never began; one that holds a run file is left alone."""
        if not self.is_run:
            shutil.rmtree(self.path, ignore_errors=True)

    def require_unfinished(self) -> None:
        """Raise `RunFolderError` when the run already went through to its report."""
        if self.is_done:
            raise RunFolderError("the run is finished", where=str(self.path), hint=f"Read its report: {self.path / 'report.html'}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; a crash frees it.

        Raises:
            RunFolderError: another process works in it.
        """
        handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(
                    "another process works in this run", where=str(self.path), hint="Wait for it, or stop it."
                ) from None
            yield
        finally:
            os.close(handle)


class WatchedFolder(RunFolder):
    """The folder of a run as all its processes but the first see it: they read, and leave lock and writing to that one."""

    def log(self, step: dict[str, Any]) -> None:
        pass

    def forget_after(self, step: int) -> None:
        pass

    def discard(self) -> None:
        pass

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield


def _step(line: str) -> dict[str, Any] | None:
    try:
        step = json.loads(line)
    except ValueError:
        return None
    return step if isinstance(step, dict) else None


def create(root: Path, name: str | None, stem: str) -> RunFolder:
    """A new, empty run folder `root/name` (or `root/stem-date-time` when no name is given).

    Raises:
        RunFolderError: it exists and is not empty, cannot be written, or the disk is nearly full; nothing was changed.
    """
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = root / (name or f"{stem}-{moment}")
    # A lock alone is what a process leaves that was killed before its run began.
    if path.exists() and (not path.is_dir() or any(item.name != ".lock" for item in path.iterdir())):
        what = "already holds a run" if RunFolder(path).is_run else "exists and is not empty"
        hint = (
            f"Choose another --name, or continue it: tunewright resume {path}"
            if RunFolder(path).is_run
            else "Choose another --name."
        )
        raise RunFolderError(f"the run folder {what}; nothing is ever overwritten", where=str(path), hint=hint)
    probe = path / ".writable"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        if path.is_dir():
            probe.unlink(missing_ok=True)  # on a full disk the file is made and its bytes are refused
            if not any(path.iterdir()):
                path.rmdir()
        raise RunFolderError(
            f"the run folder cannot be written ({error.strerror})", where=str(path), hint="Choose another --folder."
        ) from None
    free = shutil.disk_usage(path).free
    if free < LEAST_FREE:
        RunFolder(path).discard()
        raise RunFolderError(
            f"only {free} bytes are free on that disk", where=str(path), hint="Free space or choose another --folder."
        )
    return RunFolder(path)


def existing(path: Path, leads: bool = True) -> RunFolder:
    """The run at `path`. Raises `RunFolderError` when there is none, naming the runs beside it.

    Args:
        leads: whether this process writes; of several, the first one does.
    """
    folder = RunFolder(path) if leads else WatchedFolder(path)
    if folder.is_run:
        return folder
    beside = path.parent if path.parent.is_dir() else Path()
    known = sorted(str(item.parent) for item in beside.glob("*/run.yaml"))
    raise RunFolderError("is not a run folder (it has no run.yaml)", where=str(path), allowed=known, given=str(path))


def settings_of(name: str) -> dict[str, Any]:
    """The resolved settings of the run in the folder `name`, or those that a merged model was tuned with; empty without either.

    Raises:
        ConfigurationError: the file is no run file.
    """
    for path in (Path(name) / "run.yaml", Path(name) / MERGED):
        if path.is_file():
            return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    return {}
