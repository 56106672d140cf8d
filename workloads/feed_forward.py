"""Feed-forward blocks: dense, and mixtures of experts.

Shapes at line ends: T tokens, d hidden width, f inner width.
"""

from __future__ import annotations

import msgspec

from workloads.block import Block, Context
from workloads.model import Dense, Experts
from workloads.ops import (
    Elements,
    Matmul,
    Op,
    activation,
    exchanged,
    grouped,
    linear,
    vector,
)
from workloads.precision import Precision, packed
from workloads.routing import expert_rows


def feed_forward(block: Block, prefix: str, ffn: Dense, ctx: Context, last: str) -> str:
    """up (and gate), activation, down."""
    precision, rows, d, f = ctx.precision, ctx.rows, ctx.width, ffn.inner
    bias = f if ffn.bias else 0

    def up(name: str, outputs: int, extra: int) -> str:
        op = linear(
            f"{prefix}{name}",
            "ffn",
            Matmul(rows, d, outputs),
            precision,
            bias=extra,
            split="column",
        )
        return block.add(op, last)

    if ffn.gated and ctx.lowering.projections == "fused":
        fed = [up("gate_up_proj", 2 * f, 2 * bias)]  # T x d -> T x 2f
    else:
        fed = [up("up_proj", f, bias)]  # T x d -> T x f
        fed += [up("gate_proj", f, bias)] if ffn.gated else []
    act = activation(f"{prefix}{ffn.activation}", ffn.activation, rows, f, ffn.gated, precision)
    last = block.add(act, *fed)
    op = exchanged(
        linear(
            f"{prefix}down_proj",
            "ffn",
            Matmul(rows, f, d),
            precision,
            bias=d if ffn.bias else 0,
            split="row",
        ),
        "sum",
    )
    return block.add(op, last)  # T x f -> T x d


def routed_ops(
    ffn: Experts,
    groups: tuple[tuple[int, int], ...],
    tokens: int,
    width: int,
    precision: Precision,
) -> tuple[Op, Op, Op]:
    """Up (and gate), activation and down of the visited experts: `groups` of (how many, rows of
    each). The activation runs over the rows of all experts, also those of other ranks."""
    outputs = 2 * ffn.inner if ffn.gated else ffn.inner
    rows = tokens * ffn.top_k
    return (
        grouped("experts_up", "experts", list(groups), (width, outputs), precision, "column"),
        activation("experts_act", ffn.activation, rows, ffn.inner, ffn.gated, precision),
        grouped("experts_down", "experts", list(groups), (ffn.inner, width), precision, "row"),
    )


def combine_op(terms: int, tokens: int, width: int, precision: Precision) -> Op:
    """The weighted sum of `terms` outputs per token."""
    size = tokens * width
    return vector("combine", "experts", 2 * terms * size, Elements(terms * size, size), precision)


def mixture(block: Block, ffn: Experts, ctx: Context, last: str) -> str:
    """Router, the visited experts as grouped products, shared experts, weighted sum."""
    precision, rows, d = ctx.precision, ctx.rows, ctx.width
    bias = ffn.experts if ffn.router_bias else 0
    start = last
    last = block.add(
        linear("router", "router", Matmul(rows, d, ffn.experts), precision, bias=bias), last
    )
    groups = expert_rows(ffn.experts, ffn.top_k, rows, ctx.lowering.routing)
    for op in routed_ops(ffn, groups, rows, d, precision):
        last = block.add(op, last)
    outputs = [last]
    terms = ffn.top_k
    if ffn.shared_inner:
        shared = Dense(inner=ffn.shared_inner, activation=ffn.activation, gated=ffn.gated)
        outputs.append(feed_forward(block, "shared_", shared, ctx, start))
        terms += 1
    bytes_out = packed(rows * d, precision.activation_bits)
    combine = msgspec.structs.replace(
        combine_op(terms, rows, d, precision), exchange="sum", exchange_bytes=bytes_out
    )
    for name in outputs:  # one exchange behind the sum serves both branches
        op = msgspec.structs.replace(block.graph.nodes[name]["op"], exchange="", exchange_bytes=0)
        block.graph.nodes[name]["op"] = op
    return block.add(combine, *outputs)
