"""A window of a serving run as a trace for ui.perfetto.dev (Chrome's JSON).

Each replica is a process: its steps, one lane per device (stage by stage, rank by rank) with its
states, and counters of running and waiting requests and KV blocks. One more process has one track
per request. What overlaps the window is written as a whole, so no amount is cut.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sim.mapping.parallelism import Parallelism
from sim.output.files import atomic_write
from sim.output.perfetto import micros, process_event, slice_event, thread_event
from sim.serve.busy_periods import busy_periods
from sim.serve.columns import STATE_COLUMNS, Column, RequestColumns, StepColumns
from sim.serve.live import PARTS
from sim.serve.record import ServeRecord
from sim.states import STATES

if TYPE_CHECKING:
    import polars as pl

FIRST_STEPS, FIRST_DEVICE = 1, 1001  # tids; steps that overlap take further rows
MOST_REQUESTS = 500  # tracks beyond it are hard to read
COUNTERS = ("running", "waiting", "kv_blocks")
Row = dict[str, Any]


def write_window(
    path: Path,
    record: ServeRecord,
    window: tuple[int, int],
    most_requests: int = MOST_REQUESTS,
) -> Path:
    """Write the trace of the ticks [begin, end), compressed if the name ends in .gz.

    The same run gives the same bytes. The metadata say how many requests are left out.
    """
    requests = record.requests
    chosen, inside = window_requests(requests, window, most_requests)
    head = json.dumps(
        {
            "tool": f"memorywall {version('memorywall')}",
            "window_ps": f"{window[0]} to {window[1]}; what overlaps it is written whole",
            "requests": f"{len(chosen)} of {inside} in the window written, the earliest first",
            "order_of_states": "inside a step the amounts are exact, their order is a convention",
        },
        sort_keys=True,
    )
    lines = events(chosen, record, window)
    with atomic_write(path) as temporary, temporary.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                _write(packed, head, lines)
        else:
            _write(raw, head, lines)
    return path


def _write(file: IO[bytes] | gzip.GzipFile, head: str, lines: Iterator[str]) -> None:
    file.write(f'{{"displayTimeUnit":"ms","otherData":{head},"traceEvents":[\n'.encode())
    before = ""
    for line in lines:
        file.write(f"{before}{line}".encode())
        before = ",\n"
    file.write(b"\n]}\n")


def window_requests(
    requests: RequestColumns, window: tuple[int, int], most: int
) -> tuple[list[Row], int]:
    """The first `most` requests that were in the system in the window, and how many were."""
    chosen: list[Row] = []
    count = 0
    begin, end = window
    for frame in requests.frames():
        inside = frame.filter((frame["arrival_ps"] < end) & (frame["last_token_ps"] > begin))
        count += inside.height
        chosen += inside.head(most - len(chosen)).to_dicts()
    return chosen, count


def events(requests: Sequence[Row], record: ServeRecord, window: tuple[int, int]) -> Iterator[str]:
    """Every event as a line of JSON: replica by replica, then the requests.

    With one stage the steps themselves are what its devices do.
    """
    last, split = -1, record.split
    inside = {store.replica: store for store in record.stages}
    for store in sorted(record.steps or (), key=lambda s: s.replica):
        present = busy_periods(record.requests, store.replica) if split.pp > 1 else None
        yield from _replica(store, window, present)
        yield from _devices(inside.get(store.replica, store), window, split)
        last = max(last, store.replica)
    yield from _requests(requests, last + 1)


def _replica(
    store: StepColumns, window: tuple[int, int], present: tuple[Column, Column] | None
) -> Iterator[str]:
    """Steps and counters; with several stages `present` tells how long a step's counters hold."""
    pid, begin, end = store.replica, *window
    yield from process_event(pid, f"replica {pid}")
    busy: list[int] = []  # until when each row of steps is
    shown: dict[str, int] = {}
    until = -1
    for frame in store.frames():
        for step in _within(frame, begin, end):
            start = step["start_ps"]
            if 0 <= until < start:  # nothing ran in between
                yield from _counters(dict.fromkeys(COUNTERS, 0), shown, until, pid)
            row = next((r for r, t in enumerate(busy) if t <= start), len(busy))
            if row == len(busy):
                yield from thread_event(
                    pid, FIRST_STEPS + row, "steps" + (f" {row + 1}" if row else "")
                )
            end_of_step = until = start + step["duration_ps"]
            busy[row : row + 1] = [end_of_step]
            if present:
                at = int(np.searchsorted(present[0], start, side="right")) - 1
                until = max(until, int(present[1][at]) if at >= 0 else until)
            yield slice_event(
                _kind(step), FIRST_STEPS + row, start, end_of_step, _arguments(step), str(pid)
            )
            yield from _counters(step, shown, start, pid)
    if until >= 0:
        yield from _counters(dict.fromkeys(COUNTERS, 0), shown, until, pid)


