"""A run as a trace for ui.perfetto.dev (Chrome's JSON), streamed to a file.

A process per device (pid = its number) has the lanes of `_LANES` as threads, and one thread per
further stream. One process has the directed links. ts and dur are microseconds with six decimals,
so that no picosecond is lost.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import IO

from sim.account import lanes
from sim.account.timeline import RunRecord, Span, spans
from sim.mapping.priced import Step
from sim.output.files import atomic_write
from sim.simulation import Result
from sim.states import STATES

_LANES = ("operators", "state", *lanes.LANES)
OPERATORS, STATE, FIRST_LANE = 1, 2, 3  # tids
MOST_SPANS = 200_000  # above it a viewer becomes slow


def write_trace(result: Result, path: Path, passes: Iterable[int] | None = None) -> Path:
    """Write the trace, compressed if the name ends in .gz. The same run gives the same bytes.

    Without `passes` all are written, or the first and the last where all would be more than
    200,000 spans; the metadata say which are left out.
    """
    chosen = frozenset(passes) if passes is not None else choose_passes(result.record)
    with atomic_write(path) as temporary, temporary.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                _write(packed, result, chosen)
        else:
            _write(raw, result, chosen)
    return path


def choose_passes(record: RunRecord) -> frozenset[int] | None:
    """None (all) for a run of moderate size, else the first and the last pass."""
    compiled = record.compiled
    copies = compiled.plan.split.tp // len(compiled.ranks)
    count = copies * sum(len(slot.pieces) for slot in compiled.slots)
    if not lanes.folded(record):
        count += copies * len(compiled.program.tasks)
    last = len(compiled.plan.passes) - 1
    return None if count < MOST_SPANS or last < 2 else frozenset({0, last})


def _write(file: IO[bytes] | gzip.GzipFile, result: Result, passes: frozenset[int] | None) -> None:
    head = json.dumps(_metadata(result, passes), sort_keys=True)
    file.write(f'{{"displayTimeUnit":"ms","otherData":{head},"traceEvents":[\n'.encode())
    before = ""
    for event in events(result.record, passes):
        file.write(f"{before}{event}".encode())
        before = ",\n"
    file.write(b"\n]}\n")


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
    }


def events(record: RunRecord, passes: frozenset[int] | None = None) -> Iterator[str]:
    """Every event as a line of JSON, device by device."""
    split = record.compiled.plan.split
    yield from _names(record)
    arguments = _Arguments()
    for (replica, stage, rank), of_device in groupby(
        spans(record, passes), key=lambda s: (s.replica, s.stage, s.rank)
    ):
        alike = range(split.tp) if record.compiled.ranks == (0,) else (rank,)
        pids = [split.device(replica, stage, r) for r in alike]
        for line in _device(record, of_device, arguments):
            for pid in pids:
                yield line.replace("PID", str(pid), 1)
    for job, rank, busy in lanes.task_lanes(record, passes):
        alike = range(split.tp) if record.compiled.ranks == (0,) else (rank,)
        for r in alike:
            yield _lane(busy).replace("PID", str(split.device(job.replica, job.stage, r)), 1)
    yield from _links(record, passes)


def _names(record: RunRecord) -> Iterator[str]:
    split = record.compiled.plan.split
    for replica in range(split.dp):
        for stage in range(split.pp):
            for rank in range(split.tp):
                pid = split.device(replica, stage, rank)
                place = f"gpu{pid} (replica {replica}, stage {stage}, rank {rank})"
                yield from process_event(pid, place)
                for number, lane in enumerate(_LANES):
                    yield from thread_event(pid, number + 1, lane)
                for stream in range(1, record.compiled.streams):
                    yield from thread_event(pid, _thread_of(stream), f"stream {stream}")


def _thread_of(stream: int) -> int:
    """The thread with the operators of a stream; those of the first lie inside their layers."""
    return OPERATORS if stream == 0 else len(_LANES) + stream


def process_event(pid: int, name: str) -> Iterator[str]:
    yield _meta("process_name", pid, 0, f'"name":{json.dumps(name)}')
    yield _meta("process_sort_index", pid, 0, f'"sort_index":{pid}')


def thread_event(pid: int, tid: int, name: str) -> Iterator[str]:
    yield _meta("thread_name", pid, tid, f'"name":{json.dumps(name)}')
    yield _meta("thread_sort_index", pid, tid, f'"sort_index":{tid}')


def _meta(what: str, pid: int, tid: int, args: str) -> str:
    return f'{{"name":"{what}","ph":"M","ts":0,"pid":{pid},"tid":{tid},"args":{{{args}}}}}'


def micros(t: int) -> str:
    """Ticks as microseconds, exactly."""
    return f"{t // 10**6}.{t % 10**6:06d}"


def slice_event(name: str, tid: int, begin: int, end: int, args: str = "", pid: str = "PID") -> str:
    """A complete event; `name` needs no escapes and `args` is JSON without its braces."""
    return (
        f'{{"ph":"X","pid":{pid},"tid":{tid},"ts":{micros(begin)},"dur":{micros(end - begin)},'
        f'"name":"{name}","args":{{{args}}}}}'
    )


def _counter(name: str, t: int, value: float, pid: str = "PID") -> str:
    return (
        f'{{"ph":"C","pid":{pid},"tid":0,"ts":{micros(t)},"name":"{name}",'
        f'"args":{{"bytes/s":{round(value)}}}}}'
    )


def _lane(busy: lanes.Busy) -> str:
    args = f'"work_us":{micros(busy.work)}'
    return slice_event(busy.name, FIRST_LANE + busy.lane, busy.begin, busy.end, args)


class _Arguments:
    """What is said of a step, encoded once: equal layers and passes share their steps."""

    def __init__(self) -> None:
        self.known: dict[int, str] = {}

    def __call__(self, span: Span, step: Step) -> str:
        if id(step) not in self.known:
            flops = step.cost.flops if step.cost else 0
            if step.cost:
                moved, intensity = step.cost.hbm_bytes, flops / max(1, step.cost.hbm_bytes)
                sizes = f'"hbm_bytes":{moved},"intensity":{intensity:.4g}'
                if step.op and step.op.parts:
                    sizes += f',"parts":"{" ".join(step.op.parts)}"'
            else:
                assert step.exchange is not None
                sizes = f'"link_bytes":{step.exchange.nbytes}'
                sizes += f',"algorithm":"{step.exchange.algorithm}"'
            self.known[id(step)] = (
                f'"class":"{step.kind}","bound":"{step.bound}","flops":{flops},{sizes}'
            )
        states = ",".join(
            f'"{s}_us":{micros(t)}' for s, t in zip(STATES, span.states, strict=True) if t > 0
        )
        if span.hidden:
            states += f'{"," if states else ""}"hidden_us":{micros(span.hidden)}'
        return f"{_place(span)},{self.known[id(step)]},{states}"


def _place(span: Span) -> str:
    text = f'"phase":"{span.phase}","pass":{span.number},"micro_batch":{span.micro}'
    if span.placed:
        text += f',"stack":"{span.placed.stack}","layer":{span.placed.layer}'
    return text


def _device(record: RunRecord, spans: Iterable[Span], arguments: _Arguments) -> Iterator[str]:
    """Events of one rank: jobs holding layers holding operators, its states and its lanes."""
    last = -1  # where the counter fell to 0, if nothing followed yet
    alone = record.compiled.streams == 1  # else operators share HBM, and no counter is drawn
    for (number, micro, works), group in groupby(
        spans, key=lambda s: (s.number, s.micro, s.step is not None)
    ):
        mine = list(group)
        if works:
            name = f"{mine[0].phase} {number}, micro-batch {micro}"
            yield slice_event(name, OPERATORS, mine[0].begin, mine[-1].end, _place(mine[0]))
        for at, layer in groupby(mine, key=lambda s: s.placed and (s.placed.stack, s.placed.layer)):
            inside = list(layer)
            if at:
                name = {-1: "embedding", -2: "head"}.get(at[1], f"layer {at[1]}")
                begin, end = inside[0].begin, inside[-1].end
                yield slice_event(f"{at[0]} {name}", OPERATORS, begin, end)
            for span in inside:
                if span.step:
                    args = arguments(span, span.step)
                    thread = _thread_of(span.stream)
                    yield slice_event(span.step.name, thread, span.begin, span.end, args)
                for state, begin, end in lanes.state_slices(span):
                    yield slice_event(STATES[state], STATE, begin, end)
                start = span.begin + span.launched
                cost = span.step.cost if span.step and alone else None
                if cost and cost.hbm_bytes and span.end > start:
                    if last >= 0 and last != start:
                        yield _counter("HBM bytes/s", last, 0)
                    rate = cost.hbm_bytes / (span.end - start) * 1e12
                    yield _counter("HBM bytes/s", start, rate)
                    last = span.end
        for busy in lanes.device_lanes(record, mine):
            yield _lane(busy)
    if last >= 0:
        yield _counter("HBM bytes/s", last, 0)


def _links(record: RunRecord, passes: frozenset[int] | None) -> Iterator[str]:
    """A process of all links: each directed one with its transfers and its bytes/s.

    Transfers that share a link lie on threads of their own, since slices of a thread may not
    overlap.
    """
    plan = record.compiled.plan
    devices, names = plan.split.devices, [name for name, _ in plan.network.fabric.links]
    transfers = lanes.transfers(record, passes)
    if not transfers:
        return
    pid = str(devices)
    yield from process_event(devices, f"links of {plan.network.fabric.system.name}")
    busy: dict[int, list[int]] = {}  # until when each thread of a link is
    tids: dict[tuple[int, int], int] = {}
    for transfer in transfers:
        for link, rate in transfer.loads:
            untils = busy.setdefault(link, [])
            row = next(
                (r for r, until in enumerate(untils) if until <= transfer.begin), len(untils)
            )
            untils[row : row + 1] = [transfer.end]
            if (link, row) not in tids:
                tids[link, row] = len(tids) + 1
                yield from thread_event(
                    devices, len(tids), names[link] + (f" ({row + 1})" if row else "")
                )
            moved = round(rate * (transfer.end - transfer.begin) / 1e12)
            args = f'"bytes":{moved},"bytes/s":{round(rate)}'
            yield slice_event(
                transfer.name, tids[link, row], transfer.begin, transfer.end, args, pid
            )
    leaving = {
        f"gpu{d}": [i for i, n in enumerate(names) if n.startswith(f"gpu{d}->")]
        for d in range(devices)
    }
    now = [0.0] * len(names)
    for tick, rates in lanes.link_rates(transfers):
        for link, rate in rates.items():
            now[link] = rate
            yield _counter(f"{names[link]} bytes/s", tick, rate, pid)
        for node in sorted({names[link].partition("->")[0] for link in rates} & leaving.keys()):
            out = sum(now[link] for link in leaving[node])
            yield _counter("link bytes/s, sent", tick, out, node.removeprefix("gpu"))
