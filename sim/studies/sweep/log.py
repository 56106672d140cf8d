"""Rows on disk as they come: an append-only log that survives kill -9.

A line is one row under the key of what decided it, with a checksum of both: a row that was changed
is not believed. A line that was cut short by a kill is dropped when the log is opened again. Any
other line that this module did not write is left out and counted; its point is computed again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import msgspec

from sim.errors import InputError
from sim.inputs.catalogue import Machine
from sim.studies.sweep.kinds import Row

SHARED = ("model", "machine")  # read once for many points, and the larger part
PACKAGES = ("sim", "workloads", "hw_models")
LONGEST_LINE = 2**20  # bytes; a row has a few thousand
Cell = str | int | float | bool | None


@cache
def fingerprint() -> str:
    """The version, and a digest of the code itself: a changed formula makes other keys."""
    digest = hashlib.blake2b(digest_size=16)
    for package in PACKAGES:
        root = Path(str(files(package)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return f"{version('memorywall')}+{digest.hexdigest()}"


class Keys:
    """Keys of points. The parts that many points share, as objects, are digested once."""

    def __init__(self, kind: str, option: str) -> None:
        self.head = f"{fingerprint()}\0{kind}\0{option}\0".encode()
        self.shared: dict[int, tuple[Any, bytes]] = {}

    def __call__(self, decides: dict[str, Any]) -> str:
        """The key of a row that depends on `decides`."""
        digest = hashlib.blake2b(self.head, digest_size=20)
        for name, part in decides.items():
            digest.update(name.encode())
            digest.update(self._part(part) if name in SHARED else msgspec.json.encode(part))
        return digest.hexdigest()

    def _part(self, part: Any) -> bytes:
        known = self.shared.get(id(part))
        if known is None:
            known = self.shared[id(part)] = (part, _plain(part))  # holds it: an id is not reused
        return known[1]


def _plain(part: Any) -> bytes:
    if isinstance(part, Machine):
        system = part.system
        part = (part.name, len(system.devices), system.switches, system.links, part.device)
    return hashlib.blake2b(msgspec.json.encode(part)).digest()


class Line(msgspec.Struct, frozen=True):
    """A line of the log. `check` is of the key and of the bytes of the row."""

    key: str
    row: msgspec.Raw
    check: str


MOST_ODD_LINES, MOST_ODD_BYTES = 100_000, 2**26  # of lines that are no rows
LINES = msgspec.json.Decoder(Line)
ROWS = msgspec.json.Decoder(dict[str, Cell])


class Log:
    """Rows by key in memory, and in the file `path` if there is one.

    damaged: lines that were left out. Raises InputError where the file is a link or is being
    written by another sweep.
    """

    def __init__(self, path: Path | None) -> None:
        self.rows: dict[str, Row] = {}
        self.damaged = 0
        self.file: IO[bytes] | None = None
        if path:
            self.file = os.fdopen(_open(path), "rb+")
            _claim(self.file, path)
            self._read(self.file, path)

    def _read(self, file: IO[bytes], path: Path) -> None:
        """Take the good lines. Nothing is cut off: the file may hold something else."""
        file.seek(0)
        line, odd_bytes, within_long = b"\n", 0, False
        while more := file.readline(LONGEST_LINE):
            line, damaged = more, self.damaged
            ends = line.endswith(b"\n")
            if within_long:  # more of a line that was counted
                odd_bytes += len(line)
            elif ends:
                self._take(line)
            elif len(line) < LONGEST_LINE:  # the last line, cut short by a kill
                break
            else:
                self.damaged += 1
            within_long = not ends
            odd_bytes += len(line) if self.damaged > damaged else 0
            if odd_bytes > MOST_ODD_BYTES or self.damaged > MOST_ODD_LINES:
                raise InputError(
                    f"{path}: it does not look like the log of a sweep; move it away or choose "
                    "another --out"
                )
        file.seek(0, os.SEEK_END)
        if not line.endswith(b"\n"):
            file.write(b"\n")

    def _take(self, line: bytes) -> None:
        """Believe a line whose checksum is right."""
        try:
            one = LINES.decode(line)
            if one.check != _check(one.key, bytes(one.row)):
                raise ValueError("the line was changed")
            self.rows[one.key] = ROWS.decode(one.row)
        except (
            ValueError,
            RecursionError,
        ):  # of which the errors of msgspec and of UTF-8 are kinds
            self.damaged += 1

    def write(self, new: Iterable[tuple[str, Row]]) -> None:
        """Keep rows; they have left this process when the call returns."""
        lines = []
        for key, row in new:
            self.rows[key] = row
            if self.file:
                raw = msgspec.json.encode(row)
                lines.append(msgspec.json.encode(Line(key, msgspec.Raw(raw), _check(key, raw))))
        if self.file and lines:
            self.file.write(b"\n".join(lines) + b"\n")
            self.file.flush()

    def close(self) -> None:
        if self.file:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()


def _check(key: str, row: bytes) -> str:
    return hashlib.blake2b(key.encode() + b"\0" + row, digest_size=8).hexdigest()


def _open(path: Path) -> int:
    """Open or make a log, never through a link. Raises InputError."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags, 0o666)
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            return handle
        os.close(handle)
        reason = "it has another name, too" if stat.S_ISREG(status.st_mode) else "no regular file"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    raise InputError(
        f"{path}: the log of the sweep cannot be opened ({reason}); move it away or choose "
        "another --out"
    )


def _claim(file: IO[bytes], path: Path) -> None:
    """One sweep a folder at a time: two would compute everything twice."""
    try:
        import fcntl
    except ImportError:  # not on this system; lines are whole all the same
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(f"{path}: another sweep is writing here; choose another --out") from None
