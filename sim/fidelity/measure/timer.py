"""Timing one call: many times, in samples long enough for the clock; the median and its spread."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Protocol

from sim.fidelity.measure.buffers import Body
from sim.fidelity.measure.tables import Timing

Clock = Callable[[], float]  # seconds
Work = Callable[[], object]
# "cpu" counts the time that this process has the cores: of one thread, what a call takes, without
# the turns of other processes on a machine that is shared.
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
LEAST, MOST = 5, 60  # samples
SAMPLE_S = 5e-4  # a sample takes at least this long
WARM = 3  # calls before a graph is captured
LEAST_CALLS, MOST_CALLS = 16, 64  # of a captured graph


def summary(samples: list[float]) -> Timing:
    """Seconds a call, as microseconds: median, half the distance of the quartiles, how many."""
    low, _, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else (samples * 3)
    median = statistics.median(samples)
    return Timing(round(median * 1e6, 4), round((high - low) / 2 * 1e6, 4), len(samples))


def cpu_timing(body: Body, most_s: float, clock: Clock = time.perf_counter) -> Timing:
    """Time of a call on this machine's cores, within about `most_s` seconds of `clock`. Each call
    is a sample of its own if something comes before it."""
    call, before = body.call, body.before
    begin = clock()
    call(0)  # warms code and allocator up
    call(1)
    done = 2
    each = (clock() - begin) / 2
    inner = 1 if before else max(1, math.ceil(SAMPLE_S / max(each, 1e-7)))
    samples: list[float] = []
    while len(samples) < MOST:
        if before:
            before()
        start = clock()
        for _ in range(inner):
            call(done)
            done += 1
        end = clock()
        samples.append((end - start) / inner)
        least = 3 if samples[0] > most_s / 3 else LEAST
        if len(samples) >= least and end - begin > most_s:
            break
    return summary(samples)


class Graphs(Protocol):
    """What graph timing asks of a device that runs captured graphs."""

    def capture(self, warm: Work, run: Work) -> Work:
        """Run `warm`, record what `run` launches without running it, and return its replay."""
        ...

    def seconds(self, before: Work, replay: Work) -> float:
        """Device time of a replay that is queued behind what `before` queues."""
        ...


def graph_timing(
    graphs: Graphs, body: Body, flush: Work, most_s: float, clock: Clock = time.perf_counter
) -> Timing:
    """Device time of a call within a captured graph, so that the host's launches have no part.

    A graph takes each window of a rotating buffer once, or takes turns between a few large ones;
    `flush` empties the cache of them before. An untimed replay ahead of each timed one keeps the
    device at work while the host queues the timed one.
    """
    calls = max(LEAST_CALLS, min(body.copies, MOST_CALLS))

    def several(count: int) -> Work:
        return lambda: [body.call(i) for i in range(count)]

    replay = graphs.capture(several(WARM), several(calls))

    def before() -> None:
        replay()
        if body.copies > 1:
            flush()

    samples: list[float] = []
    begin = clock()
    while len(samples) < MOST:
        samples.append(graphs.seconds(before, replay) / calls)
        if len(samples) >= LEAST and clock() - begin > most_s:
            break
    return summary(samples)
