"""Arrow files: the file format (Feather) and the stream format that `datasets` writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tunewright.core.errors import DataError
from tunewright.data.sources import Note, Problem, Record, Source, _columns


class Arrow(Source):
    """Arrow IPC, mapped into memory and read in batches."""

    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".feather")

    def records(self, path: Path) -> Iterator[Record | Problem | Note]:
        import pyarrow
        import pyarrow.ipc

        try:
            with pyarrow.memory_map(str(path)) as bytes_of:
                if bytes_of.read(6) == b"ARROW1":
                    file = pyarrow.ipc.open_file(bytes_of)
                    batches = (file.get_batch(index) for index in range(file.num_record_batches))
                    yield from _columns.records(batches, file.schema, path)
                else:
                    bytes_of.seek(0)
                    stream = pyarrow.ipc.open_stream(bytes_of)
                    yield from _columns.records(stream, stream.schema, path)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"cannot be read as Arrow ({str(error).splitlines()[0]})", where=str(path)) from None
