"""A window of a serving run as a trace for ui.perfetto.dev (Chrome's JSON).

Each replica is a process: its steps, a lane per stage with the states of its devices, flows from
stage to stage, and counters of requests, KV blocks, FLOP/s, MFU and HBM bytes/s. One more process
has one track per request. What overlaps the window is written as a whole, so no amount is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path

import numpy as np

from sim.output.perfetto.chrome import (
    Rows,
    Thread,
    counter_event,
    micros,
    numbered,
    outer_events,
    process_event,
    slice_event,
    thread_event,
    write_events,
)
from sim.output.perfetto.processes import equal_note
from sim.serve.busy_periods import busy_periods
from sim.serve.columns import STATE_COLUMNS, Column, RequestColumns, StepColumns
from sim.serve.live import PARTS
from sim.serve.record import ServeRecord
from sim.serve.trace_devices import FIRST_DEVICE, Machine, Row, bound, device_lines, rows_within
from sim.states import STATES

__all__ = ["FIRST_DEVICE", "FIRST_STEPS", "write_window"]

FIRST_STEPS = 1  # tid; steps that overlap take further rows
MOST_REQUESTS = 500  # tracks beyond it are hard to read
COUNTERS = {"running": "requests", "waiting": "requests", "kv_blocks": "in use"}


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
    about = {
        "tool": f"memorywall {version('memorywall')}",
        "window_ps": f"{window[0]} to {window[1]}; what overlaps it is written whole",
        "requests": f"{len(chosen)} of {inside} in the window written, the earliest first",
        "order_of_states": "inside a step the amounts are exact, their order is a convention",
        "equal_ranks": "a lane stands for all devices in its name; its amounts are of one",
    }
    return write_events(path, about, events(chosen, record, window))


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
    last, split, numbers = -1, record.split, count(1)
    inside = {store.replica: store for store in record.stages}
    machine = Machine(split, record.matrix_peak_flops)
    for store in sorted(record.steps or (), key=lambda s: s.replica):
        present = busy_periods(record.requests, store.replica) if split.pp > 1 else None
        yield from process_event(store.replica, f"replica {store.replica}", equal_note(split.tp))
        yield from _steps(store, window, present)
        stages = inside.get(store.replica, store)
        yield from device_lines(stages, window, machine, numbers)
        last = max(last, store.replica)
    yield from _requests(requests, last + 1)


def _steps(
    store: StepColumns, window: tuple[int, int], present: tuple[Column, Column] | None
) -> Iterator[str]:
    """Steps and counters; with several stages `present` tells how long a step's counters hold."""
    pid, rows = store.replica, Rows()
    shown: dict[str, int] = {}
    until = -1
    for step in rows_within(store, window):
        start = step["start_ps"]
        if 0 <= until < start:  # nothing ran in between
            yield from _counters(dict.fromkeys(COUNTERS, 0), shown, until, pid)
        end = until = start + step["duration_ps"]
        row, first = rows.place(start, end)
        at = Thread(pid, FIRST_STEPS + row)
        if first:
            yield from thread_event(at, numbered("steps", row))
        if present:
            i = int(np.searchsorted(present[0], start, side="right")) - 1
            until = max(until, int(present[1][i]) if i >= 0 else until)
        yield slice_event(_kind(step), at, start, end, _arguments(step))
        yield from _counters(step, shown, start, pid)
    if until >= 0:
        yield from _counters(dict.fromkeys(COUNTERS, 0), shown, until, pid)


def _kind(step: Row) -> str:
    if step["prefill_tokens"] and step["decode_tokens"]:
        return "mixed"
    return "prefill" if step["prefill_tokens"] else "decode"


def _arguments(step: Row) -> str:
    plain = ("step", "prefill_tokens", "decode_tokens", *COUNTERS, "flops", "hbm_bytes")
    sizes = ",".join(f'"{name}":{step[name]}' for name in plain)
    states = "".join(
        f',"{state}_us":{micros(step[name])}'
        for state, name in zip(STATES, STATE_COLUMNS, strict=False)
        if step[name]
    )
    return f'"bound":"{bound(step)}",{sizes}{states}'


def _counters(values: Row, shown: dict[str, int], t: int, pid: int) -> Iterator[str]:
    """The counters that have changed."""
    for name, key in COUNTERS.items():
        if shown.get(name) != values[name]:
            shown[name] = values[name]
            yield counter_event(pid, name, t, key, values[name])


def _requests(requests: Sequence[Row], pid: int) -> Iterator[str]:
    """A track per request: queue, prefill, decode, with its account in the slice around them."""
    yield from process_event(pid, "requests")
    for tid, row in enumerate(requests, 1):
        at = Thread(pid, tid)
        label = f"request {row['index']}" + (f" ({row['id']})" if row.get("id") else "")
        yield from thread_event(at, label)
        arrival, first, last = (row[f"{t}_ps"] for t in ("arrival", "first_token", "last_token"))
        sizes = ("replica", "prompt_tokens", "output_tokens", "preemptions", "prefix_hit_tokens")
        args = ",".join(f'"{name}":{row[name]}' for name in sizes)
        args += "".join(f',"{p}_us":{micros(row[f"{p}_ps"])}' for p in PARTS if row[f"{p}_ps"])
        yield from outer_events(f"request {row['index']}", at, arrival, last, args)
        phases = (
            ("queue", arrival, row["scheduled_ps"]),
            ("prefill", row["scheduled_ps"], first),
            ("decode", first, last),
        )
        for name, begin, end in phases:
            if end > begin:
                yield slice_event(name, at, begin, end)
