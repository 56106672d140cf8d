"""A strict check of Chrome's trace format, as ui.perfetto.dev reads it."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

Event = dict[str, Any]
Row = tuple[int, int]  # pid, tid
REQUIRED = {"name", "ph", "ts", "pid", "tid", "args"}
NANO = 1000  # ticks
FAR, DEEP = 2**63, 4  # a tick behind all; slices that may lie inside one another


def tick(value: Decimal | int) -> int:
    """Microseconds as whole ticks; times have a tenth of a picosecond too much here and there, for
    viewers that cut."""
    ticks = int(value * 10**6)
    assert value * 10**6 - ticks in (0, Decimal("0.1"))
    return ticks


def nanoseconds(value: Decimal | int) -> int:
    """Microseconds as Perfetto reads them."""
    return int(float(value) * 1000)


def check_trace(events: Iterable[Event]) -> None:
    """Raise AssertionError where an event breaks a rule of the format."""
    found = list(events)
    for e in found:
        assert e.keys() >= REQUIRED, e
        assert e["ph"] in "XCMstf", e
        assert isinstance(e["name"], str)
        assert e["name"]
        assert all(isinstance(e[key], int) and e[key] >= 0 for key in ("pid", "tid"))
        assert tick(e["ts"]) >= 0
        assert isinstance(e["args"], dict)
    check_names(found)
    check_nesting(found)
    check_counters(found)
    check_flows(found)


def check_names(found: list[Event]) -> None:
    """Each process and each thread with slices has one name; no two processes share one."""
    processes = [(e["pid"], e["args"]["name"]) for e in found if e["name"] == "process_name"]
    assert len({pid for pid, _ in processes}) == len(processes)
    assert len({name for _, name in processes}) == len(processes)
    threads = [(e["pid"], e["tid"]) for e in found if e["name"] == "thread_name"]
    assert len(set(threads)) == len(threads)
    assert {(e["pid"], e["tid"]) for e in found if e["ph"] == "X"} <= set(threads)
    assert {e["pid"] for e in found} == {pid for pid, _ in processes}


def check_nesting(found: list[Event]) -> None:
    """Two slices of a thread follow one another, or one lies inside the other.

    Perfetto sees whole nanoseconds: it cuts the begin and the length of a slice, each by itself.
    At equal times the order of the file decides which one is the outer.
    """
    for mine in slices(found).values():
        ends: list[int] = []
        seen = [(nanoseconds(e["ts"]), nanoseconds(e["dur"])) for _, _, e in mine]
        assert all(end > begin for begin, end, _ in mine)
        for begin, length in sorted(seen, key=lambda s: s[0]):
            while ends and ends[-1] <= begin:
                ends.pop()
            assert not ends or begin + length <= ends[-1]
            ends.append(begin + length)


def slices(found: Iterable[Event]) -> dict[Row, list[tuple[int, int, Event]]]:
    """(begin, end, event) by thread, in the order of the file."""
    threads = defaultdict(list)
    for e in found:
        if e["ph"] == "X":
            begin = tick(e["ts"])
            threads[e["pid"], e["tid"]].append((begin, begin + tick(e["dur"]), e))
    return threads


def check_counters(found: list[Event]) -> None:
    """The values of a counter come in the order of time, one per instant, and none is negative."""
    last: dict[tuple[int, str], int] = {}
    for e in found:
        if e["ph"] == "C":
            key, now = (e["pid"], e["name"]), tick(e["ts"])
            assert last.get(key, -1) < now, e
            assert e["args"]
            assert all(v >= 0 for v in e["args"].values())
            last[key] = now


def check_flows(found: list[Event]) -> None:
    """Each flow has one start and one end, with steps between, and time does not run backwards
    along it. Each point lies on a slice that stands before it in the file: a viewer takes the
    innermost one that is open."""
    stood: dict[Row, list[tuple[int, int]]] = defaultdict(list)
    flows: dict[tuple[int, str, str], list[Event]] = defaultdict(list)
    for e in found:
        row = e["pid"], e["tid"]
        if e["ph"] == "X":
            begin = tick(e["ts"])
            insort(stood[row], (begin, begin + tick(e["dur"])))
        elif e["ph"] in "stf":
            flows[e["id"], e["cat"], e["name"]].append(e)
            now, mine = tick(e["ts"]), stood[row]
            before = mine[max(0, bisect_right(mine, (now, FAR)) - DEEP) :]
            assert any(begin <= now < end for begin, end in before), e
    assert len({number for number, _, _ in flows}) == len(flows)
    for points in flows.values():
        assert [e["ph"] for e in points] == ["s", *["t"] * (len(points) - 2), "f"]
        times = [tick(e["ts"]) for e in points]
        assert times == sorted(times)
        assert all(e["bp"] == "e" for e in points[1:])
