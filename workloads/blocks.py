"""The blocks of a transformer: embedding, layer, head. Each is a small graph of operators.

A block reads like the formulas: every line adds one operator behind those it depends on.
Shapes stand at the line ends: T tokens, d hidden width, h heads, g key/value heads, k head
width, f inner width, V vocabulary.
"""

from __future__ import annotations

import msgspec
import numpy as np

from workloads.attention import core_of
from workloads.block import Block, Context
from workloads.feed_forward import feed_forward, mixture
from workloads.latent import latent_attention
from workloads.model import Attention, Dense, Layer, Model, Stack
from workloads.ops import (
    NORM_FLOPS,
    Elements,
    Matmul,
    activation,
    exchanged,
    linear,
    lookup,
    norm,
    residual,
    rotary,
    vector,
)


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
        op = linear(
            name, "projection", Matmul(tokens, d, outputs), precision, bias=bias, split="column"
        )
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
        op = vector("qk_norm", "norm", flops, Elements(size, size, weights=scale), precision)
        fed = [block.add(op, *fed)]
    if attention.rotary:
        fed = [block.add(rotary(f"{prefix}rotary", rows, query + key, precision), *fed)]
    core = core_of(attention, ctx.lowering).build
    ops = core(prefix, attention, ctx.batch, precision, cross=cross, cached_kv=ctx.cached_kv)
    last = block.add(ops[0], *fed)  # T x hk, C x gk -> h x T x C, or at once -> T x hk
    for op in ops[1:-1]:
        last = block.add(op, last)  # h x T x C
    if len(ops) > 1:
        last = block.add(ops[-1], last, *fed[-1:])  # h x T x C, C x gk -> T x hk
    return out_projection(block, f"{prefix}out_proj", attention, ctx, last)


def out_projection(block: Block, name: str, attention: Attention, ctx: Context, last: str) -> str:
    """T x hk -> T x d, the row-parallel end of attention."""
    op = exchanged(
        linear(
            name,
            "projection",
            Matmul(ctx.rows, attention.heads * attention.value_dim, ctx.width),
            ctx.precision,
            bias=ctx.width if attention.bias_out else 0,
            split="row",
        ),
        "sum",
    )
    return block.add(op, last)


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
            op = linear(
                f"conv{i + 1}", "embedding", Matmul(length, fan_in, ctx.width), act, bias=ctx.width
            )
            last = block.add(op, last)
            last = block.add(
                activation(f"conv{i + 1}_gelu", "gelu", length, ctx.width, False, act), last
            )
    tables = sum(1 for n in (table.tokens, table.positions, table.types) if n)
    if table.convolutions and table.positions:
        last = block.add(residual("positions", rows, ctx.width, act), last)
    elif tables:
        last = block.add(lookup("embed", rows, ctx.width, tables, act, ctx.ways), last)
    if stack.relative_buckets:
        heads = stack.layers[0].attention.heads
        weights = stack.relative_buckets * heads
        op = vector(
            "relative_bias", "embedding", 0, Elements(0, 0, weights=weights), act, split="heads"
        )
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
        op = linear("pooler", "head", Matmul(ctx.batch.size, d, d), ctx.precision, bias=d)
        last = block.add(msgspec.structs.replace(op, varies="rows"), last)
    if head.vocab and np.any(logits):
        op = exchanged(
            linear(
                "lm_head",
                "head",
                Matmul(logits, d, head.vocab),
                ctx.precision.for_table,
                bias=head.vocab if head.bias else 0,
                split="vocab",
            ),
            "gather",
            ways=ctx.ways,
        )
        last = block.add(msgspec.structs.replace(op, varies="rows"), last)
    return block if last else None
