"""A function of the user's own, in a process with limits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from tunewright.core.errors import ConfigurationError
from tunewright.graders import NOTHING, Grade, GradeFailure, Grader, Sitting
from tunewright.graders._process import Limits, Worker
from tunewright.graders._template import item_of

if TYPE_CHECKING:
    from tunewright.data.rows import Row


class Python(Grader):
    """What `grade(sample, item)` of a file gives: any finite number.

    `sample["output_text"]` is the answer; `item` has `prompt`, `reference`, `where`, `messages` of a conversation, and every column
    of the row that was kept beside. The text of the file is read once and kept with the run, so that a run that is resumed is
    graded as it began.

    The function runs in one process of its own for many calls, with limits on time, memory and written files, without the
    environment's variables, and is started anew when it hangs or dies. That keeps accidents away from the run; it is no prison:
    a network is not cut off, and files that the user may read can be read. Run only graders that you would run yourself.

    Source: https://platform.openai.com/docs/guides/graders (`source` holds the code there, and may here).
    """

    file: Path | None = Field(default=None, description="a file with the function")
    source: str = Field(default="", description="the code itself; that of `file` when not given")
    function: str = Field(default="grade", pattern=r"^[A-Za-z_]\w*$", description="the function's name")
    time_limit: float = Field(default=5.0, gt=0, le=3600, description="seconds for one answer")
    memory_limit_mb: int = Field(default=1024, ge=64, description="address space of the process, in MiB")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = {key: one for key, one in value.items() if key != "image_tag"}  # OpenAI's choice of a container
        if value.get("source") or not value.get("file"):
            return value
        path = Path(str(value["file"]))
        try:
            return {**value, "source": path.read_text(encoding="utf-8")}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read ({error})", where="file") from None

    @model_validator(mode="after")
    def _has_code(self) -> Python:
        if not self.source.strip():
            hint = "Give `file: grade.py`, with a function grade(sample, item)."
            raise ConfigurationError("the python grader has no code", where="file", hint=hint)
        return self

    def check(self, row: Row) -> None:
        with self._worker() as worker:
            try:
                worker.started()
            except GradeFailure as failure:
                raise ConfigurationError(f"{self.file or 'the code'} {failure}", where="grader") from None

    def grade(self, row: Row, answer: str) -> float:
        with self.opened() as grade:
            return grade(row, answer)

    @contextmanager
    def opened(self, sitting: Sitting = NOTHING) -> Iterator[Grade]:
        with self._worker() as worker:
            yield lambda row, answer: worker.call({"output_text": answer}, item_of(row))

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        with tempfile.TemporaryDirectory(prefix="tunewright-grader-") as folder:
            path = Path(folder) / (self.file.name if self.file is not None else "grader.py")
            path.write_text(self.source, encoding="utf-8")
            with Worker(path, self.function, Limits(self.time_limit, self.memory_limit_mb << 20)) as worker:
                yield worker
