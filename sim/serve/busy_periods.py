"""Busy periods of a replica, and how long the state at a step's start lasts.

With several pipeline stages a replica is at work between two steps of its first stage; the
requests and blocks at the start of a step stay until the next step, or until the replica is empty.
"""

from __future__ import annotations

import numpy as np

from sim.serve.columns import Column, Rows


def busy_periods(requests: Rows, replica: int) -> tuple[Column, Column]:
    """Begins and ends, in ticks, of the times in which a finished request was in a replica."""
    mine = requests.column("replica") == replica
    begin, end = (requests.column(name)[mine] for name in ("arrival_ps", "last_token_ps"))
    order = np.argsort(begin, kind="stable")
    begin, until = begin[order], np.maximum.accumulate(end[order])
    first = np.ones(len(begin), dtype=bool)
    first[1:] = begin[1:] > until[:-1]
    last = np.append(first[1:], True) if len(begin) else first
    return begin[first], until[last]


def held_until(start: Column, until: Column, present: tuple[Column, Column]) -> Column:
    """The time until which the state at each step's start lasts, in ticks.

    It is the next step's start if a request is present until then, and at least the step's own end
    `until`. Steps are in order of `start`.
    """
    begins, ends = present
    if not len(start) or not len(begins):
        return until
    at = np.searchsorted(begins, start, side="right") - 1
    left = np.where(at >= 0, ends[at], start)
    following = np.append(start[1:], left[-1])
    ends_of_steps: Column = np.maximum(until, np.minimum(following, left))
    return ends_of_steps
