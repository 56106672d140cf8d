"""How fast a device works at each instant: FLOP/s and HBM bytes/s."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from sim.account.timeline import Span


class Rates(NamedTuple):
    """FLOP/s and HBM bytes/s of one device from a tick on, until the next are given."""

    tick: int
    flops: float
    hbm_bytes: float


class Work(NamedTuple):
    """FLOPs and HBM bytes of one device during [begin, end) ticks."""

    begin: int
    end: int
    flops: int
    hbm_bytes: int


def device_rates(spans: Iterable[Span]) -> Iterator[Rates]:
    """The rates of one device from its spans.

    An operator works at its mean rate from the end of its launch to its own end. Operators on
    several streams add up.
    """
    costs = ((span, span.step.cost) for span in spans if span.step and span.step.cost)
    return rates_of(
        Work(span.begin + span.launched, span.end, cost.flops, cost.hbm_bytes)
        for span, cost in costs
    )


def rates_of(work: Iterable[Work]) -> Iterator[Rates]:
    """The rates in the order of time, one for each tick where a piece of work begins or ends; the
    last are 0. Each piece works at its mean rate.

    The integral over time is the work, but for pieces that take no time.
    """
    pieces = [one for one in work if one.end > one.begin]
    changes = [(one.begin, 1, i) for i, one in enumerate(pieces)]
    changes += [(one.end, 0, i) for i, one in enumerate(pieces)]
    running: dict[int, tuple[float, float]] = {}
    for tick, group in groupby(sorted(changes), key=lambda c: c[0]):
        for _, begins, i in group:
            if begins:
                one = pieces[i]
                per_s = 1e12 / (one.end - one.begin)
                running[i] = one.flops * per_s, one.hbm_bytes * per_s
            else:
                del running[i]
        flops, nbytes = (sum(rates[part] for rates in running.values()) for part in (0, 1))
        yield Rates(tick, flops, nbytes)
