"""Tables that a user names: a CSV, compressed or not, or a Parquet file, as a frame.

What it takes to read one is known before it is read: a compressed file has the limits that a trace
has, and a name of a column stands there once.
"""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from sim.errors import InputError
from sim.inputs.traces.files import (
    GZIP,
    PARQUET,
    ZSTD,
    Expansion,
    Limits,
    LineBytes,
    TraceFile,
)
from sim.inputs.traces.parquet import first_line, parquet_columns, polars_errors
from sim.inputs.traces.parquet_pages import check_pages
from sim.inputs.traces.rows import csv_header
from sim.inputs.traces.values import BadRow
from workloads.model import Record

USUAL = Limits()
MOST_COLUMNS = 1000


class TableLimits(Record, frozen=True, kw_only=True):
    """What a table of measurements may ask of its reader, as options."""

    max_line_bytes: LineBytes = USUAL.line_bytes
    max_expansion: Expansion = USUAL.expansion

    @property
    def limits(self) -> Limits:
        """As the reader takes them."""
        return Limits(line_bytes=self.max_line_bytes, expansion=self.max_expansion)


def read_table(path: Path, limits: Limits = USUAL) -> pl.DataFrame:
    """A CSV or Parquet file as a frame. Raises InputError."""
    file = TraceFile(path, limits)
    if not file.size or not file.head:  # files of the kernel state no size, and may have no end
        raise InputError(f"{path}: the file is empty; a table needs a header and rows")
    try:
        if file.head == PARQUET or path.suffix == ".parquet":
            check_pages(file)
            _check_width(path, len(parquet_columns(path)))
            return pl.read_parquet(path)
        _check_width(path, len(csv_header(file)))
        packed = file.head.startswith((GZIP, ZSTD))
        content = io.BytesIO(b"".join(file.blocks())) if packed else path
        return pl.read_csv(content, infer_schema_length=None)
    except BadRow as bad:
        raise InputError(f"{path}: {bad.sentence()}") from None
    except polars_errors() as error:
        raise InputError(f"{path}: not a readable table ({first_line(error)})") from None


def _check_width(path: Path, count: int) -> None:
    if count > MOST_COLUMNS:
        raise InputError(f"{path}: {count:,} columns; a table has {MOST_COLUMNS:,} at most")
