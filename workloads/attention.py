"""Attention over a mixed batch: flash (scores stay on chip) or materialised (as in the paper).

Which keys a query sees decides everything: `pairs` counts the scores that a kernel has to
compute, `seen` the cached tokens that it has to read.
"""

from __future__ import annotations

from workloads.batch import Batch, Sequence
from workloads.model import Attention
from workloads.ops import SOFTMAX_FLOPS, Flash, Gemm, Op, Traffic, least, vector
from workloads.precision import Precision, packed


def pairs(new: int, cached: int, *, causal: bool, window: int = 0) -> int:
    """Query-key pairs of `new` queries behind `cached` tokens.

    Without a mask new * (cached + new); causal, query i (1-based) sees cached + i keys,
    and at most `window` of them when window > 0.
    """
    if not causal:
        return new * (cached + new)
    full = new * cached + new * (new + 1) // 2
    if not window:
        return full
    # Query i sees min(cached + i, window): the first `free` queries are below the window.
    free = least(new, window - least(window, cached))
    return free * cached + free * (free + 1) // 2 + (new - free) * window


def seen(new: int, cached: int, *, window: int = 0) -> int:
    """Tokens that at least one of the new queries sees."""
    context = cached + new
    return least(context, new + window - 1) if window else context


def _sides(sequence: Sequence, cross: bool) -> tuple[int, int, int]:
    """(new, cached, appended) of the attended side: own tokens, or the encoder's."""
    if cross:
        return sequence.new, sequence.source + sequence.source_cached, sequence.source
    return sequence.new, sequence.cached, sequence.new


def flash_attention(
    name: str,
    attention: Attention,
    batch: Batch,
    precision: Precision,
    *,
    cross: bool = False,
    cached_kv: bool = True,
) -> Op:
    """One fused kernel: scores, softmax and values, nothing of size context^2 in memory.

    FLOPs are those of the unmasked pairs. Keys and values are read once a sequence
    (shared by the query heads of a group), new ones are appended to the cache if
    `cached_kv`; an encoder reads them as plain activations.
    """
    heads, kv = attention.heads, attention.kv_heads
    width = attention.head_dim + attention.value_dim
    act = precision.activation_bits
    kv_bits = precision.kv_bits if cached_kv else act
    scores = reads = appends = queries = 0
    shapes = []
    for group in batch.groups:
        new, cached, appended = _sides(group.sequence, cross)
        if cross:
            visible, count = cached, new * cached
        else:
            visible = seen(new, cached, window=attention.window)
            count = pairs(new, cached, causal=attention.causal, window=attention.window)
        scores += group.count * count
        reads += group.count * visible
        appends += group.count * appended
        queries += group.count * new
        shapes.append(
            Flash(
                sequences=group.count,
                new=new,
                context=cached if cross else cached + new,
                keys=visible,
                heads=heads,
                kv_heads=kv,
                width=width,
                causal=attention.causal and not cross,
                window=0 if cross else attention.window,
                cached=cached_kv,
                kv_bits=kv_bits,
                kv_bytes=packed(group.count * visible * attention.kv_width, kv_bits),
            )
        )
    kv_width = attention.kv_width
    seen_bytes, appended = packed(reads * kv_width, kv_bits), packed(appends * kv_width, kv_bits)
    return Op(
        name=name,
        kind="attention",
        matrix_flops=2 * scores * heads * width,
        vector_flops=SOFTMAX_FLOPS * scores * heads,
        traffic=Traffic(
            read=packed(queries * heads * attention.head_dim, act)
            + (0 if cached_kv else seen_bytes),
            written=packed(queries * heads * attention.value_dim, act),
            kv_read=seen_bytes if cached_kv else 0,
            kv_written=appended if cached_kv else 0,
        ),
        flash=tuple(shapes),
        split="heads",
    )


def materialised_attention(
    prefix: str,
    attention: Attention,
    batch: Batch,
    precision: Precision,
    *,
    cross: bool = False,
    cached_kv: bool = True,
) -> tuple[Op, Op, Op]:
    """Scores, softmax and values as three operators, the score matrix written in between.

    The whole rectangle new x context is computed, and masked afterwards, as kernels
    without tiling do (Kim et al. 2023, section 2.2.1).
    """
    heads, kv = attention.heads, attention.kv_heads
    act = precision.activation_bits
    kv_bits = precision.kv_bits if cached_kv else act
    score_gemms, value_gemms = [], []
    scores = k_reads = v_reads = k_new = v_new = queries = 0
    for group in batch.groups:
        new, cached, appended = _sides(group.sequence, cross)
        context = cached if cross else seen(new, cached, window=attention.window)
        count, rows = group.count * kv, new * (heads // kv)
        score_gemms.append(
            Gemm(
                batch=count,
                m=rows,
                k=attention.head_dim,
                n=context,
                a_bits=act,
                b_bits=kv_bits,
                out_bits=act,
            )
        )
        value_gemms.append(
            Gemm(
                batch=count,
                m=rows,
                k=context,
                n=attention.value_dim,
                a_bits=act,
                b_bits=kv_bits,
                out_bits=act,
            )
        )
        scores += group.count * heads * new * context
        queries += group.count * heads * new
        k_reads += group.count * kv * context * attention.head_dim
        v_reads += group.count * kv * context * attention.value_dim
        if attention.latent:  # one latent is both key and value; it is appended once
            k_new += group.count * appended * attention.kv_width
        else:
            k_new += group.count * kv * appended * attention.head_dim
            v_new += group.count * kv * appended * attention.value_dim

    def traffic(read: int, written: int, cache: int, appended: int) -> Traffic:
        if cached_kv:
            return Traffic(
                read=packed(read, act),
                written=packed(written, act),
                kv_read=packed(cache, kv_bits),
                kv_written=packed(appended, kv_bits),
            )
        return Traffic(read=packed(read, act) + packed(cache, act), written=packed(written, act))

    return (
        Op(
            name=f"{prefix}scores",
            kind="attention",
            matrix_flops=sum(g.flops for g in score_gemms),
            traffic=traffic(queries * attention.head_dim, scores, k_reads, k_new),
            gemms=tuple(score_gemms),
            split="heads",
        ),
        vector(
            f"{prefix}softmax",
            "softmax",
            SOFTMAX_FLOPS * scores,
            scores,
            scores,
            precision,
            split="heads",
        ),
        Op(
            name=f"{prefix}values",
            kind="attention",
            matrix_flops=sum(g.flops for g in value_gemms),
            traffic=traffic(scores, queries * attention.value_dim, v_reads, v_new),
            gemms=tuple(value_gemms),
            split="heads",
        ),
    )
