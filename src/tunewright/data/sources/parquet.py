"""Parquet files, read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tunewright.core.errors import DataError
from tunewright.data.sources import Note, Problem, Record, Source, _columns


class Parquet(Source):
    """Parquet. A file that `datasets` wrote keeps the names of its classes."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def records(self, path: Path) -> Iterator[Record | Problem | Note]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from _columns.records(file.iter_batches(), file.schema_arrow, path)
        # The reader's errors for damaged files: the magic, the footer, a page that does not unpack.
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"cannot be read as Parquet ({str(error).splitlines()[0]})", where=str(path)) from None
