"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sim.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """An empty file with a unique name beside `path`, which it becomes when the block ends without
    an error. An interrupt leaves what was there before; a link at `path` is replaced. Raises
    InputError for a folder, a device or a pipe at `path`."""
    if special := _special(path):
        raise InputError(f"{path}: {special}")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    temporary.chmod(0o666 & ~_umask())
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_file(path: Path) -> None:
    """Raise InputError, before any work is done, for a file that cannot be written at the end."""
    if reason := _special(path) or _unwritable(path):
        raise InputError(f"--out {path}: {reason}")


def _special(path: Path) -> str:
    """Why a file may not take the place of what lies at `path`, or ""."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # nothing is there, or writing will say why it cannot be
        return ""
    if stat.S_ISDIR(mode):
        return "it is a folder; name a file"
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        return ""
    return "it is a device or a pipe; name a file"


def _unwritable(path: Path) -> str:
    """Why nothing can be written under this name, or ""."""
    if path.is_symlink() and not path.exists():
        return "it is a link to nothing; remove it or choose another"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return ""
    except OSError as error:
        return f"it cannot be written ({(error.strerror or str(error)).lower()})"


def sync(path: Path) -> None:
    """Sync a file, so that an error of the disk appears before an earlier file is replaced."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
