"""The time of an exchange in a communication library, from its calibrated protocols.

A protocol costs latency + rounds * hop + bytes sent / rate, and the library uses the fastest one.
This gives the gradual change from latency to bandwidth: NCCL goes from LL (short latency, slow
links) through LL128 to Simple (full links). An engine's custom all-reduce has a largest message;
beyond it NCCL serves, and the time jumps.

Across nodes a ring leaves and enters each node once. NCCL lays one ring through each network card,
so the rings together are as fast as those cards of a node that the group can use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hw_models.efficiency import CollectiveTerms, Protocol
from sim.cost.arith import Arith

NEVER = 1e12  # seconds of a protocol that does not serve the operation
SERVES = {
    "ring": ("all_reduce", "all_gather", "reduce_scatter"),
    "one-shot": ("all_reduce",),
    "two-shot": ("all_reduce",),
    "switch": ("all_reduce",),
    "direct": ("alltoall",),
    "send": ("send_recv",),
}
ACROSS = "across"  # the library of groups on several nodes
OPS = SERVES["ring"] + SERVES["direct"]


class Message(NamedTuple):
    """What is exchanged: `nbytes` among `n` ranks over links of `link` bytes/s; numbers or arrays.

    in_switch: whether the switch can add up this number format (floats, not integers).
    """

    n: Any
    nbytes: Any
    link: Any
    in_switch: bool = True


class LibraryTime(NamedTuple):
    """Seconds before data flows and while it flows, and the number of the protocol; numbers or
    arrays."""

    latency: Any
    data: Any
    protocol: Any


def effort(algorithm: str, op: str, n: Any, nbytes: Any) -> tuple[Any, Any]:
    """(rounds, bytes that a rank sends) of `nbytes` over `n` ranks."""
    if algorithm == "ring":
        rounds = 2 * (n - 1) if op == "all_reduce" else n - 1
        return rounds, rounds * nbytes / n
    if algorithm == "one-shot":
        return n - 1, (n - 1) * nbytes
    if algorithm == "switch":
        return 1, (n + 1) * nbytes / n
    if algorithm == "send":
        return 1, nbytes
    return n - 1, (2 if algorithm == "two-shot" else 1) * (n - 1) * nbytes / n


def protocol_seconds(p: Protocol, op: str, message: Message) -> tuple[Any, Any]:
    """(latency, data) of one protocol, seconds."""
    n, nbytes, link, _ = message
    rounds, sent = effort(p.algorithm, op, n, nbytes)
    data = sent / (link * p.bandwidth)
    if p.copy:
        data = data + nbytes / n / (link * p.copy)
    return (p.latency_us + rounds * p.round_us) * 1e-6, data


def library_seconds(xp: Arith, terms: CollectiveTerms, op: str, message: Message) -> LibraryTime:
    """The fastest protocol of one library; NEVER where none serves the operation."""
    best = _unserved(message)
    for number, p in enumerate(terms.protocols):
        if op not in SERVES[p.algorithm] or (p.algorithm == "switch" and not message.in_switch):
            continue
        latency, data = protocol_seconds(p, op, message)
        better = (message.n >= p.least_ranks) & (latency + data < best.latency + best.data)
        best = LibraryTime(
            xp.where(better, latency + 0.0 * data, best.latency),
            xp.where(better, data, best.data),
            xp.where(better, number, best.protocol),
        )
    return best


def _unserved(message: Message) -> LibraryTime:
    nothing = 0.0 * message.nbytes
    return LibraryTime(NEVER + nothing, nothing, -1 + 0 * message.n)


def largest(xp: Arith, terms: CollectiveTerms, n: Any) -> Any:
    """Bytes of the largest message of this library among `n` ranks."""
    if not terms.most_MiB:
        return float("inf")
    bound = terms.most_MiB.get("", 0.0) + 0.0 * n
    for ranks, most in terms.most_MiB.items():
        if ranks:
            bound = xp.where(n == int(ranks), most, bound)
    return bound * 2**20


def choices(libraries: Mapping[str, CollectiveTerms]) -> list[tuple[str, CollectiveTerms]]:
    """Libraries in the order of preference: those for small messages, then the others."""
    return sorted(libraries.items(), key=lambda item: (not item[1].most_MiB, item[0]))


def within(libraries: Mapping[str, CollectiveTerms]) -> dict[str, CollectiveTerms]:
    """Those that serve one node."""
    return {name: terms for name, terms in libraries.items() if name != ACROSS}


def across(libraries: Mapping[str, CollectiveTerms]) -> dict[str, CollectiveTerms]:
    """That of several nodes, if there is one."""
    return {name: terms for name, terms in libraries.items() if name == ACROSS}


def rails_of(xp: Arith, terms: CollectiveTerms, per_node: Any) -> Any:
    """Network cards of a node that the rings of `per_node` of its GPUs go through at once."""
    return xp.min(per_node, terms.rails) if terms.rails else per_node


def exchange_seconds(
    xp: Arith, libraries: Mapping[str, CollectiveTerms], op: str, message: Message
) -> tuple[Any, LibraryTime]:
    """(number of the library among `choices`, its time): the first library that serves the
    operation and a message of this size; -1 where none does."""
    which, time = -1 + 0 * message.n, _unserved(message)
    for number, (_, terms) in reversed(list(enumerate(choices(libraries)))):
        own = library_seconds(xp, terms, op, message)
        serves = (message.nbytes <= largest(xp, terms, message.n)) & (own.protocol >= 0)
        which = xp.where(serves, number, which)
        time = LibraryTime(*(xp.where(serves, a, b) for a, b in zip(own, time, strict=True)))
    return which, time


def eager_seconds(
    xp: Arith,
    libraries: Mapping[str, CollectiveTerms],
    seconds: Any,
    nbytes: Any,
    bandwidth: float,
) -> Any:
    """A call outside a captured graph: the message is copied first, at `bandwidth` of HBM, and the
    host takes its least time."""
    host = max((terms.eager_us for terms in libraries.values()), default=0.0) * 1e-6
    return xp.max(host, seconds + 2 * nbytes / bandwidth)