def _kind(step: Row) -> str:
    if step["prefill_tokens"] and step["decode_tokens"]:
        return "mixed"
    return "prefill" if step["prefill_tokens"] else "decode"


def _arguments(step: Row) -> str:
    plain = ("prefill_tokens", "decode_tokens", *COUNTERS, "flops", "hbm_bytes")
    sizes = ",".join(f'"{name}":{step[name]}' for name in plain)
    states = "".join(
        f',"{state}_us":{micros(step[name])}'
        for state, name in zip(STATES, STATE_COLUMNS, strict=False)
        if step[name]
    )
    return sizes + states


def _within(frame: pl.DataFrame, begin: int, end: int) -> Iterator[Row]:
    """The rows that overlap the window."""
    ends = frame["start_ps"] + frame["duration_ps"]
    yield from frame.filter((frame["start_ps"] < end) & (ends > begin)).iter_rows(named=True)


def _devices(store: StepColumns, window: tuple[int, int], split: Parallelism) -> Iterator[str]:
    """A lane a device with its states side by side; the ranks of a stage do the same."""
    pid = store.replica
    lanes: list[range] = []
    for stage in range(split.pp):
        first = FIRST_DEVICE + stage * split.tp
        lanes.append(range(first, first + split.tp))
        for rank, tid in enumerate(lanes[stage]):
            device = split.device(pid, stage, rank)
            yield from thread_event(pid, tid, f"stage {stage}, rank {rank} (gpu{device})")
    for frame in store.frames():
        for row in _within(frame, *window):
            for tid in lanes[row.get("stage", 0)]:
                yield from _states(row, tid, str(pid))


def _states(row: Row, tid: int, pid: str) -> Iterator[str]:
    at = row["start_ps"]
    for state, name in zip(STATES, STATE_COLUMNS, strict=False):
        if row[name]:
            yield slice_event(state, tid, at, at + row[name], pid=pid)
            at += row[name]


def _counters(values: Row, shown: dict[str, int], t: int, pid: int) -> Iterator[str]:
    """The counters that have changed."""
    for name in COUNTERS:
        if shown.get(name) != values[name]:
            shown[name] = values[name]
            yield (
                f'{{"ph":"C","pid":{pid},"tid":0,"ts":{micros(t)},"name":"{name}",'
                f'"args":{{"{name}":{values[name]}}}}}'
            )


def _requests(requests: Sequence[Row], pid: int) -> Iterator[str]:
    """A track per request: queue, prefill, decode, with its account in the slice around them."""
    yield from process_event(pid, "requests")
    for tid, row in enumerate(requests, 1):
        label = f"request {row['index']}" + (f" ({row['id']})" if row.get("id") else "")
        yield from thread_event(pid, tid, label)
        arrival, first, last = (row[f"{t}_ps"] for t in ("arrival", "first_token", "last_token"))
        sizes = ("replica", "prompt_tokens", "output_tokens", "preemptions", "prefix_hit_tokens")
        args = ",".join(f'"{name}":{row[name]}' for name in sizes)
        args += "".join(f',"{p}_us":{micros(row[f"{p}_ps"])}' for p in PARTS if row[f"{p}_ps"])
        yield slice_event(f"request {row['index']}", tid, arrival, last, args, str(pid))
        phases = (
            ("queue", arrival, row["scheduled_ps"]),
            ("prefill", row["scheduled_ps"], first),
            ("decode", first, last),
        )
        for name, begin, end in phases:
            if end > begin:
                yield slice_event(name, tid, begin, end, pid=str(pid))
