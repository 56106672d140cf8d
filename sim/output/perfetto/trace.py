"""A run as a trace for ui.perfetto.dev (Chrome's JSON), streamed to a file.

A process per device (pid = its number) has its operators, states and lanes as threads, its
hand-offs, and its counters. Ranks that do the same are one process. One more process has the
directed links. Flows join the ranks of collectives, and the stages of hand-offs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from sim.account import lanes
from sim.account.rates import device_rates
from sim.account.timeline import RunRecord, spans
from sim.cost.model import matrix_rate
from sim.output.perfetto.chrome import write_events
from sim.output.perfetto.counters import rate_counters
from sim.output.perfetto.devices import DeviceSlices, lane_event
from sim.output.perfetto.flows import FlowEnds, flow_lines
from sim.output.perfetto.links import link_lines
from sim.output.perfetto.processes import name_events, processes
from sim.simulation import Result

MOST_SPANS = 200_000  # of all devices; above it files become large and viewers slow


def write_trace(result: Result, path: Path, passes: Iterable[int] | None = None) -> Path:
    """Write the trace, compressed if the name ends in .gz. The same run gives the same bytes.

    Without `passes` all are written, or the first and the last where all devices together have
    more than 200,000 spans; the metadata say which are left out.
    """
    chosen = frozenset(passes) if passes is not None else choose_passes(result.record)
    return write_events(path, _metadata(result, chosen), events(result.record, chosen))


def choose_passes(record: RunRecord) -> frozenset[int] | None:
    """None (all) for a run of moderate size, else the first and the last pass."""
    compiled = record.compiled
    copies = compiled.plan.split.tp // len(compiled.ranks)
    count = copies * sum(len(slot.pieces) for slot in compiled.slots)
    if not lanes.folded(record):
        count += copies * len(compiled.program.tasks)
    last = len(compiled.plan.passes) - 1
    return None if count < MOST_SPANS or last < 2 else frozenset({0, last})


def _metadata(result: Result, passes: frozenset[int] | None) -> dict[str, str]:
    total = len(result.resolved.passes)
    left = [] if passes is None else [n for n in range(total) if n not in passes]
    return {
        "tool": f"memorywall {version('memorywall')}",
        "model": result.resolved.model.name,
        "system": result.resolved.machine.name,
        "makespan_ps": str(result.makespan),
        "passes": f"{total - len(left)} of {total} written",
        "passes_left_out": ", ".join(map(str, left)) or "none",
        "order_of_states": "inside an operator the amounts are exact, their order is a convention",
        "equal_ranks": "a process stands for all devices in its name; its amounts are of one",
        "layers": "numbers of layers count from 0; -1 is the embedding, -2 the head",
    }


def events(record: RunRecord, passes: frozenset[int] | None = None) -> Iterator[str]:
    """Every event as a line of JSON: device by device, then the links, then the flows."""
    plan, shown, ends = record.compiled.plan, processes(record), FlowEnds()
    peak = matrix_rate(plan.device, plan.precision.activations)
    yield from name_events(record, shown)
    slices = DeviceSlices(record, ends)
    for place, of_device in groupby(
        spans(record, passes), key=lambda s: (s.replica, s.stage, s.rank)
    ):
        process, mine = shown[place], list(of_device)
        yield from slices.of(process, mine)
        yield from rate_counters(process.pid, device_rates(mine), peak)
    for job, rank, busy in lanes.task_lanes(record, passes):
        yield lane_event(shown[job.replica, job.stage, rank], busy)
    yield from link_lines(record, passes, shown)
    yield from flow_lines(record, passes, ends, shown)
