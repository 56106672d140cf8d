"""Events of Chrome's trace format as lines of JSON, and the file that holds them.

Times are microseconds with six decimals or more, so that no picosecond is lost. No event has a
colour: Perfetto ignores `cname` on purpose and gives a colour by the name of a slice, and none of
the colours that Chrome knows by name is one of the pictures'.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from sim.output.files import atomic_write

NANO = 1000  # ticks


class Thread(NamedTuple):
    """A row of a trace: a thread of a process."""

    pid: int
    tid: int


class Point(NamedTuple):
    """A tick on a thread, at which a slice has begun and not ended."""

    thread: Thread
    tick: int


def write_events(path: Path, about: Mapping[str, str], lines: Iterable[str]) -> Path:
    """Write a trace, compressed if the name ends in .gz; `about` becomes its metadata."""
    with atomic_write(path) as temporary, temporary.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", 8, raw, mtime=0) as packed:
                _write(packed, about, lines)
        else:
            _write(raw, about, lines)
    return path


def _write(file: IO[bytes] | gzip.GzipFile, about: Mapping[str, str], lines: Iterable[str]) -> None:
    head = json.dumps(about, sort_keys=True)
    file.write(f'{{"displayTimeUnit":"ms","otherData":{head},"traceEvents":[\n'.encode())
    before = ""
    for line in lines:
        file.write(f"{before}{line}".encode())
        before = ",\n"
    file.write(b"\n]}\n")


def process_event(pid: int, name: str, note: str = "") -> Iterator[str]:
    """A process with its name, and a note that a viewer shows beside it."""
    yield _meta("process_name", Thread(pid, 0), f'"name":{json.dumps(name)}')
    yield _meta("process_sort_index", Thread(pid, 0), f'"sort_index":{pid}')
    if note:
        yield _meta("process_labels", Thread(pid, 0), f'"labels":{json.dumps(note)}')


def thread_event(thread: Thread, name: str) -> Iterator[str]:
    """A thread with its name; threads lie in the order of their numbers."""
    yield _meta("thread_name", thread, f'"name":{json.dumps(name)}')
    yield _meta("thread_sort_index", thread, f'"sort_index":{thread.tid}')


def _meta(what: str, at: Thread, args: str) -> str:
    return f'{{"name":"{what}","ph":"M","ts":0,"pid":{at.pid},"tid":{at.tid},"args":{{{args}}}}}'


def micros(t: int) -> str:
    """Ticks as microseconds, exactly."""
    return f"{t // 10**6}.{t % 10**6:06d}"


def stamp(t: int) -> str:
    """Ticks as microseconds for a viewer, exact when rounded to picoseconds.

    Perfetto multiplies by 1000 in floating point and cuts. Where it would read a whole nanosecond
    as one less, a tenth of a picosecond stands behind.
    """
    text = micros(t)
    if t % NANO == 0 and int(float(text) * 1000) * NANO < t:
        return f"{text}1"
    return text


def slice_event(name: str, at: Thread, begin: int, end: int, args: str = "") -> str:
    """A complete event; `name` needs no escapes and `args` is JSON without its braces."""
    return (
        f'{{"ph":"X","pid":{at.pid},"tid":{at.tid},"ts":{stamp(begin)},'
        f'"dur":{stamp(end - begin)},"name":"{name}","args":{{{args}}}}}'
    )


def outer_events(name: str, at: Thread, begin: int, end: int, args: str = "") -> Iterator[str]:
    """A slice that holds others, in whole nanoseconds; none if it is shorter.

    Perfetto cuts `ts` and `dur` to nanoseconds, each by itself, and drops a slice that seems to
    end behind the one around it. Both ends of the outer one are cut here, so that none does.
    """
    begin, end = begin // NANO * NANO, end // NANO * NANO
    if end > begin:
        yield slice_event(name, at, begin, end, args)


def counter_event(pid: int, name: str, t: int, key: str, value: float | str) -> str:
    """A counter of a process has a value from a tick on. Perfetto shows `name` and `key` as its
    title, one behind the other."""
    return (
        f'{{"ph":"C","pid":{pid},"tid":0,"ts":{stamp(t)},"name":"{name}",'
        f'"args":{{"{key}":{value}}}}}'
    )


def flow_events(number: int, name: str, *points: Point) -> Iterator[str]:
    """Arrows from point to point, each from the innermost slice there to the next.

    A viewer joins the events of one number and name. They must follow their slices in the file.
    """
    for i, (at, tick) in enumerate(points):
        kind = "s" if i == 0 else "t" if i < len(points) - 1 else "f"
        bind = "" if kind == "s" else '"bp":"e",'  # to the slice around, not to the next one
        yield (
            f'{{"ph":"{kind}",{bind}"cat":"flow","id":{number},"pid":{at.pid},"tid":{at.tid},'
            f'"ts":{stamp(tick)},"name":"{name}","args":{{}}}}'
        )


class Rows:
    """Rows for intervals that may overlap, since slices of one thread must not.

    Intervals come in the order of their begin, each goes to the first row that is free.
    """

    def __init__(self) -> None:
        self.until: list[int] = []

    def place(self, begin: int, end: int) -> tuple[int, bool]:
        """(row of an interval, whether it is the first one there)."""
        rows = self.until
        row = next((r for r, until in enumerate(rows) if until <= begin), len(rows))
        first = row == len(rows)
        rows[row : row + 1] = [end]
        return row, first


def numbered(name: str, row: int) -> str:
    """The name of a row: the first has none of its number."""
    return f"{name} {row + 1}" if row else name
