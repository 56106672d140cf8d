"""Latencies of requests, a block of rows at a time: memory does not grow with their number.

Percentiles are exact all the same: one pass counts the values by their leading bits, a second one
gathers those among which the wanted ranks lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sim.clock import TICKS_PER_SECOND
from sim.serve.columns import Column, RequestColumns
from sim.serve.knobs import Slo

if TYPE_CHECKING:
    import polars as pl

PERCENTILES = (50, 90, 95, 99)
LATENCIES = ("ttft", "tpot", "e2e", "queuing_delay")
_TIMES = ("arrival_ps", "scheduled_ps", "first_token_ps", "last_token_ps", "output_tokens")
_DROPPED = 36  # low bits of a float64 that are dropped to form bins, which are 0.0015 % wide
Values = NDArray[np.float64]
Blocks = Callable[[], Iterator[NDArray[Any]]]


def blocks_of(
    requests: RequestColumns | pl.DataFrame, *names: str
) -> Iterator[Mapping[str, Column]]:
    """Columns of integers of a store, or of a table that was read back, block by block."""
    if isinstance(requests, RequestColumns):
        return requests.blocks(names)
    return iter([{name: requests[name].to_numpy() for name in names}])


def total(requests: RequestColumns | pl.DataFrame, name: str) -> int:
    """The exact sum of a column of integers."""
    return sum(exact_sum(block[name]) for block in blocks_of(requests, name))


def exact_sum(values: Column) -> int:
    """The sum, also beyond 64 bits."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


def latency_blocks(
    requests: RequestColumns | pl.DataFrame,
) -> Iterator[dict[str, NDArray[Any]]]:
    """Ticks of the four latencies by request, in one order. Without a second token, tpot is
    nan."""
    for block in blocks_of(requests, *_TIMES):
        arrival, scheduled, first, last, output = (block[name] for name in _TIMES)
        gaps = output - 1
        tpot = np.full(len(gaps), np.nan)
        np.divide(last - first, gaps, out=tpot, where=gaps > 0)
        yield {
            "ttft": first - arrival,
            "tpot": tpot,
            "e2e": last - arrival,
            "queuing_delay": scheduled - arrival,
        }


def latencies(requests: RequestColumns | pl.DataFrame) -> dict[str, NDArray[Any]]:
    """`latency_blocks` put together."""
    blocks = list(latency_blocks(requests))
    return {name: np.concatenate([block[name] for block in blocks]) for name in LATENCIES}


def spreads(requests: RequestColumns | pl.DataFrame) -> dict[str, dict[str, float | int | None]]:
    """Mean, percentiles and largest of each latency, in seconds."""

    def of(name: str) -> Blocks:
        return lambda: (block[name] for block in latency_blocks(requests))

    return {name: spread(of(name)) for name in LATENCIES}


def spread(blocks: Blocks) -> dict[str, float | int | None]:
    """Mean, percentiles and largest of a latency in ticks, as seconds; nan is left out.

    blocks: gives the values again at each call.
    """

    def kept() -> Iterator[NDArray[Any]]:
        for block in blocks():
            yield block[~np.isnan(block)] if block.dtype.kind == "f" else block

    count, largest = 0, 0.0
    amount: float = 0  # exact as long as it is an integer
    for block in kept():
        count, largest = count + len(block), max(largest, float(block.max(initial=0)))
        amount += exact_sum(block) if block.dtype.kind == "i" else math.nan
    if not count:
        keys = [f"p{p}" for p in PERCENTILES]
        return {"count": 0, **dict.fromkeys(("mean", *keys, "max"))}
    if math.isnan(amount):  # fractions are added up without an error of rounding
        amount = math.fsum(chain.from_iterable(kept()))
    ranks = percentiles(lambda: (x / TICKS_PER_SECOND for x in kept()), count, PERCENTILES)
    return {
        "count": count,
        "mean": amount / count / TICKS_PER_SECOND,
        **{f"p{p}": value for p, value in zip(PERCENTILES, ranks, strict=True)},
        "max": largest / TICKS_PER_SECOND,
    }


def percentiles(blocks: Blocks, count: int, wanted: Sequence[float]) -> list[float]:
    """Percentiles of `count` values of at least 0, linear between ranks as in numpy."""
    places = [(count - 1) * (p / 100) for p in wanted]
    value = _order_statistics(blocks, {int(x) for x in places} | {math.ceil(x) for x in places})
    values = []
    for place in places:
        low, high = value[int(place)], value[math.ceil(place)]
        part, step = place - int(place), high - low
        # As numpy does, from the nearer end, so that the last digit is the same.
        values.append(low + step * part if part < 0.5 else high - step * (1 - part))
    return values


def _order_statistics(blocks: Blocks, ranks: set[int]) -> dict[int, float]:
    """Rank (from 0) -> value, in two passes."""
    bins, sizes = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for block in blocks():
        mine, more = np.unique(_bin(block), return_counts=True)
        bins, at = np.unique(np.concatenate([bins, mine]), return_inverse=True)
        sizes = np.bincount(at, np.concatenate([sizes, more])).astype(np.int64)
    ends = np.cumsum(sizes)
    inside = {rank: int(np.searchsorted(ends, rank, side="right")) for rank in ranks}
    chosen = np.unique([bins[i] for i in inside.values()])
    near: dict[int, list[Values]] = {int(one): [] for one in chosen}
    for block in blocks():
        own = _bin(block)
        for one in near:
            near[one].append(block[own == one])
    ordered = {one: np.sort(np.concatenate(parts)) for one, parts in near.items()}
    return {
        rank: float(ordered[int(bins[i])][rank - int(ends[i] - sizes[i])])
        for rank, i in inside.items()
    }


def _bin(values: NDArray[Any]) -> NDArray[np.int64]:
    """The leading bits of floats of at least 0, which are in the order of the floats."""
    return np.abs(values.astype(np.float64)).view(np.int64) >> _DROPPED


def goodput(
    requests: RequestColumns | pl.DataFrame, slo: Slo, refused: int, span: float
) -> dict[str, Any]:
    """Requests per second that meet every bound of the service level, and the share that does."""
    count, good, met = 0, 0, dict.fromkeys(slo.bounds, 0)
    for ticks in latency_blocks(requests):
        every = np.ones(len(ticks["e2e"]), dtype=bool)
        for name, bound in slo.bounds.items():
            one = np.nan_to_num(ticks[name]) / TICKS_PER_SECOND <= bound
            met[name] += int(one.sum())
            every &= one
        count, good = count + len(every), good + int(every.sum())
    share = good / (count + refused) if count + refused else 0.0
    return {
        "slo": msgspec.to_builtins(slo),
        "good_requests": good,
        "goodput": good / span if span else 0.0,
        "attainment": share,
        "attainment_by_bound": {
            name: number / (count + refused) if count + refused else 0.0
            for name, number in met.items()
        },
        "met": share >= slo.attainment,
    }
