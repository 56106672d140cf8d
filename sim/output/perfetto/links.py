"""The process of all links: each directed one with its transfers and its bytes/s.

Links that carry the same at the same times are one thread. Transfers that share a link lie on
threads of their own, since slices of a thread may not overlap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from sim.account import lanes
from sim.account.timeline import RunRecord
from sim.output.perfetto.chrome import (
    Rows,
    Thread,
    counter_event,
    numbered,
    process_event,
    slice_event,
    thread_event,
)
from sim.output.perfetto.counters import OF_ONE
from sim.output.perfetto.processes import Place, Process


class LinkGroup(msgspec.Struct, frozen=True):
    """Links that carry the same: the first of them, how many they are, and what each of them
    carries (transfer, bytes/s)."""

    first: int
    name: str
    count: int
    carried: tuple[tuple[int, float], ...]


def link_lines(
    record: RunRecord, passes: frozenset[int] | None, shown: Mapping[Place, Process]
) -> Iterator[str]:
    """The links with their transfers, and what each device that is shown sends."""
    fabric, pid = record.compiled.plan.network.fabric, record.compiled.plan.split.devices
    transfers = lanes.transfers(record, passes)
    if not transfers:
        return
    names = [name for name, _ in fabric.links]
    groups = link_groups(transfers, names)
    yield from process_event(pid, f"links of {fabric.system.name}")
    yield from _slices(pid, transfers, groups)
    counted = {group.first: group.name for group in groups}
    leaving = {
        p.pid: [i for i, n in enumerate(names) if n.startswith(f"gpu{p.pid}->")]
        for p in shown.values()
    }
    now = [0.0] * len(names)
    for tick, rates in lanes.link_rates(transfers):
        for link, rate in rates.items():
            now[link] = rate
            if link in counted:
                yield counter_event(pid, counted[link], tick, "bytes/s", str(round(rate)))
        for device, links in leaving.items():
            if rates.keys() & links:
                out = round(sum(now[link] for link in links))
                yield counter_event(device, "link bytes/s, sent", tick, OF_ONE, str(out))


def link_groups(transfers: Sequence[lanes.Transfer], names: Sequence[str]) -> list[LinkGroup]:
    """The links that carry anything, equal ones together, in the order of their first transfer."""
    carried: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for number, transfer in enumerate(transfers):
        for link, rate in transfer.loads:
            carried[link].append((number, rate))
    same: dict[tuple[tuple[int, float], ...], list[int]] = defaultdict(list)
    for link, what in carried.items():
        same[tuple(what)].append(link)
    groups = []
    for load, links in same.items():
        more = f" and {len(links) - 1} equal" if len(links) > 1 else ""
        groups.append(LinkGroup(links[0], names[links[0]] + more, len(links), load))
    return groups


def _slices(
    pid: int, transfers: Sequence[lanes.Transfer], groups: Sequence[LinkGroup]
) -> Iterator[str]:
    tid = 0
    for group in groups:
        rows, threads = Rows(), list[Thread]()
        for number, rate in group.carried:
            one = transfers[number]
            row, first = rows.place(one.begin, one.end)
            if first:
                tid += 1
                threads.append(Thread(pid, tid))
                yield from thread_event(threads[row], numbered(group.name, row))
            moved = round(rate * (one.end - one.begin) / 1e12)
            args = f'"bytes":{moved},"bytes/s":{round(rate)}'
            if group.count > 1:
                args += f',"links":{group.count}'
            yield slice_event(one.name, threads[row], one.begin, one.end, args)
