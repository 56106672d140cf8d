"""Result folders: one writer at a time, and results that are replaced as a whole or not at all.

New results are written into a hidden folder inside the result folder and moved into place at the
end. Until then an earlier result stays as it was. A run that is killed leaves a hidden folder; the
next run removes it. Names inside a result folder are never followed as links: a link under a name
that a result needs is replaced, not written through.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sim.errors import InputError

STAGING = ".memorywall-new-"
LAST = "summary.json"  # its presence says that a result is complete
_claimed: dict[Path, int] = {}  # folders that this process holds, and how often


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


@contextmanager
def claimed(folder: Path | None) -> Iterator[None]:
    """Hold a result folder for this process; without one, nothing happens.

    A missing folder is created. Raises InputError, before any work is done, where
    `folder` cannot be a result folder, cannot be written, or is held by another process.
    """
    if folder is None:
        yield
        return
    new = not folder.exists()
    real = _usable(folder)
    if real in _claimed:
        _claimed[real] += 1
        try:
            yield
        finally:
            _claimed[real] -= 1
        return
    handle = _lock(real, folder)
    _claimed[real] = 1
    try:
        for stale in real.glob(f"{STAGING}*"):
            if not stale.is_symlink():
                shutil.rmtree(stale, ignore_errors=True)
        yield
    finally:
        del _claimed[real]
        if new:
            with suppress(OSError):
                real.rmdir()  # where nothing was written
        os.close(handle)


def _usable(folder: Path) -> Path:
    """The real path of a folder, which is created and tested. Raises InputError."""
    if folder.is_symlink() and not folder.exists():
        raise InputError(f"--out {folder}: it is a link to nothing; remove it or choose another")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: it is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"--out {folder}: it cannot be written ({reason}); choose another folder"
        ) from None
    return folder.resolve()


def _lock(real: Path, folder: Path) -> int:
    """A handle of the folder, locked for as long as it is open. Raises InputError."""
    handle = os.open(real, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"--out {folder}: another memorywall is writing there; wait for it or choose another "
            "folder"
        ) from None
    except (ImportError, OSError):  # no locks here: unique names keep files whole all the same
        pass
    return handle


@contextmanager
def replacing(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """A staging folder for new results, which take the place of the old when the block ends.

    `names` are the files that an earlier result may have left: those that the block does not write
    are removed. Other files stay. If the block fails, `folder` is as it was before. Raises
    InputError as `claimed` does.
    """
    with claimed(folder):
        staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
        try:
            yield staging
            _move(staging, folder, set(names))
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _move(staging: Path, folder: Path, names: set[str]) -> None:
    """Move new files into place, the one that says "complete" last, after its old copy is gone."""
    new = sorted(path.name for path in staging.iterdir())
    for name in {*new, *names}:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            raise InputError(f"{path}: it is a folder where a result file goes; move it away")
    for name in new:
        _flush(staging / name)
    if LAST in names or LAST in new:
        (folder / LAST).unlink(missing_ok=True)
    for name in sorted(names - set(new)):
        (folder / name).unlink(missing_ok=True)
    for name in sorted(new, key=lambda name: name == LAST):
        os.replace(staging / name, folder / name)


def _flush(path: Path) -> None:
    """Let a file reach the disk: an error of the disk shows before anything is replaced."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
