"""Rows of a Parquet file, a slice at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sim.errors import InputError
from sim.inputs.traces.files import FREE_EXPANSION, TraceFile
from sim.inputs.traces.values import BadRow, Rows

if TYPE_CHECKING:
    import polars as pl

SLICE = 2**15


def parquet_columns(path: Path) -> frozenset[str]:
    """The names of the columns. Raises InputError for a damaged file."""
    import polars as pl  # slow to import, and only Parquet needs it

    try:
        return frozenset(pl.read_parquet_schema(path))
    except _polars_errors() as error:
        raise InputError(f"{path}: not a readable Parquet file ({first_line(error)})") from None


def parquet_rows(file: TraceFile) -> Rows:
    """Rows and their numbers from 1. A damaged slice, or one beyond the limit of expansion, ends
    the reading as a bad row."""
    import polars as pl

    start, unpacked, size = 0, 0, file.size
    allowed = max(FREE_EXPANSION, size * file.limits.expansion)
    total = 0
    while True:
        try:
            if not start:
                total = pl.scan_parquet(file.path).select(pl.len()).collect().item()
            part = pl.scan_parquet(file.path).slice(start, SLICE).collect()
        except _polars_errors() as error:
            yield start + 1, BadRow(f"the Parquet file is damaged ({first_line(error)})")
            return
        unpacked += int(part.estimated_size()) + 8 * part.height
        if unpacked > allowed:
            yield (
                start + 1,
                BadRow(
                    f"the Parquet file grows to more than {file.limits.expansion} times its size "
                    "(`--max-expansion` sets the limit)"
                ),
            )
            return
        bad = _not_finite(part)
        for number, row in enumerate(part.iter_rows(named=True)):
            column = bad.get(number)
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


def _polars_errors() -> tuple[type[BaseException], ...]:
    """What polars raises for a damaged file; a panic of its core is no Exception."""
    import polars as pl

    return (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


def first_line(error: BaseException) -> str:
    """What polars says, without the content of the file that may follow."""
    return (str(error).splitlines() or ["unknown"])[0][:80]
