"""Multi-head latent attention (MLA), in its two equivalent forms.

Source: DeepSeek-V2, arXiv 2405.04434, section 2.1. Expanded: keys and values of the whole
context are rebuilt from the cached latents, then attended per head. Absorbed: the rebuilding
matrices are multiplied into the query and the output, and all heads attend to the latents
themselves. A sequence takes the form that needs fewer FLOPs: expanded for a prompt,
absorbed for a decode step.
"""

from __future__ import annotations

from msgspec.structs import replace

from workloads.attention import core_of, pairs
from workloads.batch import Batch, Group, Sequence
from workloads.block import Block, Context
from workloads.model import Attention
from workloads.ops import (
    Matmul,
    Op,
    Traffic,
    exchanged,
    linear,
    norm,
    rotary,
)
from workloads.precision import packed


def absorbed_view(attention: Attention) -> Attention:
    """All heads over one shared key/value "head": the latent with its rotary part."""
    latent = attention.latent
    assert latent is not None
    return replace(
        attention,
        kv_heads=1,
        head_dim=latent.kv_rank + latent.rope_dim,
        value_dim=latent.kv_rank,
    )


def prefers_absorbed(attention: Attention, sequence: Sequence) -> bool:
    """Whether the absorbed form needs fewer multiply-adds for this sequence."""
    latent = attention.latent
    assert latent is not None
    rank, h = latent.kv_rank, attention.heads
    nope = attention.head_dim - latent.rope_dim
    scores = pairs(sequence.new, sequence.cached, causal=attention.causal)
    rebuild = rank * h * (nope + attention.value_dim)
    expanded = sequence.context * rebuild + scores * h * (attention.head_dim + attention.value_dim)
    absorbed = sequence.new * rebuild + scores * h * (2 * rank + latent.rope_dim)
    return absorbed < expanded


def latent_attention(block: Block, attention: Attention, ctx: Context, last: str) -> str:
    """Down- and up-projections of the latents, attention in both forms, output projection."""
    latent = attention.latent
    assert latent is not None
    precision, rows, d, h = ctx.precision, ctx.rows, ctx.width, attention.heads
    query = h * attention.head_dim
    start = last
    if latent.query_rank:
        op = linear("q_a_proj", "projection", Matmul(rows, d, latent.query_rank), precision)
        last = block.add(op, start)  # T x d -> T x rq
        last = block.add(norm("q_a_norm", "rmsnorm", rows, latent.query_rank, precision), last)
        op = linear(
            "q_b_proj",
            "projection",
            Matmul(rows, latent.query_rank, query),
            precision,
            split="column",
        )
        queries = block.add(op, last)  # T x rq -> T x hk
    else:
        op = linear("q_proj", "projection", Matmul(rows, d, query), precision, split="column")
        queries = block.add(op, start)
    compressed = latent.kv_rank + latent.rope_dim
    op = linear("kv_a_proj", "projection", Matmul(rows, d, compressed), precision)
    last = block.add(op, start)  # T x d -> T x (r + rope)
    last = block.add(norm("kv_a_norm", "rmsnorm", rows, latent.kv_rank, precision), last)
    rope = rotary("rotary", rows, (h + 1) * latent.rope_dim, precision)
    rotated = block.add(rope, queries, last)
    ends = attend_latents(block, attention, ctx, rotated)
    op = exchanged(
        linear(
            "out_proj",
            "projection",
            Matmul(rows, h * attention.value_dim, d),
            precision,
            split="row",
        ),
        "sum",
    )
    return block.add(op, *ends)


def attend_latents(block: Block, attention: Attention, ctx: Context, last: str) -> list[str]:
    """Attention in both forms, with the products that a form adds: all that contexts decide.
    Returns the last operator of each form."""
    absorbed = [g for g in ctx.batch.groups if prefers_absorbed(attention, g.sequence)]
    expanded = [g for g in ctx.batch.groups if g not in absorbed]
    ends = []
    if expanded:
        ends.append(_expanded(block, attention, ctx, expanded, last))
    if absorbed:
        ends.append(_absorbed(block, attention, ctx, absorbed, last))
    return ends


def _expanded(
    block: Block, attention: Attention, ctx: Context, groups: list[Group], last: str
) -> str:
    latent = attention.latent
    assert latent is not None
    precision, h = ctx.precision, attention.heads
    nope = attention.head_dim - latent.rope_dim
    batch = Batch(groups=tuple(groups))
    context = sum(g.count * g.sequence.context for g in groups)
    cached = sum(g.count * g.sequence.cached for g in groups)
    width = h * (nope + attention.value_dim)
    op = linear(
        "kv_b_proj", "projection", Matmul(context, latent.kv_rank, width), precision, split="column"
    )  # C x r -> C x h(nope + v)
    from_cache = packed(cached * latent.kv_rank, precision.activation_bits)
    traffic = op.traffic + Traffic(
        kv_read=packed(cached * attention.kv_width, precision.kv_bits),
        kv_written=packed(batch.tokens * attention.kv_width, precision.kv_bits),
    )
    traffic = replace(traffic, read=traffic.read - from_cache)
    last = _add(block, replace(op, traffic=traffic), last)
    plain = replace(attention, kv_heads=h, latent=None)
    return _attend(block, "", plain, replace(ctx, batch=batch, cached_kv=False), last)


def _absorbed(
    block: Block, attention: Attention, ctx: Context, groups: list[Group], last: str
) -> str:
    latent = attention.latent
    assert latent is not None
    precision, h = ctx.precision, attention.heads
    nope = attention.head_dim - latent.rope_dim
    batch = Batch(groups=tuple(groups))
    tokens = batch.tokens
    op = linear(
        "q_absorb",
        "projection",
        Matmul(tokens, nope, latent.kv_rank, batch=h),
        precision,
        split="heads",
    )  # h x (T x nope -> T x r)
    last = _add(block, op, last)
    view = absorbed_view(attention)
    last = _attend(block, "latent_", view, replace(ctx, batch=batch), last)
    op = linear(
        "v_absorb",
        "projection",
        Matmul(tokens, latent.kv_rank, attention.value_dim, batch=h),
        precision,
        split="heads",
    )  # h x (T x r -> T x v)
    return _add(block, op, last)


def _attend(block: Block, prefix: str, view: Attention, ctx: Context, last: str) -> str:
    core = core_of(view, ctx.lowering).build
    for op in core(prefix, view, ctx.batch, ctx.precision, cross=False, cached_kv=ctx.cached_kv):
        last = _add(block, op, last)
    return last


def _add(block: Block, op: Op, last: str) -> str:
    """An operator of one of the two forms, which the contexts of the batch decide."""
    return block.add(replace(op, varies="context", branches=True), last)
