"""The manifest of a result folder: which files a command wrote there, and their SHA-256."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import msgspec

MANIFEST = ".memorywall.json"
MOST_BYTES = 4 * 2**20  # of a manifest that is read
LONGEST = 255  # bytes of a file's name


class Manifest(msgspec.Struct, frozen=True):
    """Files by the command that wrote them: `results[command][name]` is a SHA-256."""

    memorywall: str = ""
    results: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder; an empty one where there is none, or none that can be read."""
        path = folder / MANIFEST
        try:
            if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_BYTES:
                return cls()
            manifest = msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return cls()
        # A name with a folder in it would reach files outside.
        return manifest if all(map(_plain, manifest.names)) else cls()

    def write(self, folder: Path) -> None:
        text = msgspec.json.format(msgspec.json.encode(self), indent=2)
        (folder / MANIFEST).write_bytes(text + b"\n")

    @property
    def names(self) -> set[str]:
        """Every file of every result."""
        return {name for files in self.results.values() for name in files}

    def has(self, folder: Path, name: str) -> bool:
        """Whether a file lies in a folder as some command wrote it."""
        path, known = folder / name, {f[name] for f in self.results.values() if name in f}
        return not path.is_symlink() and path.is_file() and digest(path) in known

    def files_of(self, command: str) -> set[str]:
        return set(self.results.get(command, ()))

    def owner_of(self, name: str) -> str:
        """The command that wrote a file, or ""."""
        return next((command for command, files in self.results.items() if name in files), "")

    def with_result(self, command: str, files: dict[str, str]) -> Manifest:
        """This manifest with another result of a command."""
        results = {**self.results, command: files}
        return Manifest(version("memorywall"), dict(sorted(results.items())))


def _plain(name: str) -> bool:
    """Whether a name can be that of a visible file in the folder itself."""
    if not name or name.startswith(".") or "\0" in name or len(name.encode()) > LONGEST:
        return False
    return Path(name).name == name


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
