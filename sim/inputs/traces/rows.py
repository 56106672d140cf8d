"""Rows of a file as mappings, whatever its syntax: CSV, JSON lines, a JSON list, Parquet.

A source says which columns there are and gives its rows with their numbers, as often as
needed, a block at a time. What is not even a row comes as a `BadRow` in its place.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from sim.errors import InputError, one_line, quoted
from sim.inputs.documents import without_doubles
from sim.inputs.traces.documents import entries
from sim.inputs.traces.files import PARQUET, TraceFile
from sim.inputs.traces.parquet import parquet_columns, parquet_rows
from sim.inputs.traces.values import NAMES, NOT_FINITE, BadRow, Row, Rows

# Text of a fraction is kept, see `values`.
_DECODE = msgspec.json.Decoder(float_hook=str).decode


class Source(NamedTuple):
    """A readable file: what its rows are called, their columns, and a way to read them."""

    unit: str
    columns: frozenset[str]
    rows: Callable[[], Rows]


def open_source(file: TraceFile, *, skip: bool) -> Source:
    """The source of a file; with `skip` broken rows may come before the first good one.

    Raises InputError if the file cannot be read or holds no row.
    """
    if file.head == PARQUET:
        return Source("row", parquet_columns(file.path), lambda: parquet_rows(file))
    start = _start(file)
    if start in "{[":
        if start == "{" and _is_lines(file):
            return _by_first_row(file.path, "line", lambda: _json_lines(file), skip)
        return _by_first_row(file.path, "entry", lambda: entries(file), skip)
    header = csv_header(file)
    return Source("line", frozenset(header), lambda: _csv(file))


def _start(file: TraceFile) -> str:
    """The first character that is no blank."""
    blanks = 0
    try:
        for block in file.blocks():
            text = block.removeprefix(b"\xef\xbb\xbf").lstrip()
            if text:
                return chr(text[0])
            blanks += len(block)
            if blanks > file.limits.line_bytes:
                raise BadRow(f"begins with more than {file.limits.line_bytes:,} blanks")
    except BadRow as broken:
        raise InputError(f"{file.path}: {broken.sentence()}") from None
    raise InputError(f"{file.path}: the file is empty; a trace needs a header or a row")


def _by_first_row(path: Path, unit: str, rows: Callable[[], Rows], skip: bool) -> Source:
    for number, row in rows():
        if not isinstance(row, BadRow):
            return Source(unit, frozenset(row), rows)
        if not skip:
            raise InputError(f"{path}, {unit} {number}: {row.sentence()}")
    raise InputError(f"{path}: holds no readable {unit}; a trace needs at least one")


# CSV -------------------------------------------------------------------------------------


def _csv(file: TraceFile) -> Rows:
    """Rows by the header's columns. A quoted cell may hold a comma, but no line end."""
    header: list[str] | None = None
    for number, line in file.lines():
        if isinstance(line, BadRow):
            yield number, line
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
        elif b"nan" in (lower := line.lower()) or b"inf" in lower:
            row = dict(zip(header, cells, strict=True))
            yield number, _not_finite(row) or row
        else:
            yield number, dict(zip(header, cells, strict=True))


def _not_finite(row: dict[str, str]) -> BadRow | None:
    """What is wrong with NaN or an infinity in a column that holds no names."""
    for column, cell in row.items():
        if column not in NAMES and cell.strip().lower().lstrip("+-") in NOT_FINITE:
            return BadRow("must be a finite number", column, cell)
    return None


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


def csv_header(file: TraceFile) -> list[str]:
    """The names of the columns of a CSV file. Raises InputError where one stands twice."""
    for number, line in file.lines():
        try:
            if isinstance(line, BadRow):
                raise line
            if line.strip():
                names = [name.strip() for name in _cells(line)]
                seen: set[str] = set()
                for name in names:
                    if name in seen:
                        raise BadRow(f"the header names column {quoted(name)} twice")
                    seen.add(name)
                return names
        except BadRow as bad:
            raise InputError(f"{file.path}, line {number}: {bad.sentence()}") from None
    raise InputError(f"{file.path}: the file is empty; it needs a header")


# JSON lines ------------------------------------------------------------------------------


def _json_lines(file: TraceFile) -> Rows:
    for number, line in file.lines():
        if isinstance(line, BadRow):
            yield number, line
        elif not line.isspace():
            yield number, _object(line)


def _object(line: bytes) -> Row | BadRow:
    try:
        value = _DECODE(line.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError as error:
        return BadRow(f"not UTF-8 text ({error.reason})")
    except ValueError as error:
        return BadRow(f"not a JSON object ({str(error)[:100]})")
    except RecursionError:
        return BadRow("not a JSON object of sensible depth")
    if not isinstance(value, dict):
        return BadRow("not a JSON object")
    # More colons than keys may mean a key that stands twice, which the fast decoder lets pass.
    return value if line.count(b":") == len(value) else _without_doubles(line, value)


def _without_doubles(line: bytes, row: Row) -> Row | BadRow:
    try:
        json.loads(line.removeprefix(b"\xef\xbb\xbf"), object_pairs_hook=without_doubles)
    except (ValueError, RecursionError) as error:
        return BadRow(one_line(str(error))[:200])
    return row


def _is_lines(file: TraceFile) -> bool:
    """Whether a file that begins with `{` holds an object a line, not one document.

    A document is an object over many lines, or one line whose values include a list of
    objects that is not a session's.
    """
    names = {suffix.lower() for suffix in file.path.suffixes}
    if names & {".jsonl", ".ndjson"}:
        return True
    first = next(_json_lines(file), None)
    if first is None or isinstance(first[1], BadRow):
        return False
    return not any(
        isinstance(value, list) and value and isinstance(value[0], dict)
        for key, value in first[1].items()
        if key not in ("sub_requests", "conversations")
    )
