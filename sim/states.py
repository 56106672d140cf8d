"""The seven states of a device, and vectors of ticks over them.

For each device and each instant exactly one state holds (see README, "The account of time").
"""

from __future__ import annotations

from collections.abc import Iterable

STATES = ("compute", "hbm", "sram", "link", "launch", "bubble", "idle")
COMPUTE, HBM, SRAM, LINK, LAUNCH, BUBBLE, IDLE = range(7)

# Ticks by state, in the order of STATES. A plain tuple: hundreds of thousands are added up.
Ticks = tuple[int, int, int, int, int, int, int]

NOTHING: Ticks = (0, 0, 0, 0, 0, 0, 0)


def only(state: int, t: int) -> Ticks:
    """`t` ticks in one state."""
    parts = [0] * 7
    parts[state] = t
    return tuple(parts)  # type: ignore[return-value]


def add(a: Ticks, b: Ticks) -> Ticks:
    return (
        a[0] + b[0],
        a[1] + b[1],
        a[2] + b[2],
        a[3] + b[3],
        a[4] + b[4],
        a[5] + b[5],
        a[6] + b[6],
    )


def total(many: Iterable[Ticks]) -> Ticks:
    result = NOTHING
    for one in many:
        result = add(result, one)
    return result


def scaled(a: Ticks, times: int) -> Ticks:
    return tuple(times * x for x in a)  # type: ignore[return-value]
