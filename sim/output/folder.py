"""Result folders: one writer at a time, and results that are replaced as a whole or not at all.

New files are written into a hidden folder inside the result folder. At the end that folder gets a
new name, which says that it is complete, and its files move into place. A command that is killed
before the new name leaves the earlier result. One that is killed after it leaves the new result:
whoever opens the folder next moves the rest of the files.

A manifest says which files a result has, and their SHA-256. Only a file that lies there as a
command of the same kind wrote it is replaced. A file of the user, a file that was changed, and the
result of another command are refused before any work is done.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sim.errors import InputError
from sim.output.files import sync
from sim.output.interrupts import interrupts_after
from sim.output.manifest import MANIFEST, Manifest, digest

STAGING = ".memorywall-new-"  # a result that is being written
COMPLETE = ".memorywall-complete-"  # a result whose files are on their way into place
LAST = "summary.json"  # of the visible files: its presence says that a result is complete
REPORT = "report.html"  # a page that shows a result; it belongs to the result that it shows
_claimed: dict[Path, int] = {}  # folders that this process holds, and how often


class ResultKind(NamedTuple):
    """Results of one kind: the command that writes them, and the files that they may have."""

    command: str
    files: tuple[str, ...]


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
        _tidy(real)
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
            f"{folder}: another memorywall is writing there; wait for it or choose another folder"
        ) from None
    except (ImportError, OSError):  # no locks here: unique names keep files whole all the same
        pass
    return handle


def _tidy(folder: Path) -> None:
    """Remove what a killed command left half written, and finish what it left complete."""
    for stale in folder.glob(f"{STAGING}*"):
        if not stale.is_symlink():
            shutil.rmtree(stale, ignore_errors=True)
    for complete in folder.glob(f"{COMPLETE}*"):
        if complete.is_dir() and not complete.is_symlink():
            if _is_ours(complete, folder):
                _move(complete, folder)
            else:
                shutil.rmtree(complete, ignore_errors=True)


def _is_ours(complete: Path, folder: Path) -> bool:
    """Whether a folder that says "complete" may be moved into place: it holds its manifest and
    files of it as they were written, and takes the place of nothing but earlier results."""
    new, old = Manifest.read(complete), Manifest.read(folder)
    names = {path.name for path in complete.iterdir()} - {MANIFEST}
    if not (complete / MANIFEST).exists():
        return not names  # all has moved
    if not names <= new.names:
        return False
    return all(new.has(complete, name) for name in names) and all(
        old.has(folder, name) or new.has(folder, name)
        for name in {*names, *old.names}
        if os.path.lexists(folder / name)
    )


def check_whole(folder: Path) -> None:
    """Finish, before a folder is read, a result that a killed command left complete.

    Raises InputError where that cannot be: the folder is read-only, or held by another process.
    """
    if any(folder.glob(f"{COMPLETE}*")):
        with claimed(folder):
            pass


def check_replaceable(
    folder: Path | None, kind: ResultKind, inputs: Iterable[str | Path | None] = ()
) -> None:
    """Raise InputError if a result of this kind would take the place of something else: of files
    that no command wrote, of a result of another kind, or of one of the `inputs`."""
    if folder is None or not folder.is_dir():
        return
    manifest = Manifest.read(folder)
    if os.path.lexists(folder / MANIFEST) and not manifest.results:
        raise InputError(
            f"{folder / MANIFEST}: it is no list of results, and the result would replace it; move "
            "it away or choose another folder"
        )
    for name in {*kind.files, *manifest.files_of(kind.command)}:
        _check_file(folder, name, kind.command, manifest, inputs)


def _check_file(
    folder: Path,
    name: str,
    command: str,
    manifest: Manifest,
    inputs: Iterable[str | Path | None] = (),
) -> None:
    """Raise InputError if a result file of a command would replace something else."""
    path = folder / name
    if not os.path.lexists(path):
        return
    owner = manifest.owner_of(name)
    if path.is_dir() and not path.is_symlink():
        raise InputError(f"{path}: it is a folder where a result file goes; move it away")
    if owner and owner != command:
        raise InputError(
            f"--out {folder}: it holds a result of `{owner}`, which has a {name}, too; choose "
            "another folder"
        )
    if not owner or not stat.S_ISREG(os.lstat(path).st_mode):
        raise InputError(
            f"{path}: the result would replace it, and memorywall did not write it; move it "
            "away or choose another folder"
        )
    for ref in inputs:
        if ref and os.path.exists(ref) and os.path.samefile(ref, path):
            raise InputError(
                f"{path}: it is an input, and the result would replace it; choose another "
                "folder for --out"
            )
    if manifest.results[owner][name] != digest(path):
        raise InputError(
            f"{path}: the result would replace it, and it was changed since memorywall wrote "
            "it; move it away or choose another folder"
        )


@contextmanager
def replacing(folder: Path, kind: ResultKind) -> Iterator[Path]:
    """A staging folder for new results, which take the place of the old when the block ends.

    Files of an earlier result of this kind that the block does not write are removed. Other files
    stay. If the block fails, `folder` is as it was before. Raises InputError as `claimed` and
    `check_replaceable` do.
    """
    with claimed(folder):
        staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
        try:
            yield staging
            new = tuple(sorted(path.name for path in staging.iterdir()))
            check_replaceable(folder, ResultKind(kind.command, (*kind.files, *new)))
            _finish(staging, folder, kind.command, {})
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def adding(folder: Path, kind: ResultKind, name: str) -> Iterator[Path]:
    """A path for one more file of the result of this kind that `folder` holds. When the block
    ends, the file takes its place beside the others and in their manifest.

    It replaces an earlier one of the same result alone. Raises InputError as `claimed` and
    `check_replaceable` do.
    """
    with claimed(folder):
        _check_file(folder, name, kind.command, Manifest.read(folder))
        staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
        try:
            yield staging / name
            others = Manifest.read(folder).results.get(kind.command, {})
            _finish(staging, folder, kind.command, others)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _finish(staging: Path, folder: Path, command: str, others: Mapping[str, str]) -> None:
    """Put the new files of a result into place. `others`: files of the same result that stay."""
    new = sorted(path.name for path in staging.iterdir())
    for name in new:
        sync(staging / name)
    digests = {name: digest(staging / name) for name in new}
    Manifest.read(folder).with_result(command, {**others, **digests}).write(staging)
    with interrupts_after():
        complete = staging.with_name(staging.name.replace(STAGING, COMPLETE))
        staging.rename(complete)
        _move(complete, folder)


def _move(complete: Path, folder: Path) -> None:
    """Move the files of a complete result into place, after the earlier one is marked as gone.

    Whenever it is cut short, calling it again finishes it: the manifest moves last.
    """
    if (complete / MANIFEST).exists():
        new, old = Manifest.read(complete), Manifest.read(folder)
        names = sorted(path.name for path in complete.iterdir() if path.name != MANIFEST)
        if LAST in names:
            (folder / LAST).unlink(missing_ok=True)
        for name in sorted(old.names - new.names):
            (folder / name).unlink(missing_ok=True)
        for name in sorted(names, key=lambda name: name == LAST):
            os.replace(complete / name, folder / name)
        os.replace(complete / MANIFEST, folder / MANIFEST)
    complete.rmdir()
