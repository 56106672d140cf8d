"""Fusion as a rewrite of the graph: what is merged stays readable in `Op.parts`.

Two rules, both common in inference engines. An activation joins the product whose output it
reads (an epilogue). A row-wise or element-wise operator joins a row-wise or element-wise one
right before it (residual + norm, norm + rotary). The tensor between the two is not read
again; it is not written either unless somebody else reads it. A partial sum that ranks have
yet to exchange is never fused past.
"""

from __future__ import annotations

import msgspec

from workloads.block import Block
from workloads.ops import VECTOR_KINDS, Op, least, most


def fuse(block: Block) -> Block:
    """A new block with the two rules applied until nothing more fuses. FLOPs are unchanged."""
    graph = block.graph
    home: dict[str, str] = {}  # operator -> the operator that it now lives in
    merged: dict[str, Op] = {}
    for name in graph:
        op: Op = graph.nodes[name]["op"]
        host = _host(block, name, home, merged)
        if host is None:
            home[name] = name
            merged[name] = op
        else:
            only = graph.out_degree(_tail(merged[host])) == 1
            merged[host] = join(merged[host], op, written_back=not only)
            home[name] = host
    fused = Block(block.name)
    for name, op in merged.items():
        before = {home[p] for member in _members(op) for p in graph.predecessors(member)}
        fused.graph.add_node(name, op=op)
        fused.graph.add_edges_from((b, name) for b in before if b != name)
    return fused


VARIES = ("tokens", "rows", "context")  # from the narrowest to the widest


def join(first: Op, second: Op, *, written_back: bool) -> Op:
    """`second` computed on `first`'s output before it leaves the chip."""
    between = least(first.traffic.written, second.traffic.read)
    traffic = first.traffic + second.traffic
    traffic = msgspec.structs.replace(
        traffic,
        read=traffic.read - between,
        written=traffic.written - (0 if written_back else between),
    )
    return msgspec.structs.replace(
        first,
        vector_flops=first.vector_flops + second.vector_flops,
        traffic=traffic,
        parts=(*_members(first), second.name),
        rows=most(first.rows, second.rows),
        width=max(first.width, second.width),
        varies=max(first.varies, second.varies, key=VARIES.index),
        branches=first.branches or second.branches,
    )


def _members(op: Op) -> tuple[str, ...]:
    return op.parts or (op.name,)


def _tail(op: Op) -> str:
    return _members(op)[-1]


def _host(block: Block, name: str, home: dict[str, str], merged: dict[str, Op]) -> str | None:
    """The fused operator that `name` may join, or None."""
    graph = block.graph
    op: Op = graph.nodes[name]["op"]
    if op.kind not in VECTOR_KINDS or op.kind == "softmax":
        return None
    for before in graph.predecessors(name):
        host = merged[home[before]]
        if _tail(host) != before or host.exchange:
            continue
        if host.kind in VECTOR_KINDS and host.kind != "softmax":
            # All other inputs must be there before the host runs.
            others = {home[p] for p in graph.predecessors(name)} - {home[before]}
            if not others or all(_earlier(merged, o, home[before]) for o in others):
                return home[before]
        epilogue = op.kind == "activation" and host.gemms and graph.out_degree(before) == 1
        if epilogue and graph.in_degree(name) == 1:
            return home[before]
    return None


def _earlier(merged: dict[str, Op], a: str, b: str) -> bool:
    order = list(merged)
    return order.index(a) < order.index(b)
