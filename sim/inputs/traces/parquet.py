"""Rows of a Parquet file, a slice at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from sim.errors import InputError
from sim.inputs.traces.files import TraceFile
from sim.inputs.traces.parquet_pages import check_pages
from sim.inputs.traces.values import BadRow, Rows

if TYPE_CHECKING:
    import polars as pl

SLICE = 2**15
BUFFER = 64  # rows that are objects of Python at a time


def parquet_columns(path: Path) -> frozenset[str]:
    """The names of the columns. Raises InputError for a damaged file."""
    import polars as pl  # slow to import, and only Parquet needs it

    try:
        return frozenset(pl.read_parquet_schema(path))
    except polars_errors() as error:
        raise InputError(f"{path}: not a readable Parquet file ({first_line(error)})") from None


def parquet_rows(file: TraceFile) -> Rows:
    """Rows and their numbers from 1. A file beyond a limit, or a damaged slice, ends the reading
    as a bad row."""
    import polars as pl

    start, total, size = 0, 0, file.size
    try:
        check_pages(file)
    except BadRow as bad:
        yield 1, bad
        return
    while True:
        try:
            if not start:
                total = pl.scan_parquet(file.path).select(pl.len()).collect().item()
            part = pl.scan_parquet(file.path).slice(start, SLICE).collect()
        except polars_errors() as error:
            yield start + 1, BadRow(f"the Parquet file is damaged ({first_line(error)})")
            return
        flat, nested = _not_finite(part), _nested(part)
        for number, row in enumerate(part.iter_rows(named=True, buffer_size=BUFFER)):
            column = flat.get(number) or next((n for n in nested if not _finite(row[n])), "")
            broken = BadRow("must be a finite number", column, row[column]) if column else None
            yield start + number + 1, broken or row
        start += SLICE
        file.tell(size * min(start, total) // max(total, 1))
        if part.height < SLICE:
            return


def _not_finite(part: pl.DataFrame) -> dict[int, str]:
    """Row of the slice -> a column that holds NaN or an infinity there."""
    import polars as pl

    by_row: dict[int, str] = {}
    for column in part.select(pl.selectors.float()).get_columns():
        for row in (~column.is_finite()).fill_null(False).arg_true().to_list():
            by_row.setdefault(row, column.name)
    return by_row


def _nested(part: pl.DataFrame) -> list[str]:
    """Columns of lists and records, in which numbers with a fraction may stand."""
    return [n for n, kind in part.schema.items() if kind.is_nested() and "Float" in str(kind)]


def _finite(cell: object) -> bool:
    """Whether no number in a list or record, however deep, is NaN or an infinity."""
    if isinstance(cell, float):
        return math.isfinite(cell)
    if isinstance(cell, dict):
        return all(map(_finite, cell.values()))
    return all(map(_finite, cell)) if isinstance(cell, list) else True


def polars_errors() -> tuple[type[BaseException], ...]:
    """What polars raises for a damaged file; a panic of its core is no Exception."""
    import polars as pl

    return (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


def first_line(error: BaseException) -> str:
    """What polars says, without the content of the file that may follow."""
    return (str(error).splitlines() or ["unknown"])[0][:80]
