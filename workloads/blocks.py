"""The blocks of a transformer: embedding, layer, head. Each is a small graph of operators.

A block reads like the formulas: every line adds one operator behind those it depends on.
Shapes stand at the line ends: T tokens, d hidden width, h heads, g key/value heads, k head
width, f inner width, V vocabulary.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import networkx as nx

from workloads.attention import flash_attention, materialised_attention
from workloads.batch import Batch
from workloads.latent import latent_attention
from workloads.model import Attention, Dense, Experts, Layer, Model, Record, Stack
from workloads.ops import (
    NORM_FLOPS,
    Op,
    activation,
    linear,
    lookup,
    norm,
    residual,
    rotary,
    vector,
)
from workloads.precision import Precision, packed


class Lowering(Record, frozen=True, kw_only=True):
    """How a model is turned into kernels.

    attention: "flash" keeps scores on chip, "materialised" writes them (as the paper counts).
    projections: Q, K, V (and gate, up) as one "fused" product or as "separate" ones.
    fusion: merge element-wise operators into their neighbours (`workloads.fusion`).
    """

    attention: Literal["flash", "materialised"] = "flash"
    projections: Literal["fused", "separate"] = "fused"
    fusion: bool = True


class Block:
    """A named graph of operators; node attribute `op`. `first` to `last` in one flow."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.graph = nx.DiGraph()

    def add(self, op: Op, *after: str) -> str:
        """Put `op` behind the operators named in `after`; returns its name."""
        self.graph.add_node(op.name, op=op)
        self.graph.add_edges_from((a, op.name) for a in after if a)
        return op.name

    @property
    def ops(self) -> tuple[Op, ...]:
        """Operators in the order they were added, which is a topological order."""
        return tuple(self.graph.nodes[name]["op"] for name in self.graph)


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What the blocks of one stack share in one pass. `rows` is T of that stack."""

    batch: Batch
    rows: int
    width: int
    precision: Precision
    lowering: Lowering
    cached_kv: bool
    ways: int = 1


def layer_block(name: str, layer: Layer, ctx: Context) -> Block:
    """Self-attention, cross-attention if any, feed-forward, with norms and residuals."""
    block = Block(name)
    out = _sublayer(block, "attn", "", layer, ctx)
    if layer.cross:
        out = _sublayer(block, "cross", out, layer, ctx)
    _sublayer(block, "ffn", out, layer, ctx)
    return block


def _sublayer(block: Block, part: str, last: str, layer: Layer, ctx: Context) -> str:
    """[norm] body [norm] residual [norm], by the place of the norm. Returns the last op."""
    rows, width, precision = ctx.rows, ctx.width, ctx.precision
    stream = last
    if layer.place != "post":
        last = block.add(norm(f"{part}_norm", layer.norm, rows, width, precision), last)
    if part == "attn":
        last = attend(block, "", layer.attention, ctx, last, cross=False)
    elif part == "cross" and layer.cross:
        last = attend(block, "cross_", layer.cross, ctx, last, cross=True)
    elif isinstance(layer.ffn, Dense):
        last = feed_forward(block, "", layer.ffn, ctx, last)
    else:
        last = mixture(block, layer.ffn, ctx, last)
    if layer.place == "sandwich":
        last = block.add(norm(f"{part}_post_norm", layer.norm, rows, width, precision), last)
    last = block.add(residual(f"{part}_residual", rows, width, precision), last, stream)
    if layer.place == "post":
        last = block.add(norm(f"{part}_norm", layer.norm, rows, width, precision), last)
    return last


def attend(
    block: Block, prefix: str, attention: Attention, ctx: Context, last: str, *, cross: bool
) -> str:
    """Project, rotate, attend, project back."""
    if attention.latent:
        return latent_attention(block, attention, ctx, last)
    precision, rows, d = ctx.precision, ctx.rows, ctx.width
    query = attention.heads * attention.head_dim  # h k
    key = attention.kv_heads * attention.head_dim  # g k
    value = attention.kv_heads * attention.value_dim  # g k
    bias_q = query if attention.bias_q else 0
    bias_k = key if attention.bias_k else 0
    bias_v = value if attention.bias_v else 0

    def project(part: str, tokens: int, outputs: int, bias: int) -> str:
        name = f"{prefix}{part}_proj"
        op = linear(name, "projection", tokens, d, outputs, precision, bias=bias, split="column")
        return block.add(op, last)

    if cross:
        fed = [project("q", rows, query, bias_q)]  # T x d -> T x hk
        source = ctx.batch.source_tokens
        if source:  # the encoder's output is projected once, then cached
            fed += [
                project("k", source, key, bias_k),
                project("v", source, value, bias_v),
            ]
    elif ctx.lowering.projections == "fused":
        fed = [project("qkv", rows, query + key + value, bias_q + bias_k + bias_v)]
    else:
        fed = [
            project("q", rows, query, bias_q),  # T x d -> T x hk
            project("k", rows, key, bias_k),  # T x d -> T x gk
            project("v", rows, value, bias_v),  # T x d -> T x gk
        ]
    if attention.qk_norm:
        size, scale = rows * (query + key), 2 * attention.head_dim  # one scale for q, one for k
        flops = NORM_FLOPS["rmsnorm"] * size
        op = vector("qk_norm", "norm", flops, size, size, precision, weights=scale)
        fed = [block.add(op, *fed)]
    if attention.rotary:
        fed = [block.add(rotary(f"{prefix}rotary", rows, query + key, precision), *fed)]
    kwargs = {"cross": cross, "cached_kv": ctx.cached_kv}
    if ctx.lowering.attention == "flash":
        name = f"{prefix}attention"
        last = block.add(flash_attention(name, attention, ctx.batch, precision, **kwargs), *fed)
    else:
        three = materialised_attention(prefix, attention, ctx.batch, precision, **kwargs)
        last = block.add(three[0], *fed)  # T x hk, C x gk -> h x T x C
        last = block.add(three[1], last)  # h x T x C
        last = block.add(three[2], last, *fed[-1:])  # h x T x C, C x gk -> T x hk
    return out_projection(block, f"{prefix}out_proj", attention, ctx, last)


def out_projection(block: Block, name: str, attention: Attention, ctx: Context, last: str) -> str:
    """T x hk -> T x d, the row-parallel end of attention."""
    op = linear(
        name,
        "projection",
        ctx.rows,
        attention.heads * attention.value_dim,
        ctx.width,
        ctx.precision,
        bias=ctx.width if attention.bias_out else 0,
        split="row",
        exchange="sum",
    )
    return block.add(op, last)


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


def visited_experts(experts: int, top_k: int, tokens: int) -> int:
    """Distinct experts that `tokens` tokens visit when each picks `top_k` evenly at random.

    Expected value experts * (1 - (1 - top_k/experts)^tokens), rounded, at least top_k.
    """
    expected = experts * (1.0 - (1.0 - top_k / experts) ** tokens)
    return min(experts, max(top_k, round(expected)))


def mixture(block: Block, ffn: Experts, ctx: Context, last: str) -> str:
    """Router, the visited experts as grouped products, shared experts, weighted sum."""
    precision, rows, d = ctx.precision, ctx.rows, ctx.width
    routed = rows * ffn.top_k
    visited = visited_experts(ffn.experts, ffn.top_k, rows)
    share = -(-routed // visited)  # rows an expert, rounded up: the busiest sets the pace
    width = 2 * ffn.inner if ffn.gated else ffn.inner
    bias = ffn.experts if ffn.router_bias else 0
    start = last
    gate = block.add(linear("router", "router", rows, d, ffn.experts, precision, bias=bias), last)
    up = block.add(
        linear("experts_up", "experts", share, d, width, precision, batch=visited, split="column"),
        gate,
    )
    act = activation(
        "experts_act", ffn.activation, share * visited, ffn.inner, ffn.gated, precision
    )
    last = block.add(act, up)
    down = linear(
        "experts_down", "experts", share, ffn.inner, d, precision, batch=visited, split="row"
    )
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


def embedding_block(name: str, stack: Stack, ctx: Context) -> Block | None:
    """Tables, convolutional front ends and a norm; None if the stack has none of them."""
    block, last = Block(name), ""
    table = stack.embedding
    act = ctx.precision
    rows = ctx.rows
    if table.convolutions:
        strides = [c.stride for c in table.convolutions]
        length = rows
        for stride in strides:
            length *= stride
        for i, conv in enumerate(table.convolutions):
            length //= conv.stride
            fan_in = conv.channels * conv.width
            op = linear(f"conv{i + 1}", "embedding", length, fan_in, ctx.width, act, bias=ctx.width)
            last = block.add(op, last)
            last = block.add(
                activation(f"conv{i + 1}_gelu", "gelu", length, ctx.width, False, act), last
            )
    tables = sum(1 for n in (table.tokens, table.positions, table.types) if n)
    if table.convolutions and table.positions:
        last = block.add(residual("positions", rows, ctx.width, act), last)
    elif tables:
        last = block.add(lookup("embed", rows, ctx.width, tables, act), last)
    if stack.relative_buckets:
        heads = stack.layers[0].attention.heads
        weights = stack.relative_buckets * heads
        op = vector("relative_bias", "embedding", 0, 0, 0, act, weights=weights, split="heads")
        last = block.add(op, last)
    if table.norm:
        last = block.add(norm("embed_norm", table.norm, rows, ctx.width, act), last)
    return block if last else None


def head_block(name: str, model: Model, stack: Stack, ctx: Context) -> Block | None:
    """Final norm over all rows, then the pooler or the logits of the rows that need them."""
    block, last = Block(name), ""
    head, d, logits = stack.head, model.hidden, ctx.batch.logits
    if stack.final_norm:
        last = block.add(norm("final_norm", stack.final_norm, ctx.rows, d, ctx.precision), last)
    if head.pooler:
        op = linear("pooler", "head", ctx.batch.size, d, d, ctx.precision, bias=d)
        last = block.add(op, last)
    if head.vocab and logits:
        op = linear(
            "lm_head",
            "head",
            logits,
            d,
            head.vocab,
            ctx.precision,
            bias=head.vocab if head.bias else 0,
            split="vocab",
            exchange="gather",
            ways=ctx.ways,
        )
        last = block.add(op, last)
    return block if last else None
