"""The limits of a process: standard files, memory, threads. Imports next to nothing."""

from __future__ import annotations

import io
import os
import sys

LEAST_ADDRESSES = 2 * 10**9  # bytes; libraries reserve far more than they use
LEAST_FILES = 64
MORE_THREADS = 14  # that libraries start, beyond one per core
POLARS = "POLARS_MAX_THREADS"
MANY_THREADS = 4096  # limits this high are treated as no limit


def shortage() -> str:
    """What a limit of the process leaves too little of, as a sentence; "" if there is enough.

    Under such limits some libraries abort the process or wait without end, instead of raising an
    error.
    """
    wanted = os.environ.get(POLARS) or "1"  # the library panics at 0, and starts any number
    if not (wanted.isascii() and wanted.isdecimal() and 1 <= int(wanted[:9]) <= MANY_THREADS):
        return f"{POLARS} = {wanted[:20]!r}: must be a whole number from 1 to {MANY_THREADS:,}"
    try:
        import resource
    except ImportError:  # a system without such limits
        return ""
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY and addresses < LEAST_ADDRESSES:
        return (
            f"memory is limited to {addresses / 1e9:.1f} GB (ulimit -v); at least "
            f"{LEAST_ADDRESSES / 1e9:.0f} GB of address space is needed, most of it unused"
        )
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < LEAST_FILES:
        return f"open files are limited to {files} (ulimit -n); at least {LEAST_FILES} are needed"
    threads, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if threads == resource.RLIM_INFINITY or threads >= MANY_THREADS:
        return ""
    needed = (os.cpu_count() or 1) + MORE_THREADS
    if _startable(needed):
        return ""
    return (
        f"processes and threads are limited to {threads} (ulimit -u), other programs included; "
        f"about {needed} more are needed"
    )


def _startable(count: int) -> bool:
    """Whether so many threads can be started; they end at once."""
    import threading

    go = threading.Event()
    threads = [threading.Thread(target=go.wait, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        return False
    finally:
        go.set()
    return True


class StandardFile(io.TextIOWrapper):
    """Standard output or error, whose reader may leave: what is written after that is dropped.

    The command goes on, so that its results and its exit code do not depend on who reads them.
    """

    def write(self, text: str) -> int:
        """Write; see `io.TextIOBase.write`."""
        try:
            return super().write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Flush; see `io.IOBase.flush`."""
        try:
            super().flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)


def open_standard_files() -> None:
    """Make printing harmless.

    Where a standard file is closed, the null device takes its place, so that no result gets its
    number. Where the reader of a pipe leaves, output is dropped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            os.set_inheritable(number, True)  # workers have the same standard files
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115
    for name in ("stdout", "stderr"):
        file = getattr(sys, name)
        kept = {"encoding": file.encoding, "errors": file.errors}
        kept["line_buffering"] = file.line_buffering
        setattr(sys, name, StandardFile(file.detach(), **kept))
