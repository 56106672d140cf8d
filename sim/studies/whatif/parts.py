"""A metric taken apart: ticks by cause, as exact fractions that sum to the metric."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import msgspec

from sim.output.report import STATE_HEADS
from sim.states import STATES

# A request waits before it runs, and while it is preempted; a device does neither.
ALL_STATES = ("queue", *STATES, "preempted")
HEADS = {**STATE_HEADS, "queue": "queue", "preempted": "preempted"}


class Cause(msgspec.Struct, frozen=True):
    """Where ticks went.

    state: one of ALL_STATES. what: of HBM the traffic (weights, KV, activations), of a link the
    exchange (all-reduce, all-gather, send). kind: the operator class, "" where it is not known.
    """

    state: str
    what: str = ""
    kind: str = ""

    @property
    def label(self) -> str:
        """`HBM (KV)`, `compute`."""
        head = HEADS[self.state]
        return f"{head} ({self.what})" if self.what else head


Parts = dict[Cause, Fraction]


class Breakdown(msgspec.Struct, frozen=True):
    """A metric in ticks as the sum of its parts. No part is 0."""

    metric: str
    parts: Parts

    @property
    def total(self) -> Fraction:
        """Ticks."""
        return sum(self.parts.values(), Fraction())

    def by(self, *fields: str) -> dict[Cause, Fraction]:
        """Parts summed over all but `fields` (of state, what, kind)."""
        return gathered(self.parts, *fields)

    def __sub__(self, other: Breakdown) -> Breakdown:
        return Breakdown(self.metric, total([self.parts, {c: -x for c, x in other.parts.items()}]))

    def __add__(self, other: Breakdown) -> Breakdown:
        return Breakdown(self.metric, total([self.parts, other.parts]))

    def scaled(self, by: Fraction) -> Breakdown:
        """Every part `by` times as long."""
        return Breakdown(self.metric, kept({c: x * by for c, x in self.parts.items()}))


def kept(parts: Parts) -> Parts:
    """Without the parts that are 0."""
    return {cause: x for cause, x in parts.items() if x}


def total(many: Iterable[Parts]) -> Parts:
    """The sum of several, cause by cause."""
    sums: Parts = {}
    for parts in many:
        for cause, x in parts.items():
            sums[cause] = sums.get(cause, Fraction()) + x
    return kept(sums)


def gathered(parts: Parts, *fields: str) -> Parts:
    """Parts summed over all but `fields`."""
    sums: Parts = {}
    for cause, x in parts.items():
        one = Cause(
            cause.state if "state" in fields else "",
            cause.what if "what" in fields else "",
            cause.kind if "kind" in fields else "",
        )
        sums[one] = sums.get(one, Fraction()) + x
    return kept(sums)


def in_order(causes: Iterable[Cause]) -> list[Cause]:
    """By state in the order of ALL_STATES, then by name."""
    return sorted(causes, key=lambda c: (ALL_STATES.index(c.state), c.what, c.kind))
