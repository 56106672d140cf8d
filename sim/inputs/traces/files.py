"""Bytes and lines of a file that may be compressed, a block at a time.

The first bytes show the compression, not the name. Whatever breaks on the way (a
stream cut short, a line without end) comes as a `BadRow` in the place where it happens.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sim.errors import InputError
from sim.inputs.documents import check_readable
from sim.inputs.traces.values import BadRow

BLOCK = 2**18
# Compressed bytes taken at once: few, so that a hostile file cannot swell one block
# beyond about 100 MB.
COMPRESSED = 2**12
FREE_EXPANSION = 2**26  # bytes that a compressed file may grow to, whatever its size
GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
LineBytes = Annotated[
    int,
    Meta(ge=64, le=2**30),
    Meta(description="Most bytes of a line or a cell of the file, or of an entry of a JSON list"),
]
Expansion = Annotated[
    int,
    Meta(gt=0, le=2**31),
    Meta(
        description="Most bytes that a compressed file gives per byte of it, beyond the first "
        "64 MiB"
    ),
]
Watch = Callable[[int], None]  # bytes read from disk so far


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a file may ask of its reader. A file that goes beyond ends there, as a bad row.

    line_bytes: bytes of a line, or of an entry of a JSON list. blank_lines: empty lines one after
    another. expansion: uncompressed bytes per byte of the file, beyond the first 64 MiB.
    """

    line_bytes: int = 2**20
    blank_lines: int = 1000
    expansion: int = 100


class TraceFile:
    """A file of any size, read a block at a time.

    watch: called after each block with the bytes read from disk so far. Raises InputError for
    what is no regular file, as a trace is read more than once.
    """

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self.path, self.limits = path, limits or Limits()
        self.watch: Watch | None = None
        try:
            check_readable(path)
            with path.open("rb") as file:
                self.head = file.read(4)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size

    def blocks(self) -> Iterator[bytes]:
        """The uncompressed content in blocks; raises BadRow where it cannot go on."""
        try:
            with self.path.open("rb") as file:
                if self.head.startswith(GZIP):
                    yield from self._unpacked(file, lambda: zlib.decompressobj(wbits=31), "gzip")
                elif self.head.startswith(ZSTD):
                    yield from self._unpacked(file, _zstd(self.path), "zstd")
                else:
                    while block := file.read(BLOCK):
                        self._tell(file)
                        yield block
        except OSError as error:
            raise BadRow(f"reading stops here ({error.strerror or error})") from None

    def lines(self) -> Iterator[tuple[int, bytes | BadRow]]:
        """Lines and their numbers from 1, without the line end; empty lines are left out."""
        longest, most_blank = self.limits.line_bytes, self.limits.blank_lines
        number, blank, tail, within_long = 1, 0, b"", False
        try:
            for block in self.blocks():
                *complete, tail = (tail + block).split(b"\n")
                for line in complete:
                    if within_long:
                        within_long = False
                    elif not line or line == b"\r":
                        blank += 1
                        if blank > most_blank:
                            raise BadRow(f"more than {most_blank:,} empty lines in a row")
                    else:
                        blank = 0
                        yield number, line if len(line) <= longest else self._too_long()
                    number += 1
                if len(tail) > longest:
                    if not within_long:
                        yield number, self._too_long()
                    tail, within_long = b"", True
        except BadRow as broken:
            yield number, broken
            return
        if tail and tail != b"\r" and not within_long:
            yield number, tail

    def tell(self, bytes_read: int) -> None:
        """Pass on that so many bytes were read from disk."""
        if self.watch:
            self.watch(bytes_read)

    def _tell(self, file: Any) -> None:
        if self.watch:
            self.watch(file.tell())

    def _too_long(self) -> BadRow:
        return BadRow(f"a line is longer than {self.limits.line_bytes:,} bytes")

    def _unpacked(self, file: Any, new: Callable[[], Any], kind: str) -> Iterator[bytes]:
        """One compressed stream after the other; the three libraries share this interface."""
        stream = new()
        fresh, written, bytes_read = False, 0, 0
        while packed := file.read(COMPRESSED):
            bytes_read += len(packed)
            self._tell(file)
            while packed:
                if fresh:
                    stream = new()
                try:
                    block = stream.decompress(packed)
                except Exception as error:
                    # Each library has an error class of its own; they share no base.
                    raise BadRow(f"the {kind} stream is damaged here ({error})") from None
                written += len(block)
                if written > FREE_EXPANSION and written > bytes_read * self.limits.expansion:
                    raise BadRow(
                        f"the {kind} stream grows to more than {self.limits.expansion} times its "
                        "size (`--max-expansion` sets the limit)"
                    )
                yield block
                fresh = stream.eof
                packed = stream.unused_data if fresh else b""
        if not fresh:
            raise BadRow(f"the file ends within its {kind} stream; it was cut short")


def _zstd(path: Path) -> Callable[[], Any]:
    """Maker of decompressors: Python's own from 3.14 on, else the package zstandard."""
    if sys.version_info >= (3, 14):
        return importlib.import_module("compression.zstd").ZstdDecompressor  # type: ignore[no-any-return,unused-ignore]
    try:
        module = importlib.import_module("zstandard")
    except ImportError:
        raise InputError(
            f"{path}: compressed by zstd, which needs the package zstandard; "
            "`pip install memorywall[traces]`, or unpack the file with `zstd -d`"
        ) from None
    return lambda: module.ZstdDecompressor().decompressobj()
