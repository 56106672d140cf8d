"""Timing one call: many times, in samples long enough for the clock; the median and its spread."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

from sim.measure.tables import Timing

Call = Callable[[int], object]  # the number of the call, by which buffers rotate
Clock = Callable[[], float]  # seconds
# "cpu" counts the time that this process has the cores: of one thread, what a call takes, without
# the turns of other processes on a machine that is shared.
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
LEAST, MOST = 5, 60  # samples
SAMPLE_S = 5e-4  # a sample takes at least this long
GRAPH_CALLS = 16  # calls of a captured graph, unless more buffers rotate


def summary(samples: list[float]) -> Timing:
    """Seconds a call, as microseconds: median, half the distance of the quartiles, how many."""
    low, _, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else (samples * 3)
    median = statistics.median(samples)
    return Timing(round(median * 1e6, 4), round((high - low) / 2 * 1e6, 4), len(samples))


def cpu_timing(call: Call, most_s: float, clock: Clock = time.perf_counter) -> Timing:
    """Time of a call on this machine's cores, within about `most_s` seconds of `clock`."""
    begin = clock()
    call(0)  # warms code and allocator up
    call(1)
    done = 2
    each = (clock() - begin) / 2
    inner = max(1, math.ceil(SAMPLE_S / max(each, 1e-7)))
    samples: list[float] = []
    while len(samples) < MOST:
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


def cuda_timing(torch: Any, call: Call, copies: int, most_s: float) -> Timing:
    """Device time of a call within a captured CUDA graph that runs over all rotated buffers, so
    that the host's launches have no part in it."""
    calls = max(GRAPH_CALLS, min(copies, 64))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(3):
            call(i)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            call(i)
    graph.replay()
    torch.cuda.synchronize()
    samples: list[float] = []
    begin = time.perf_counter()
    while len(samples) < MOST:
        first = torch.cuda.Event(enable_timing=True)
        last = torch.cuda.Event(enable_timing=True)
        first.record()
        graph.replay()
        last.record()
        last.synchronize()
        samples.append(first.elapsed_time(last) * 1e-3 / calls)
        if len(samples) >= LEAST and time.perf_counter() - begin > most_s:
            break
    return summary(samples)
