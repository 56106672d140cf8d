"""Which devices a trace shows: ranks that do the same are one process, named after all of them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sim.account.lanes import LANES, WIRE
from sim.account.timeline import RunRecord
from sim.output.perfetto.chrome import Thread, process_event, thread_event

_THREADS = ("operators", "state", *LANES)
OPERATORS, STATE, FIRST_LANE = 1, 2, 3  # tids
LINK = FIRST_LANE + WIRE
SENDS, RECEIVES = 1001, 2001  # further ones follow where hand-offs overlap


class Process(msgspec.Struct, frozen=True):
    """One rank of a stage as it is shown; `devices` do what it does, itself included."""

    pid: int
    name: str
    devices: int

    @property
    def label(self) -> str:
        """Its devices alone: gpu0-3."""
        return self.name.partition(" ")[0]

    def thread(self, tid: int) -> Thread:
        return Thread(self.pid, tid)


Place = tuple[int, int, int]  # replica, stage, rank


def processes(record: RunRecord) -> dict[Place, Process]:
    """The simulated ranks of a run. One rank stands for all of its stage where all do the same."""
    compiled, split = record.compiled, record.compiled.plan.split
    alike = split.tp if compiled.ranks == (0,) else 1
    shown = {}
    for replica in range(split.dp):
        for stage in range(split.pp):
            for rank in compiled.ranks:
                pid = split.device(replica, stage, rank)
                where = [f"replica {replica}"] if split.dp > 1 else []
                where.append(f"stage {stage}")
                if split.tp > alike:
                    where.append(f"rank {rank}")
                shown[replica, stage, rank] = Process(pid, device_name(pid, alike, where), alike)
    return shown


def device_name(first: int, count: int, where: list[str]) -> str:
    """The name of a process that stands for so many devices: gpu0-3 (stage 0, 4 equal ranks)."""
    if count == 1:
        return f"gpu{first} ({', '.join(where)})"
    return f"gpu{first}-{first + count - 1} ({', '.join([*where, f'{count} equal ranks'])})"


def equal_note(count: int) -> str:
    """What a viewer shows beside a process that stands for several devices."""
    return f"stands for {count} devices; amounts are of one" if count > 1 else ""


def name_events(record: RunRecord, shown: dict[Place, Process]) -> Iterator[str]:
    """The names of all devices and of their threads."""
    for process in shown.values():
        yield from process_event(process.pid, process.name, equal_note(process.devices))
        for number, name in enumerate(_THREADS):
            yield from thread_event(process.thread(number + 1), name)
        for stream in range(1, record.compiled.streams):
            yield from thread_event(process.thread(thread_of(stream)), f"stream {stream}")


def thread_of(stream: int) -> int:
    """The thread with the operators of a stream; those of the first lie inside their layers."""
    return OPERATORS if stream == 0 else len(_THREADS) + stream
