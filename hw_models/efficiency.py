"""How close real kernels come to a device's peaks: a few terms per kernel family, all physical.

A term that nobody has measured stays at its neutral value, which leaves the datasheet as it is.
Terms of a family are kept by number format; bf16 and fp16 run on the same units and stand in for
each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec

from hw_models.record import Fraction, NonNegative, Positive, Record, Source

Depth = Annotated[int, msgspec.Meta(ge=0, le=64)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Spread(Record, frozen=True, kw_only=True):
    """Quantiles of measured over predicted time, of rows that were not fitted."""

    rows: Annotated[int, msgspec.Meta(gt=0)]
    p10: Positive
    p25: Positive
    p50: Positive
    p75: Positive
    p90: Positive


class KernelTerms(Record, frozen=True, kw_only=True):
    """What every family has.

    floor_us: time of the smallest kernel; left out, the device's launch overhead.
    residuals: how far measured kernels lie from these terms, by regime.
    """

    floor_us: NonNegative | None = None
    residuals: dict[str, Spread] = msgspec.field(default_factory=dict)
    source: Source = "neutral: the datasheet as it is"


Edge = Annotated[int, msgspec.Meta(gt=0, le=4096)]


class GemmTerms(KernelTerms, frozen=True, kw_only=True):
    """Products with weights, and batched products; `sim.cost.kernels.gemm` has the formula.

    tiles: output tile shapes (m, n) of the kernels at hand; none: waves are not modelled and
        all terms but the floor are without effect.
    splits: into how many parts k may be cut.
    matrix: fraction of the peak that a wave of large tiles reaches.
    edge: rows that a tile loses to filling the multipliers: it reaches m / (m + edge).
    wave_us: what each wave of tiles costs on top: prologue, epilogue.
    slack: how much of what the last wave lacks is saved: cores do not work in step, and those
        that are left have the power and the bandwidth of all.
    sag, sag_us: by how much long kernels are slower, as a fraction (power), and the time of full
        work at which half of that is reached.
    hbm: fraction of the bandwidth that a long stream reaches.
    ramp_MB: bytes that a stream costs on top.
    core_share: how many times its even share of the bandwidth one core can draw.
    split_us, split_ratio: what a split of k costs on top; partial sums pass at this multiple of
        the HBM bandwidth, since they stay in the cache.
    depth: steps in which loads and arithmetic overlap.
    choice: by how much, as a fraction, the kernel that the library takes is slower than the
        fastest at hand: the scale on which slower ones become rarer. 0: it takes the fastest.
    quantise: fraction of the bandwidth at which inputs are brought to 8 bit; 0: they come so.
    quantise_us: what that costs on top once there is a row for every core.
    """

    tiles: Annotated[tuple[tuple[Edge, Edge], ...], msgspec.Meta(max_length=32)] = ()
    splits: Annotated[tuple[Edge, ...], msgspec.Meta(min_length=1, max_length=16)] = (1,)
    matrix: Fraction = 1.0
    edge: NonNegative = 0.0
    wave_us: NonNegative = 0.0
    slack: Share = 0.0
    sag: NonNegative = 0.0
    sag_us: Positive = 1000.0
    hbm: Fraction = 1.0
    ramp_MB: NonNegative = 0.0
    core_share: Positive = 64.0
    split_us: NonNegative = 0.0
    split_ratio: Positive = 1.0
    depth: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    choice: NonNegative = 0.0
    quantise: NonNegative = 0.0
    quantise_us: NonNegative = 0.0


class PrefillTerms(KernelTerms, frozen=True, kw_only=True):
    """Attention of many new tokens per sequence, of batches that mix them with decoding ones, and
    of encoders. A kernel deals tiles of query rows to the cores, and a core walks the keys of its.

    tile_rows: query rows of a tile; rows are padded to whole tiles. 0: none of this is modelled.
    packed: whether the query heads that share keys share tiles; if not, each has its own.
    matrix, softmax, hbm: the fractions of matrix peak, vector peak and HBM bandwidth reached.
    tile_us: what a tile costs a core before its first key; empty_us: what one costs that finds no
        rows (a launch has as many tiles for every sequence as the longest chunk needs).
    tail: how much of the shorter one of two is not hidden under the other: all tiles spread over
        all cores, and the longest row of tiles on one core (the critical path).
    append: the kernel that puts new keys and values into the cache before this one takes so many
        passes more over the first 512 elements of a token's keys and values (one each a thread).
    depth: steps in which loads and multiplies overlap.
    """

    tile_rows: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    packed: bool = False
    matrix: Fraction = 1.0
    softmax: Fraction = 1.0
    hbm: Fraction = 1.0
    tile_us: NonNegative = 0.0
    empty_us: NonNegative = 0.0
    tail: Share = 0.0
    append: NonNegative = 0.0
    depth: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class DecodeTerms(KernelTerms, frozen=True, kw_only=True):
    """Attention of one new token per sequence over its cache: a block of work for each sequence and
    key/value head, or several that split its keys where blocks are fewer than cores.

    depth: steps in which loads and multiplies overlap. 0: none of this is modelled.
    hbm, matrix: the fractions of HBM bandwidth and matrix peak reached.
    block_us: what another wave of blocks over the cores costs before its first key, with heads of
        128 elements; half of it grows with them.
    split_us: adding up the parts of split keys, where one key block (128) is not all.
    regroup_us: bringing query heads that share keys together and apart again, by kernels before
        and behind (two more passes over queries and outputs), where there is more than one
        sequence and more than one key/value head.
    head_share: the fraction of the bandwidth that one sequence and head draws by splitting.
    core_share: how many times its even share of the bandwidth one core draws while others are
        done: blocks that are not split come two to a core, and the last ones run so. 0: no limit.
    """

    depth: Depth = 0
    hbm: Fraction = 1.0
    matrix: Fraction = 1.0
    block_us: NonNegative = 0.0
    split_us: NonNegative = 0.0
    regroup_us: NonNegative = 0.0
    head_share: Fraction = 1.0
    core_share: NonNegative = 0.0


class VectorTerms(KernelTerms, frozen=True, kw_only=True):
    """Norms, activations, residuals, rotary embedding, look-ups.

    hbm: the fraction of the HBM bandwidth that they stream at; left out, the device's.
    cached, cached_gain: what fits into this part of the shared on-chip level is still there when
        the next kernel reads it, and moves 1 + gain times as fast.
    walk: by kind of operator, clock cycles of a turn, in which the threads that a row has take
        an element each, or a pair, and wait for it. Rows come in waves over the cores; a look-up
        has the threads of all cores. What is still on chip comes 1 + gain times as fast here, too.
    hidden: how much of the shorter one of two, moving bytes and walking, is under the longer one.
        Arithmetic is under both.
    row_ns: time of one element of a row, which one core walks from end to end, without waves.
    passes: by kind of operator, how often the compulsory bytes are moved by a kernel that was not
        fused with its neighbours (a norm of two passes, an activation as two kernels). A look-up
        gathers a row per token, also where another rank holds it.
    depth: steps in which memory and the walk along a row overlap; 0: fills of on-chip memory.
    """

    hbm: Fraction | None = None
    cached: Fraction | None = None
    cached_gain: NonNegative = 0.0
    walk: dict[str, Positive] = msgspec.field(default_factory=dict)
    hidden: Share = 0.0
    row_ns: NonNegative = 0.0
    passes: dict[str, Positive] = msgspec.field(default_factory=dict)
    depth: Depth = 0


class ExpertTerms(KernelTerms, frozen=True, kw_only=True):
    """The grouped products of a mixture of experts, and the sum behind them.

    hbm, matrix: the fractions of HBM bandwidth and matrix peak that they reach.
    combine: the fraction of the HBM bandwidth that the weighted sum of outputs reaches.
    depth: steps in which loads and multiplies overlap.
    Rows of an expert are padded to a block of 16 to 128, outputs to 128, inputs to 64.
    """

    hbm: Fraction = 1.0
    matrix: Fraction = 1.0
    combine: Fraction = 1.0
    depth: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class Protocol(Record, frozen=True, kw_only=True):
    """One way in which a library exchanges data. It takes the fastest of its ways.

    A way takes `latency_us`, `round_us` for each of its rounds, and sends its bytes at
    `bandwidth` of the slowest link's rate; `copy` is the rate, in link rates, at which a rank's
    own n-th is copied beside that (0: not at all). Rounds r and bytes sent by a rank of n:

        ring       all-reduce 2(n-1), gather, scatter n-1     r bytes / n
        one-shot   all-reduce n-1 (reads of each peer)        (n-1) bytes
        two-shot   all-reduce n-1                             2 (n-1) bytes / n
        switch     all-reduce 1, added up in the switch       (n+1) bytes / n
        direct     all-to-all n-1                             (n-1) bytes / n
        send       send and receive 1                         bytes
    """

    algorithm: Literal["ring", "one-shot", "two-shot", "switch", "direct", "send"]
    latency_us: NonNegative
    round_us: NonNegative = 0.0
    bandwidth: Fraction
    copy: NonNegative = 0.0
    least_ranks: Annotated[int, msgspec.Meta(ge=2)] = 2


class CollectiveTerms(KernelTerms, frozen=True, kw_only=True):
    """Exchanges by one library over the links of one node; "across" names that of several nodes,
    whose rings leave a node by as many network cards as it has GPUs in the group.

    most_MiB: largest message of this library by number of ranks; "" for any other number. A
        larger one goes to a library without such a bound.
    eager_us: least time of a call outside a captured graph, which the host spends.
    rails: most network cards of a node that rings go through at once; 0: no bound.
    """

    protocols: tuple[Protocol, ...] = ()
    most_MiB: dict[str, Positive] = msgspec.field(default_factory=dict)
    eager_us: NonNegative = 0.0
    rails: Annotated[int, msgspec.Meta(ge=0)] = 0


T = TypeVar("T", bound=KernelTerms | None)
SAME_UNITS = {"bf16": "fp16", "fp16": "bf16"}


class Efficiency(Record, frozen=True, kw_only=True):
    """How near real kernels come to the peaks. The defaults are neutral.

    matrix, vector, hbm: the fraction of the peak that a large kernel reaches.
    hbm_ramp_MB: bytes B0 in `bytes / (bytes + B0)`, the bandwidth ramp of small reads.
    attention, attention_ramp_tokens: prefill attention reaches
        attention * S / (S + S0) of the matrix peak on S new tokens.
    gemm, prefill, encoder, decode, elementwise, experts: terms of a family by number format;
        attention over an 8-bit cache has its own under "fp8".
    collectives: terms by library.
    """

    matrix: Fraction = 1.0
    vector: Fraction = 1.0
    hbm: Fraction = 1.0
    hbm_ramp_MB: NonNegative = 0.0
    attention: Fraction = 1.0
    attention_ramp_tokens: NonNegative = 0.0
    gemm: dict[str, GemmTerms] = msgspec.field(default_factory=dict)
    prefill: dict[str, PrefillTerms] = msgspec.field(default_factory=dict)
    encoder: dict[str, PrefillTerms] = msgspec.field(default_factory=dict)
    decode: dict[str, DecodeTerms] = msgspec.field(default_factory=dict)
    elementwise: dict[str, VectorTerms] = msgspec.field(default_factory=dict)
    experts: dict[str, ExpertTerms] = msgspec.field(default_factory=dict)
    collectives: dict[str, CollectiveTerms] = msgspec.field(default_factory=dict)
    source: Source = "neutral: the datasheet as it is"


def terms_for(table: Mapping[str, T], dtype: str, neutral: T) -> T:
    """The terms of a number format, of its twin on the same units, or the neutral ones."""
    return table.get(dtype) or table.get(SAME_UNITS.get(dtype, "")) or neutral


def cache_terms(table: Mapping[str, T], dtype: str, kv_bits: int, neutral: T) -> T:
    """The terms of an attention family: by the format of the cache where it is of 8 bits, else of
    the activations; kernels whose inputs are narrower still multiply in 16 bits."""
    narrow = table.get("fp8") if kv_bits == 8 else None
    return narrow or terms_for(table, dtype, None) or terms_for(table, "bf16", neutral)
