"""Rows on disk as they come: an append-only log that survives kill -9.

A line is one row under the key of what decided it, so that a line is right whoever wrote it and
when. A line that was cut short by a kill is dropped when the log is opened again.
"""

from __future__ import annotations

import hashlib
import os
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


class Log:
    """Rows by key in memory, and in the file `path` if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.rows: dict[str, Row] = {}
        self.file: IO[bytes] | None = None
        if path:
            self.file = path.open("ab+")
            _claim(self.file, path)
            self._read(self.file)

    def _read(self, file: IO[bytes]) -> None:
        file.seek(0)
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                found = msgspec.json.decode(line)
                self.rows[found["key"]] = found["row"]
            except (msgspec.DecodeError, KeyError, TypeError):
                continue  # damaged by whoever touched the file; the row is computed again
        file.truncate(whole)
        file.seek(0, os.SEEK_END)

    def write(self, new: Iterable[tuple[str, Row]]) -> None:
        """Keep rows; they have left this process when the call returns."""
        lines = []
        for key, row in new:
            self.rows[key] = row
            if self.file:
                lines.append(msgspec.json.encode({"key": key, "row": row}))
        if self.file and lines:
            self.file.write(b"\n".join(lines) + b"\n")
            self.file.flush()

    def close(self) -> None:
        if self.file:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()


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
