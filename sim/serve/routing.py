"""Routers: which replica a request goes to.

A router is a function of the request and the replicas. It sees a replica with one stage as it will
be at the end of the step that is under way when the request arrives. Register one in ROUTERS, or
name it by its import path ("module:function").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sim.errors import InputError, quoted
from sim.inputs.plugins import explained, imported, place_of
from sim.serve.replica import Replica
from workloads.request import Request

Router = Callable[[Request, Sequence[Replica]], int]


def round_robin(request: Request, replicas: Sequence[Replica]) -> int:
    return request.index % len(replicas)


def least_outstanding(request: Request, replicas: Sequence[Replica]) -> int:
    return min(range(len(replicas)), key=lambda i: (replicas[i].outstanding, i))


def least_kv(request: Request, replicas: Sequence[Replica]) -> int:
    """Least memory in use and needed by requests that wait."""

    def wanted(i: int) -> int:
        one = replicas[i]
        waiting = sum(one.blocks.needed(live.target) for _, live in one.queue.waiting)
        return one.blocks.used + waiting

    return min(range(len(replicas)), key=lambda i: (wanted(i), i))


def prefix_aware(request: Request, replicas: Sequence[Replica]) -> int:
    """Most of the prompt already in memory; among equals the least outstanding."""

    def rank(i: int) -> tuple[int, int, int]:
        return (-replicas[i].blocks.hits(request.hashes), replicas[i].outstanding, i)

    return min(range(len(replicas)), key=rank)


ROUTERS: dict[str, Router] = {
    "round-robin": round_robin,
    "least-outstanding": least_outstanding,
    "least-kv": least_kv,
    "prefix-aware": prefix_aware,
}


def router(name: str) -> Router:
    """A router by its name or its import path. Raises InputError with what is known."""
    if name in ROUTERS:
        return ROUTERS[name]
    plugin: Any = imported("router", name, ROUTERS)
    if not callable(plugin):
        raise InputError(f"router {quoted(name)} is not a function")

    def route(request: Request, replicas: Sequence[Replica]) -> int:
        with explained("router", name):
            number = plugin(request, replicas)
        if type(number) is not int or not 0 <= number < len(replicas):
            raise InputError(
                f"router {quoted(name)} sent request {request.index} to replica {number!r}; "
                "there are "
                f"0 to {len(replicas) - 1}{place_of(plugin)}"
            )
        return number

    return route
