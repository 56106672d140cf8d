"""Attention over a mixed batch: flash (scores stay on chip) or materialised (as in the paper).

Which keys a query sees decides everything: `pairs` counts the scores that a kernel has to
compute, `seen` the cached tokens that it has to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from workloads.batch import Batch, Group, Sequence
from workloads.block import Lowering
from workloads.model import Attention
from workloads.ops import (
    SOFTMAX_FLOPS,
    Elements,
    Flash,
    Gemm,
    Op,
    Traffic,
    least,
    vector,
)
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


class Attended(NamedTuple):
    """Equal sequences of a batch as attention sees them; numbers, or arrays of many batches.

    new, context: query tokens of a sequence, and keys that its last one sees without a window.
    keys, scores, appended: keys seen by at least one query token, query-key pairs, and new keys,
        of all sequences together.
    """

    sequences: int
    new: int
    context: int
    keys: int
    scores: int
    appended: int


def attended(attention: Attention, group: Group, *, cross: bool = False) -> Attended:
    """The counts of a group of equal sequences."""
    count, sequence = group.count, group.sequence
    if not cross:
        return chunks(attention, count, sequence.new, sequence.cached)
    new, cached, appended = _sides(sequence, cross)
    return Attended(count, new, cached, count * cached, count * new * cached, count * appended)


def chunks(attention: Attention, count: int, new: int, cached: int) -> Attended:
    """`count` chunks of `new` tokens behind `cached` ones."""
    keys = seen(new, cached, window=attention.window)
    scores = pairs(new, cached, causal=attention.causal, window=attention.window)
    return Attended(count, new, cached + new, count * keys, count * scores, count * new)


def decoding(sequences: int, keys: int) -> Attended:
    """Sequences of one new token each that see so many `keys` together."""
    return Attended(sequences, 1, 0, keys, keys, sequences)


def flash_attention(
    name: str,
    attention: Attention,
    batch: Batch,
    precision: Precision,
    *,
    cross: bool = False,
    cached_kv: bool = True,
) -> Op:
    """`flash_operator` over a batch."""
    parts = [attended(attention, group, cross=cross) for group in batch.groups]
    if cross:
        attention = msgspec.structs.replace(attention, causal=False, window=0)
    return flash_operator(name, attention, parts, precision, cached_kv=cached_kv)


class FlashCounts(NamedTuple):
    """What fused attention computes, in FLOPs, and moves, in bytes; numbers, or arrays.

    queries, written: activations in and out, without keys and values. kv, appended: keys and
    values that are read, and new ones.
    """

    matrix_flops: int
    vector_flops: int
    queries: int
    written: int
    kv: int
    appended: int


def flash_counts(
    attention: Attention, parts: Iterable[Attended], precision: Precision, kv_bits: int
) -> FlashCounts:
    """One fused kernel: scores, softmax and values, nothing of size context^2 in memory.

    FLOPs are those of the unmasked pairs. Keys and values, of `kv_bits` per number, are read once
    per sequence (shared by the query heads of a group).
    """
    scores = keys = appends = queries = 0
    for sequences, new, _, visible, some, more in parts:
        scores += some
        keys += visible
        appends += more
        queries += sequences * new
    act, kv_width = precision.activation_bits, attention.kv_width
    scores, queries = scores * attention.heads, queries * attention.heads
    return FlashCounts(
        2 * scores * (attention.head_dim + attention.value_dim),
        SOFTMAX_FLOPS * scores,
        packed(queries * attention.head_dim, act),
        packed(queries * attention.value_dim, act),
        packed(keys * kv_width, kv_bits),
        packed(appends * kv_width, kv_bits),
    )


def flash_operator(
    name: str,
    attention: Attention,
    parts: list[Attended],
    precision: Precision,
    *,
    cached_kv: bool = True,
) -> Op:
    """The kernel of `flash_counts` as an operator.

    New keys and values are appended to the cache if `cached_kv`; an encoder reads them as plain
    activations.
    """
    kv_bits = precision.kv_bits if cached_kv else precision.activation_bits
    counts = flash_counts(attention, parts, precision, kv_bits)
    shapes = [
        Flash(
            sequences=part.sequences,
            new=part.new,
            context=part.context,
            keys=part.keys,
            heads=attention.heads,
            kv_heads=attention.kv_heads,
            width=attention.head_dim + attention.value_dim,
            causal=attention.causal,
            window=attention.window,
            cached=cached_kv,
            kv_bits=kv_bits,
            kv_bytes=packed(part.keys * attention.kv_width, kv_bits),
        )
        for part in parts
    ]
    return Op(
        name=name,
        kind="attention",
        matrix_flops=counts.matrix_flops,
        vector_flops=counts.vector_flops,
        traffic=Traffic(
            read=counts.queries + (0 if cached_kv else counts.kv),
            written=counts.written,
            kv_read=counts.kv if cached_kv else 0,
            kv_written=counts.appended if cached_kv else 0,
        ),
        flash=tuple(shapes),
        split="heads",
        varies="context",
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

    softmax = vector(
        f"{prefix}softmax",
        "softmax",
        SOFTMAX_FLOPS * scores,
        Elements(scores, scores),
        precision,
        split="heads",
    )

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
            varies="context",
        ),
        msgspec.structs.replace(softmax, varies="context"),
        Op(
            name=f"{prefix}values",
            kind="attention",
            matrix_flops=sum(g.flops for g in value_gemms),
            traffic=traffic(scores, queries * attention.value_dim, v_reads, v_new),
            gemms=tuple(value_gemms),
            split="heads",
            varies="context",
        ),
    )


class Core(NamedTuple):
    """What attends between the projections: a chain of operators over a batch.

    build: (prefix, attention, batch, precision, cross=, cached_kv=) -> operators.
    from_sums: where all that matters of a batch is a list of `Attended`: (name, attention, parts,
        precision) -> operator; else None.
    counts: where that operator is fused attention over a cache: (attention, parts, precision,
        kv_bits) -> its `FlashCounts`, without the operator; else None.
    """

    build: Callable[..., tuple[Op, ...]]
    from_sums: Callable[..., Op] | None = None
    counts: Callable[..., FlashCounts] | None = None


def _flash_core(prefix: str, *args: Any, **kwargs: Any) -> tuple[Op, ...]:
    return (flash_attention(f"{prefix}attention", *args, **kwargs),)


# By `Attention.core`, or else by `Lowering.attention`. A new kind of attention is an entry here.
CORES: dict[str, Core] = {
    "flash": Core(_flash_core, flash_operator, flash_counts),
    "materialised": Core(materialised_attention),
}


def core_of(attention: Attention, lowering: Lowering) -> Core:
    """The core that this attention runs as."""
    return CORES[attention.core or lowering.attention]
