"""Rows of a file as mappings, whatever its syntax: CSV, JSON lines, a JSON list, Parquet.

A source says which columns there are and gives its rows with their numbers, as often as
asked, a block at a time. What is not even a row comes as a `BadRow` in its place.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from sim.errors import InputError
from sim.inputs.traces.documents import entries
from sim.inputs.traces.files import PARQUET, blocks, head, lines
from sim.inputs.traces.values import BadRow, Row

Rows = Iterator[tuple[int, Row | BadRow]]
SLICE = 2**15
# Text of a fraction is kept, see `values`.
_DECODE = msgspec.json.Decoder(float_hook=str).decode


class Source(NamedTuple):
    """A readable file: what its rows are called, their columns, and a way to read them."""

    unit: str
    columns: frozenset[str]
    rows: Callable[[], Rows]


def open_source(path: Path, *, skip: bool) -> Source:
    """The source at `path`; with `skip` broken rows may come before the first good one.

    Raises InputError if the file cannot be read or holds no row.
    """
    if head(path) == PARQUET:
        return Source("row", _parquet_columns(path), lambda: _parquet(path))
    start = _start(path)
    if start in "{[":
        if start == "{" and _is_lines(path):
            return _by_first_row(path, "line", lambda: _json_lines(path), skip)
        return _by_first_row(path, "entry", lambda: entries(path), skip)
    header = _header(path)
    return Source("line", frozenset(header), lambda: _csv(path))


def _start(path: Path) -> str:
    """The first character that is no blank."""
    try:
        for block in blocks(path):
            found = block.removeprefix(b"\xef\xbb\xbf").lstrip()
            if found:
                return chr(found[0])
    except BadRow as broken:
        raise InputError(f"{path}: {broken.sentence()}") from None
    raise InputError(f"{path}: the file is empty; a trace needs a header or a row")


def _by_first_row(path: Path, unit: str, rows: Callable[[], Rows], skip: bool) -> Source:
    for number, row in rows():
        if not isinstance(row, BadRow):
            return Source(unit, frozenset(row), rows)
        if not skip:
            raise InputError(f"{path}, {unit} {number}: {row.sentence()}")
    raise InputError(f"{path}: holds no readable {unit}; a trace needs at least one")


# CSV -------------------------------------------------------------------------------------


def _csv(path: Path) -> Rows:
    """Rows by the header's columns. A quoted cell may hold a comma, but no line end."""
    header: list[str] | None = None
    for number, line in lines(path):
        if isinstance(line, BadRow):
            yield number, line
            continue
        if not line or line == b"\r":
            continue
        try:
            cells = _cells(line)
        except BadRow as bad:
            yield number, bad
            continue
        if header is None:
            header = [name.strip() for name in cells]
        elif len(cells) != len(header):
            yield number, BadRow(f"{len(cells)} cells under a header of {len(header)}")
        else:
            yield number, dict(zip(header, cells, strict=True))


def _cells(line: bytes) -> list[str]:
    try:
        written = line.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 text (byte {error.start} of the line)") from None
    if '"' not in written:
        return written.removesuffix("\r").split(",")
    try:
        return next(csv.reader([written], strict=True))
    except (csv.Error, StopIteration) as error:
        raise BadRow(f"not a line of CSV ({error})") from None


def _header(path: Path) -> list[str]:
    for number, line in lines(path):
        try:
            if isinstance(line, BadRow):
                raise line
            if line.strip():
                names = [name.strip() for name in _cells(line)]
                double = next((n for n in names if names.count(n) > 1), None)
                if double is not None:
                    raise BadRow(f"the header names column `{double[:60]}` twice")
                return names
        except BadRow as bad:
            raise InputError(f"{path}, line {number}: {bad.sentence()}") from None
    raise InputError(f"{path}: the file is empty; a trace needs a header or a row")


# JSON lines ------------------------------------------------------------------------------


def _json_lines(path: Path) -> Rows:
    for number, line in lines(path):
        if isinstance(line, BadRow):
            yield number, line
        elif line and not line.isspace():
            yield number, _object(line)


def _object(line: bytes) -> Row | BadRow:
    try:
        found = _DECODE(line.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError as error:
        return BadRow(f"not UTF-8 text ({error.reason})")
    except ValueError as error:
        return BadRow(f"not a JSON object ({str(error)[:100]})")
    except RecursionError:
        return BadRow("not a JSON object of sensible depth")
    return found if isinstance(found, dict) else BadRow("not a JSON object")


def _is_lines(path: Path) -> bool:
    """Whether a file that begins with `{` holds an object a line, not one document.

    A document is an object over many lines, or one line whose values include a list of
    objects that is not a session's.
    """
    names = {suffix.lower() for suffix in path.suffixes}
    if names & {".jsonl", ".ndjson"}:
        return True
    first = next(_json_lines(path), None)
    if first is None or isinstance(first[1], BadRow):
        return False
    return not any(
        isinstance(value, list) and value and isinstance(value[0], dict)
        for key, value in first[1].items()
        if key not in ("sub_requests", "conversations")
    )


# Parquet ---------------------------------------------------------------------------------


def _parquet_columns(path: Path) -> frozenset[str]:
    import polars as pl  # slow to import, and only Parquet needs it

    try:
        return frozenset(pl.read_parquet_schema(path))
    except _polars_errors() as error:
        raise InputError(f"{path}: not a readable Parquet file ({_first_line(error)})") from None


def _parquet(path: Path) -> Rows:
    import polars as pl

    start = 0
    while True:
        try:
            part = pl.scan_parquet(path).slice(start, SLICE).collect()
        except _polars_errors() as error:
            yield start + 1, BadRow(f"the Parquet file is damaged ({_first_line(error)})")
            return
        yield from enumerate(part.iter_rows(named=True), start + 1)
        if part.height < SLICE:
            return
        start += SLICE


def _polars_errors() -> tuple[type[BaseException], ...]:
    """What polars raises for a damaged file; a panic of its core is no Exception."""
    import polars as pl

    return (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["unknown"])[0][:120]
