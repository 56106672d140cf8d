"""The devices of a replica in a trace: their states, how fast they work, and hand-offs.

The ranks of a stage do the same, so that one lane shows all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.account.rates import Work, rates_of
from sim.mapping.parallelism import Parallelism
from sim.output.perfetto.chrome import Point, Thread, flow_events, slice_event, thread_event
from sim.output.perfetto.counters import rate_counters
from sim.output.perfetto.processes import device_name
from sim.output.plots.style import STATE_NAMES
from sim.serve.columns import STATE_COLUMNS, StepColumns
from sim.states import STATES

if TYPE_CHECKING:
    import polars as pl

FIRST_DEVICE = 1001  # tid; a stage takes one
BOUNDS = ("compute", "memory", "sram", "collective", "launch")  # by state, as of operators
_NAMES = [STATE_NAMES[state] for state in STATES[: len(STATE_COLUMNS)]]
Row = dict[str, Any]


class Machine(NamedTuple):
    """What the steps of a replica ran on: its split, and the matrix FLOP/s of one device."""

    split: Parallelism
    peak: float | None = None


def device_lines(
    store: StepColumns, window: tuple[int, int], machine: Machine, numbers: Iterator[int]
) -> Iterator[str]:
    """A lane per stage with its states side by side, flows from stage to stage, and counters.

    `numbers` are those of the flows of a file. With one stage the steps are what it does.
    """
    pid, split = store.replica, machine.split
    for stage in range(split.pp):
        name = device_name(split.device(pid, stage, 0), split.tp, [f"stage {stage}"])
        yield from thread_event(Thread(pid, FIRST_DEVICE + stage), name)
    work: list[list[Work]] = [[] for _ in range(split.pp)]
    left: dict[int, tuple[int, Point]] = {}  # by step: the last stage that it left, and where
    for row in rows_within(store, window):
        stage, step, begin = row.get("stage", 0), row["step"], row["start_ps"]
        at = Thread(pid, FIRST_DEVICE + stage)
        yield from _states(row, at)
        done = Work(begin, begin + row["duration_ps"], row["flops"], row["hbm_bytes"])
        work[stage].append(done)
        came_from, point = left.get(step, (-2, None))
        if point and came_from == stage - 1:
            yield from flow_events(next(numbers), "hand-off", point, Point(at, begin))
        if last := next((row[c] for c in reversed(STATE_COLUMNS) if row[c]), 0):
            left[step] = stage, Point(at, done.end - last)  # where its last state begins
    for stage, pieces in enumerate(work):
        part = f", stage {stage}," if split.pp > 1 else ""
        yield from rate_counters(pid, rates_of(pieces), machine.peak, part)


def rows_within(store: StepColumns, window: tuple[int, int]) -> Iterator[Row]:
    """The rows that overlap a window, each with the number of its step."""
    offset = 0
    for frame in store.frames():
        numbered = frame if "step" in frame.columns else frame.with_row_index("step", offset)
        offset += frame.height
        yield from _within(numbered, *window)


def _within(frame: pl.DataFrame, begin: int, end: int) -> Iterator[Row]:
    ends = frame["start_ps"] + frame["duration_ps"]
    yield from frame.filter((frame["start_ps"] < end) & (ends > begin)).iter_rows(named=True)


def bound(row: Row) -> str:
    """What limits a step: the largest of its states."""
    return BOUNDS[max(range(len(STATE_COLUMNS)), key=lambda i: row[STATE_COLUMNS[i]])]


def _states(row: Row, thread: Thread) -> Iterator[str]:
    at = row["start_ps"]
    args = (
        f'"step":{row["step"]},"bound":"{bound(row)}","step_flops":{row["flops"]},'
        f'"step_hbm_bytes":{row["hbm_bytes"]}'
    )
    for state, column in zip(_NAMES, STATE_COLUMNS, strict=True):
        if row[column]:
            yield slice_event(state, thread, at, at + row[column], args)
            at += row[column]
