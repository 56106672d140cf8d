"""How near real kernels come to a device's peaks: few terms a kernel family, each of the machine.

A term that nobody has measured stays at its neutral value, which leaves the datasheet as it is.
Terms of a family are kept by number format; bf16 and fp16 run on the same units and stand in for
each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec

from hw_models.record import Fraction, NonNegative, Positive, Record, Source


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


class GemmTerms(KernelTerms, frozen=True, kw_only=True):
    """Products with weights, and batched products."""


class PrefillTerms(KernelTerms, frozen=True, kw_only=True):
    """Attention of many new tokens a sequence, and of encoders."""


class DecodeTerms(KernelTerms, frozen=True, kw_only=True):
    """Attention of one new token a sequence over its cache."""


class VectorTerms(KernelTerms, frozen=True, kw_only=True):
    """Norms, activations, residuals, rotary embedding, look-ups."""


class ExpertTerms(KernelTerms, frozen=True, kw_only=True):
    """The grouped products of a mixture of experts."""


class CollectiveTerms(KernelTerms, frozen=True, kw_only=True):
    """Exchanges by one library over the links of one node."""


T = TypeVar("T", bound=KernelTerms)
SAME_UNITS = {"bf16": "fp16", "fp16": "bf16"}


class Efficiency(Record, frozen=True, kw_only=True):
    """How near real kernels come to the peaks. The defaults are neutral.

    matrix, vector, hbm: the fraction of the peak that a large kernel reaches.
    hbm_ramp_MB: bytes B0 in `bytes / (bytes + B0)`, the bandwidth ramp of small reads.
    attention, attention_ramp_tokens: prefill attention reaches
        attention * S / (S + S0) of the matrix peak on S new tokens.
    tile_m, tile_n: a GEMM is cut into output tiles of this size, one a core; edges
        are padded and the last wave is as long as a full one. 0: not modelled.
    gemm, prefill, encoder, decode, elementwise, experts: terms of a family by number format.
    collectives: terms by library.
    """

    matrix: Fraction = 1.0
    vector: Fraction = 1.0
    hbm: Fraction = 1.0
    hbm_ramp_MB: NonNegative = 0.0
    attention: Fraction = 1.0
    attention_ramp_tokens: NonNegative = 0.0
    tile_m: Annotated[int, msgspec.Meta(ge=0, le=65536)] = 0
    tile_n: Annotated[int, msgspec.Meta(ge=0, le=65536)] = 0
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
