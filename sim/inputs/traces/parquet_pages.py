"""What a Parquet file grows to when it is read, from the headers of its pages alone.

The footer lists the columns of each group of rows; in front of each page stands its size after
unpacking and the number of its values. A reader allocates by these numbers, so they are checked
before it does. Both are records of Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from sim.errors import shortened
from sim.inputs.traces.files import FREE_EXPANSION, TraceFile
from sim.inputs.traces.values import BadRow

MAGIC = b"PAR1"
MOST_FOOTER = 2 * 2**20  # bytes; about ten thousand columns of groups
MOST_PAGES = 100_000
MOST_PAGE = 2**26  # bytes of a page after unpacking; writers aim at 1 MiB
HEADER = 2**14  # bytes in which a page's header is looked for at first
VALUE = 8  # bytes that a value takes at least once it is read
DEEPEST = 24  # levels of records


class Page(NamedTuple):
    """A page: the name of its column, its bytes after unpacking, and its values."""

    column: str
    unpacked: int
    values: int


def check_pages(file: TraceFile) -> None:
    """Raise BadRow for a file that grows beyond the limits of expansion and of a cell, or whose
    structure is damaged."""
    limits, total = file.limits, 0
    allowed = max(FREE_EXPANSION, file.size * limits.expansion)
    for number, page in enumerate(pages(file), 1):
        where = f"column `{shortened(page.column)}`"
        if number > MOST_PAGES:
            raise BadRow(f"the Parquet file has more than {MOST_PAGES:,} pages; write larger ones")
        if page.unpacked > max(page.values, 1) * limits.line_bytes:
            raise BadRow(
                f"{where}: a cell is longer than {limits.line_bytes:,} bytes (`--max-line-bytes` "
                "sets the limit)"
            )
        if page.unpacked > MOST_PAGE:
            raise BadRow(
                f"{where}: a page unpacks to {page.unpacked:,} bytes; pages end at {MOST_PAGE:,}, "
                "so write smaller ones"
            )
        total += page.unpacked + VALUE * page.values
        if total > allowed:
            raise BadRow(
                f"the Parquet file grows to more than {limits.expansion} times its size "
                "(`--max-expansion` sets the limit)"
            )


def pages(file: TraceFile) -> Iterator[Page]:
    """The pages of all columns, from their headers. Raises BadRow where the file is damaged."""
    try:
        with file.path.open("rb") as opened:
            for chunk in _chunks(_footer(opened, file.size)):
                yield from _pages(opened, chunk)
    except OSError as error:
        raise BadRow(f"reading stops here ({error.strerror or error})") from None
    except (_Damaged, IndexError, KeyError, TypeError, AttributeError):
        raise BadRow("the Parquet file is damaged (its footer or a page's header)") from None


class _Damaged(Exception):
    """Bytes that are no record of the protocol."""


def _footer(opened: BinaryIO, size: int) -> dict[int, Any]:
    opened.seek(max(0, size - 8))
    tail = opened.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or length + 12 > size:
        raise _Damaged
    if length > MOST_FOOTER:
        raise BadRow(
            f"the footer of the Parquet file takes {length:,} bytes; footers end at "
            f"{MOST_FOOTER:,}, so write larger groups of rows"
        )
    opened.seek(size - 8 - length)
    return _Record(opened.read(length)).struct()


def _chunks(footer: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """The records of the columns of all groups of rows (ColumnMetaData)."""
    for group in footer.get(4, []):
        for column in group[1]:
            yield column[3]


def _pages(opened: BinaryIO, chunk: dict[int, Any]) -> Iterator[Page]:
    """The pages of a column of a group: a dictionary, if it has one, then the data."""
    name = b".".join(chunk[3]).decode("utf-8", "replace")
    at = min(offset for offset in (chunk.get(11), chunk[9]) if offset)
    end = at + chunk[7]
    while at < end:
        head, length = _header(opened, at)
        content = head.get(5) or head.get(8) or head.get(7) or {1: 0}
        unpacked, values = head[2], content[1]
        if unpacked < 0 or values < 0 or head[3] < 0:
            raise _Damaged
        yield Page(name, unpacked, values)
        at += length + head[3]


def _header(opened: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """The header of the page at a place, and its length. Extremes in it may make it long."""
    for most in (HEADER, 2**8 * HEADER):
        opened.seek(at)
        record = _Record(opened.read(most))
        try:
            return record.struct(), record.at
        except IndexError:
            continue
    raise _Damaged


class _Record:
    """A reader of Thrift's compact protocol: structs become dicts by the number of the field."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The fields up to the mark that ends them. Raises IndexError where the bytes end."""
        if depth > DEEPEST:
            raise _Damaged
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (4, 5, 6):
            return self._signed()
        if kind in (1, 2, 3):
            return self._byte()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 12:
            return self.struct(depth + 1)
        raise _Damaged  # maps do not occur in Parquet

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = head >> 4
        if count == 15:
            count = self._unsigned()
        if count > len(self.content):
            raise _Damaged
        return [self._value(head & 15, depth + 1) for _ in range(count)]

    def _byte(self) -> int:
        byte = self.content[self.at]
        self.at += 1
        return byte

    def _bytes(self, count: int) -> bytes:
        taken = self.content[self.at : self.at + count]
        if len(taken) < count:
            raise IndexError
        self.at += count
        return taken

    def _unsigned(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number
            if shift > 63:
                raise _Damaged

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)
