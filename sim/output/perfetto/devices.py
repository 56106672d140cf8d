"""The threads of one device: jobs holding layers holding operators, its states, its lanes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from sim.account import lanes
from sim.account.timeline import RunRecord, Span
from sim.output.perfetto import arguments
from sim.output.perfetto.chrome import micros, outer_events, slice_event
from sim.output.perfetto.flows import FlowEnds
from sim.output.perfetto.processes import FIRST_LANE, OPERATORS, STATE, Process, thread_of
from sim.output.plots.style import STATE_NAMES
from sim.states import STATES

_NAMES = [STATE_NAMES[state] for state in STATES]
_OUTSIDE = {-1: "embedding", -2: "head"}


class DeviceSlices:
    """Writes the slices of devices, and notes where flows may begin and end."""

    def __init__(self, record: RunRecord, ends: FlowEnds) -> None:
        self.record, self.ends = record, ends
        self.steps = arguments.StepArguments()

    def of(self, process: Process, spans: Sequence[Span]) -> Iterator[str]:
        """All slices of one device, from its spans in the order of its jobs."""
        for works, group in groupby(spans, key=lambda s: (s.number, s.micro, s.step is not None)):
            mine = list(group)
            if works[2]:
                yield from self._job(process, mine)
                yield from self._layers(process, mine)
            for span in mine:
                yield from self._span(process, span)
            for busy in lanes.device_lanes(self.record, mine):
                yield lane_event(process, busy)

    def _job(self, process: Process, mine: Sequence[Span]) -> Iterator[str]:
        first, until = mine[0], max(span.end for span in mine)
        name = f"{first.phase} {first.number}, micro-batch {first.micro}"
        args = arguments.job(self.record, mine, process.devices)
        yield from outer_events(name, process.thread(OPERATORS), first.begin, until, args)
        self.ends.begin_of_job(first, process.thread(thread_of(first.stream)))

    def _layers(self, process: Process, mine: Sequence[Span]) -> Iterator[str]:
        """Runs of operators of one layer on the first stream, which takes them in turn."""
        here = sorted((span for span in mine if span.stream == 0), key=lambda s: (s.begin, s.end))
        for placed, layer in groupby(
            here, key=lambda s: s.placed and (s.placed.stack, s.placed.layer)
        ):
            inside = list(layer)
            if placed:
                name = f"{placed[0]} {_OUTSIDE.get(placed[1], f'layer {placed[1]}')}"
                args = f'"layer":{placed[1]},"operators":{len(inside)}'
                at = process.thread(OPERATORS)
                yield from outer_events(name, at, inside[0].begin, inside[-1].end, args)

    def _span(self, process: Process, span: Span) -> Iterator[str]:
        if span.step:
            at = process.thread(thread_of(span.stream))
            args = self.steps.operator(span, span.step)
            yield slice_event(span.step.name, at, span.begin, span.end, args)
            if span.step.exchange:
                self.ends.exchange(span, at)
        args = self.steps.state(span)
        for state, begin, end in lanes.state_slices(span):
            yield slice_event(_NAMES[state], process.thread(STATE), begin, end, args)


def lane_event(process: Process, busy: lanes.Busy) -> str:
    """An interval in which a part of a device is busy."""
    at, args = process.thread(FIRST_LANE + busy.lane), f'"work_us":{micros(busy.work)}'
    return slice_event(busy.name, at, busy.begin, busy.end, args)
