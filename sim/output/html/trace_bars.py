"""The operators of a run's trace as bars, row by row.

Devices that do the same at the same times share a row.
"""

from __future__ import annotations

import gzip
import re
import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sim.errors import InputError
from sim.output.html.charts import micro
from sim.output.html.charts import name_of as state_name
from sim.output.perfetto.processes import FIRST_LANE, OPERATORS, STATE
from sim.output.plots.style import STATE_NAMES
from sim.output.report import duration, quantity
from sim.states import STATES

MOST_BYTES = 2**30  # of a trace that is unpacked
_STATES = {name: state for state, name in STATE_NAMES.items()}
_DEVICES = re.compile(r"gpu(\d+)(?:-(\d+))?")


class Event(msgspec.Struct, frozen=True):
    """An event of Chrome's trace format, times in microseconds."""

    name: str
    ph: str
    pid: int
    tid: int
    ts: float = 0.0
    dur: float = 0.0
    args: dict[str, Any] = {}


class TraceFile(msgspec.Struct, frozen=True):
    """What a report needs of a trace."""

    traceEvents: list[Event]
    otherData: dict[str, str] = {}


class Bar(msgspec.Struct, frozen=True):
    """An operator, or a time between operators, on a row of the chart. Microseconds."""

    begin: float
    lasts: float
    state: str
    name: str
    about: str
    states: str
    number: int  # of the pass


Rows = dict[str, list[Bar]]  # by the label of the row


def read_trace(path: Path) -> TraceFile:
    """The events of a trace. Raises InputError for a file that is damaged or far too large."""
    try:
        with gzip.open(path) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InputError(f"{path}: more than {MOST_BYTES:,} bytes when unpacked")
        return msgspec.json.decode(content, type=TraceFile)
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def rows_of(events: Sequence[Event]) -> Rows:
    """The bars of each device (and of each further stream); equal devices share a row, be they one
    process of the trace or several."""
    names = {e.pid: e.args.get("name", "") for e in events if e.name == "process_name"}
    threads = {(e.pid, e.tid): e.args.get("name", "") for e in events if e.name == "thread_name"}
    bars: dict[tuple[int, str], list[Bar]] = defaultdict(list)
    waits: dict[int, list[Event]] = defaultdict(list)
    for e in events:
        if e.ph != "X" or not str(names.get(e.pid, "")).startswith("gpu"):
            continue
        stream = str(threads.get((e.pid, e.tid), ""))
        if (e.tid == OPERATORS or stream.startswith("stream ")) and "bound" in e.args:
            bars[e.pid, stream if e.tid > FIRST_LANE else ""].append(_bar(e))
        elif e.tid == STATE:
            waits[e.pid].append(e)
    for pid, mine in waits.items():
        bars[pid, ""] += _between(mine, sorted(bars[pid, ""], key=lambda b: b.begin))
    same: dict[tuple[str, tuple[Bar, ...]], list[int]] = {}
    for (pid, stream), found in sorted(bars.items()):
        key = (stream, tuple(sorted(found, key=lambda b: b.begin)))
        same.setdefault(key, []).extend(_devices(pid, str(names[pid])))
    return {
        _row_label(pids) + (f", {stream}" if stream else ""): list(found)
        for (stream, found), pids in same.items()
    }


def _devices(pid: int, name: str) -> range:
    """The devices that a process stands for, by its name."""
    found = _DEVICES.match(name)
    if not found:
        return range(pid, pid + 1)
    first, last = int(found[1]), int(found[2] or found[1])
    return range(first, last + 1)


def _row_label(pids: Sequence[int]) -> str:
    if len(pids) == 1:
        return f"gpu{pids[0]}"
    if pids[-1] - pids[0] == len(pids) - 1:
        return f"gpu{pids[0]} to {pids[-1]}"
    return f"gpu{', '.join(map(str, pids))}"


def _bar(e: Event) -> Bar:
    spent = {s: float(e.args.get(f"{s}_us", 0.0)) for s in STATES}
    moved = {"HBM": e.args.get("hbm_bytes"), "link": e.args.get("link_bytes")}
    sizes = [quantity(e.args.get("flops", 0), "FLOP")]
    sizes += [f"{quantity(x, 'B')} of {name}" for name, x in moved.items() if x is not None]
    at = [f"pass {e.args['pass']}", f"micro-batch {e.args['micro_batch']}"]
    if e.args.get("layer", -1) >= 0:
        at.append(f"layer {e.args['layer']}")
    about = ", ".join([e.args["phase"], *at, *sizes, f"bound: {e.args['bound']}"])
    states = ", ".join(f"{state_name(s)} {micro(duration(t / 1e6))}" for s, t in spent.items() if t)
    longest = max(spent, key=lambda s: spent[s])
    return Bar(e.ts, e.dur, longest, e.name, about, states, e.args["pass"])


def _between(states: Sequence[Event], bars: Sequence[Bar]) -> Iterator[Bar]:
    """Times of a device in which no operator of its first stream is under way."""
    begins = [bar.begin for bar in bars]
    for e in states:
        at = bisect_right(begins, e.ts + 1e-6) - 1
        if not bars or (at >= 0 and e.ts < bars[at].begin + bars[at].lasts - 1e-6):
            continue
        number = bars[min(at + 1, len(bars) - 1)].number
        phase = bars[min(at + 1, len(bars) - 1)].about.split(", ")[0]
        state = _STATES.get(e.name, e.name)  # other programs give states names of their own
        yield Bar(e.ts, e.dur, state, state_name(state), phase, "no operator", number)
