"""Bytes and lines of a file that may be compressed, a block at a time.

Compression is told by the first bytes, not by the name. Whatever breaks on the way (a
stream cut short, a line without end) comes as a `BadRow` in the place where it happens.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sim.errors import InputError
from sim.inputs.traces.values import BadRow

BLOCK = 2**18
# Compressed bytes taken at once: few, so that a hostile file cannot swell one block
# beyond about 100 MB.
COMPRESSED = 2**12
MAX_LINE = 2**20
GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"


def head(path: Path) -> bytes:
    """The first bytes of the file, as they lie on disk."""
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def blocks(path: Path) -> Iterator[bytes]:
    """The uncompressed content in blocks; raises BadRow where it cannot go on."""
    start = head(path)
    try:
        with path.open("rb") as file:
            if start.startswith(GZIP):
                yield from _decompressed(file, lambda: zlib.decompressobj(wbits=31), "gzip")
            elif start.startswith(ZSTD):
                yield from _decompressed(file, _zstd(path), "zstd")
            else:
                while block := file.read(BLOCK):
                    yield block
    except OSError as error:
        raise BadRow(f"reading stops here ({error.strerror or error})") from None


def lines(path: Path) -> Iterator[tuple[int, bytes | BadRow]]:
    """Lines and their numbers from 1, without the line end."""
    number, tail, within_long = 1, b"", False
    try:
        for block in blocks(path):
            *whole, tail = (tail + block).split(b"\n")
            for line in whole:
                if within_long:
                    within_long = False
                elif len(line) > MAX_LINE:
                    yield number, _too_long()
                else:
                    yield number, line
                number += 1
            if len(tail) > MAX_LINE:
                if not within_long:
                    yield number, _too_long()
                tail, within_long = b"", True
    except BadRow as broken:
        yield number, broken
        return
    if tail and not within_long:
        yield number, tail


def _too_long() -> BadRow:
    return BadRow(f"a line is longer than {MAX_LINE} bytes")


def _decompressed(file: Any, new: Callable[[], Any], kind: str) -> Iterator[bytes]:
    """One compressed stream after the other; the three libraries share this interface."""
    stream = new()
    fresh = False
    while packed := file.read(COMPRESSED):
        while packed:
            if fresh:
                stream = new()
            try:
                block = stream.decompress(packed)
            except Exception as error:
                # Each library has an error class of its own; they share no base.
                raise BadRow(f"the {kind} stream is damaged here ({error})") from None
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


def count_rows(path: Path) -> int | None:
    """About how many rows a trace has: its lines but for a header; None where lines say nothing
    (Parquet, a JSON list) or the file is damaged."""
    count, start, tail = 0, b"", b""
    try:
        for block in blocks(path):
            start, tail = start or block[:1], block or tail
            count += block.count(b"\n")
    except BadRow:
        return None
    if start in (b"", b"[") or tail.endswith(PARQUET):
        return None
    return count + (not tail.endswith(b"\n")) - (start != b"{")
