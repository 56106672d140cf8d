"""What the timeline draws: exact intervals by state and by lane, and their shares of pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from sim.account.lanes import LANES, device_lanes, folded, state_slices, task_lanes
from sim.account.timeline import RunRecord, Span, spans
from sim.states import STATES

Int = npt.NDArray[np.int64]
FEW = 100_000  # steps; above it only the passes around the drawn ones are laid out
Window = tuple[int, int]
Worked = list[tuple[int, int, int]]  # begin, end, ticks of work


class Intervals(msgspec.Struct, frozen=True):
    """Intervals in the order of time that do not overlap, and the ticks worked in each."""

    begin: Int
    end: Int
    work: Int

    @staticmethod
    def of(pairs: Iterable[tuple[int, int, int]]) -> Intervals:
        ordered = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 3)
        return Intervals(ordered[:, 0], ordered[:, 1], ordered[:, 2])

    def between(self, window: Window) -> Intervals:
        """Those that reach into a window."""
        keep = (self.end > window[0]) & (self.begin < window[1])
        return Intervals(self.begin[keep], self.end[keep], self.work[keep])

    @property
    def duty(self) -> npt.NDArray[np.float64]:
        """Share of each interval that is work."""
        share: npt.NDArray[np.float64] = self.work / (self.end - self.begin)
        return share

    def binned(self, edges: Int) -> Int:
        """Ticks of work between consecutive edges; exact where all of an interval is work."""
        if not len(self.begin):
            return np.zeros(len(edges) - 1, dtype=np.int64)
        before = np.concatenate(([0], np.cumsum(self.work)))
        at = np.searchsorted(self.begin, edges, side="right") - 1
        inside = np.minimum(edges - self.begin[at], (self.end - self.begin)[at])
        worked = before[at] + np.rint(inside * self.duty[at]).astype(np.int64)
        return np.diff(np.where(at >= 0, worked, 0))


class Lane(msgspec.Struct, frozen=True):
    """One stage of one replica, seen at one of its ranks."""

    replica: int
    stage: int
    states: dict[str, Intervals]
    busy: dict[str, Intervals]
    spans: list[Span]


def steps(record: RunRecord) -> int:
    """Steps on all simulated ranks."""
    return sum(len(slot.pieces) for slot in record.compiled.slots)


def lay_out(
    record: RunRecord, passes: Iterable[int], replica: int = 0, rank: int = 0
) -> list[Lane]:
    """Lanes of the stages of a replica at one rank; in a long run only near the given passes."""
    near: frozenset[int] | None = None
    if steps(record) > FEW:
        near = frozenset(n + d for n in passes for d in (-2, -1, 0, 1, 2))
    by_lane: dict[int, list[Span]] = {}
    for span in spans(record, near):
        if span.replica == replica and span.rank == rank:
            by_lane.setdefault(span.stage, []).append(span)
    timed: dict[int, dict[str, Worked]] = {s: {lane: [] for lane in LANES} for s in by_lane}
    if not folded(record):
        for job, at, busy in task_lanes(record, near):
            if job.replica == replica and at == rank:
                timed[job.stage][LANES[busy.lane]].append((busy.begin, busy.end, busy.work))
    lanes = []
    for stage, mine in sorted(by_lane.items()):
        states: dict[str, Worked] = {state: [] for state in STATES}
        for span in mine:
            for state, begin, end in state_slices(span):
                states[STATES[state]].append((begin, end, end - begin))
        for busy in device_lanes(record, mine):
            timed[stage][LANES[busy.lane]].append((busy.begin, busy.end, busy.work))
        lanes.append(Lane(replica, stage, _merged(states), _merged(timed[stage]), mine))
    return lanes


def _merged(pairs: dict[str, Worked]) -> dict[str, Intervals]:
    return {name: Intervals.of(stretches) for name, stretches in pairs.items()}


def pass_window(lanes: list[Lane], number: int) -> Window:
    """From the first step to the end of the last one of a pass."""
    mine = [s for lane in lanes for s in lane.spans if s.number == number and s.step]
    return min(s.begin for s in mine), max(s.end for s in mine)


def one_layer(lane: Lane, number: int) -> list[Span]:
    """The steps of a layer of a pass, of its first micro-batch: the middle one of the stage."""
    layers: dict[tuple[str, int], list[Span]] = {}
    for span in lane.spans:
        if span.number == number and span.micro == 0 and span.placed and span.placed.layer >= 0:
            layers.setdefault((span.placed.stack, span.placed.layer), []).append(span)
    last = [key for key in layers if key[0] == list(layers)[-1][0]]
    return layers[last[len(last) // 2]]


def pixels(window: Window, count: int) -> Int:
    """Edges of `count` bins of a window, or of fewer where it has fewer ticks."""
    count = max(1, min(count, window[1] - window[0]))
    edges: Any = [window[0] + (window[1] - window[0]) * i // count for i in range(count + 1)]
    return np.array(edges, dtype=np.int64)
