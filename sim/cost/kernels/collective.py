"""What a communication library takes for an exchange, from its calibrated ways.

Each way (protocol) costs latency + rounds * hop + bytes sent / rate; the library takes the
fastest. Thus the slow change from latency to bandwidth is the handing over from a way with short
latency and slow links (NCCL's LL) through LL128 to one with full links (Simple), and the jump at
which an engine's custom all-reduce hands over to NCCL is that of its largest message.

Across nodes a ring leaves and enters each node once. NCCL lays one ring through each network card,
so that the rings together go as fast as the cards of a node that the group can use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hw_models.efficiency import CollectiveTerms, Protocol
from sim.cost.arith import Arith

NEVER = 1e12  # seconds, of a way that does not serve
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


class Taken(NamedTuple):
    """Seconds before data flows and while it does, and the number of the way; numbers or arrays."""

    latency: Any
    data: Any
    way: Any


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


def way_seconds(p: Protocol, op: str, n: Any, nbytes: Any, link: Any) -> tuple[Any, Any]:
    """(latency, data) of one way, for links of `link` bytes/s."""
    rounds, sent = effort(p.algorithm, op, n, nbytes)
    data = sent / (link * p.bandwidth)
    if p.copy:
        data = data + nbytes / n / (link * p.copy)
    return (p.latency_us + rounds * p.round_us) * 1e-6, data


def library_seconds(
    xp: Arith,
    terms: CollectiveTerms,
    op: str,
    n: Any,
    nbytes: Any,
    link: Any,
    *,
    in_switch: bool = True,
) -> Taken:
    """The fastest way of one library; NEVER where it has none. `in_switch` says that the switch can
    add up this number format (floats, not integers)."""
    best = Taken(NEVER + 0.0 * nbytes, 0.0 * nbytes, -1 + 0 * n)
    for way, p in enumerate(terms.protocols):
        if op not in SERVES[p.algorithm] or (p.algorithm == "switch" and not in_switch):
            continue
        latency, data = way_seconds(p, op, n, nbytes, link)
        better = (n >= p.least_ranks) & (latency + data < best.latency + best.data)
        best = Taken(
            xp.where(better, latency + 0.0 * data, best.latency),
            xp.where(better, data, best.data),
            xp.where(better, way, best.way),
        )
    return best


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
    xp: Arith,
    libraries: Mapping[str, CollectiveTerms],
    op: str,
    n: Any,
    nbytes: Any,
    link: Any,
    *,
    in_switch: bool = True,
) -> tuple[Any, Taken]:
    """(number of the library among `choices`, what it takes): the first that takes the message."""
    which, taken = -1 + 0 * n, Taken(NEVER + 0.0 * nbytes, 0.0 * nbytes, -1 + 0 * n)
    for number, (_, terms) in reversed(list(enumerate(choices(libraries)))):
        own = library_seconds(xp, terms, op, n, nbytes, link, in_switch=in_switch)
        serves = (nbytes <= largest(xp, terms, n)) & (own.way >= 0)
        which = xp.where(serves, number, which)
        taken = Taken(*(xp.where(serves, a, b) for a, b in zip(own, taken, strict=True)))
    return which, taken


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
