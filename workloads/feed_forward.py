"""Feed-forward blocks: dense, and mixtures of experts.

Shapes at line ends: T tokens, d hidden width, f inner width.
"""

from __future__ import annotations

import msgspec

from workloads.block import Block, Context
from workloads.model import Dense, Experts
from workloads.ops import activation, grouped, linear, vector
from workloads.precision import packed
from workloads.routing import expert_rows


def feed_forward(block: Block, prefix: str, ffn: Dense, ctx: Context, last: str) -> str:
    """up (and gate), activation, down."""
    precision, rows, d, f = ctx.precision, ctx.rows, ctx.width, ffn.inner
    bias = f if ffn.bias else 0

    def up(name: str, outputs: int, extra: int) -> str:
        op = linear(
            f"{prefix}{name}", "ffn", rows, d, outputs, precision, bias=extra, split="column"
        )
        return block.add(op, last)

    if ffn.gated and ctx.lowering.projections == "fused":
        fed = [up("gate_up_proj", 2 * f, 2 * bias)]  # T x d -> T x 2f
    else:
        fed = [up("up_proj", f, bias)]  # T x d -> T x f
        fed += [up("gate_proj", f, bias)] if ffn.gated else []
    act = activation(f"{prefix}{ffn.activation}", ffn.activation, rows, f, ffn.gated, precision)
    last = block.add(act, *fed)
    op = linear(
        f"{prefix}down_proj",
        "ffn",
        rows,
        f,
        d,
        precision,
        bias=d if ffn.bias else 0,
        split="row",
        exchange="sum",
    )
    return block.add(op, last)  # T x f -> T x d


def mixture(block: Block, ffn: Experts, ctx: Context, last: str) -> str:
    """Router, the visited experts as grouped products, shared experts, weighted sum."""
    precision, rows, d = ctx.precision, ctx.rows, ctx.width
    routed = rows * ffn.top_k
    groups = list(expert_rows(ffn.experts, ffn.top_k, rows, ctx.lowering.routing))
    width = 2 * ffn.inner if ffn.gated else ffn.inner
    bias = ffn.experts if ffn.router_bias else 0
    start = last
    gate = block.add(linear("router", "router", rows, d, ffn.experts, precision, bias=bias), last)
    up = block.add(grouped("experts_up", "experts", groups, d, width, precision, "column"), gate)
    act = activation("experts_act", ffn.activation, routed, ffn.inner, ffn.gated, precision)
    last = block.add(act, up)
    down = grouped("experts_down", "experts", groups, ffn.inner, d, precision, "row")
    last = block.add(down, last)
    outputs = [last]
    terms = ffn.top_k
    if ffn.shared_inner:
        shared = Dense(inner=ffn.shared_inner, activation=ffn.activation, gated=ffn.gated)
        outputs.append(feed_forward(block, "shared_", shared, ctx, start))
        terms += 1
    size = rows * d
    combine = vector("combine", "experts", 2 * terms * size, terms * size, size, precision)
    bytes_out = packed(size, precision.activation_bits)
    combine = msgspec.structs.replace(combine, exchange="sum", exchange_bytes=bytes_out)
    for name in outputs:  # one exchange behind the sum serves both branches
        op = msgspec.structs.replace(block.graph.nodes[name]["op"], exchange="", exchange_bytes=0)
        block.graph.nodes[name]["op"] = op
    return block.add(combine, *outputs)
