"""An accelerator as data: peaks, memories, launch overhead, and how near it comes to them.

Every table carries its own `source`. Units stand in the key (decimal giga, binary gibi)
and are SI in the properties. A term of `Efficiency` that nobody has measured stays at
its neutral value, which leaves the datasheet as it is.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
NonNegative = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]
Source = Annotated[str, msgspec.Meta(min_length=8)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.\-]*$", max_length=100)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the frozen, keyword-only, strictly loaded records."""


class Peak(Record, frozen=True, kw_only=True):
    """Dense peak arithmetic rate by number format, TFLOP/s (2 per multiply-add)."""

    TFLOPS: dict[str, Positive]
    source: Source

    def __post_init__(self) -> None:
        known = {"fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4", "int4"}
        for dtype in self.TFLOPS:
            if dtype not in known:
                raise ValueError(f"dtype {dtype!r} is not one of {', '.join(sorted(known))}")
        if not self.TFLOPS:
            raise ValueError("a peak needs at least one dtype")

    def flops(self, dtype: str) -> float | None:
        """Peak in FLOP/s, or None if the device has no units for `dtype`."""
        rate = self.TFLOPS.get(dtype)
        return None if rate is None else rate * 1e12


class Hbm(Record, frozen=True, kw_only=True):
    """The device's main memory (HBM, GDDR or DDR). Decimal GB and GB/s."""

    capacity_GB: Positive
    bandwidth_GBps: Positive
    source: Source

    @property
    def capacity(self) -> float:
        """Bytes."""
        return self.capacity_GB * 1e9

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""
        return self.bandwidth_GBps * 1e9


class OnChip(Record, frozen=True, kw_only=True):
    """One on-chip memory, per core or shared by all. KiB is 1024 bytes.

    `bandwidth_GBps` is for the whole device (all cores together); left out, this level
    never limits.
    """

    name: str
    scope: Literal["core", "shared"]
    capacity_KiB: Positive
    bandwidth_GBps: Positive | None = None
    source: Source


class Launch(Record, frozen=True, kw_only=True):
    """Time that passes before a kernel's first byte or multiply, once a kernel."""

    overhead_us: NonNegative
    source: Source


class Efficiency(Record, frozen=True, kw_only=True):
    """How near real kernels come to the peaks. The defaults are neutral.

    matrix, vector, hbm: the fraction of the peak that a large kernel reaches.
    hbm_ramp_MB: bytes B0 in `bytes / (bytes + B0)`, the bandwidth ramp of small reads.
    attention, attention_ramp_tokens: prefill attention reaches
        attention * S / (S + S0) of the matrix peak on S new tokens.
    tile_m, tile_n: a GEMM is cut into output tiles of this size, one a core; edges
        are padded and the last wave is as long as a full one. 0: not modelled.
    """

    matrix: Fraction = 1.0
    vector: Fraction = 1.0
    hbm: Fraction = 1.0
    hbm_ramp_MB: NonNegative = 0.0
    attention: Fraction = 1.0
    attention_ramp_tokens: NonNegative = 0.0
    tile_m: Annotated[int, msgspec.Meta(ge=0, le=65536)] = 0
    tile_n: Annotated[int, msgspec.Meta(ge=0, le=65536)] = 0
    source: Source = "neutral: the datasheet as it is"


class Device(Record, frozen=True, kw_only=True):
    """One accelerator.

    `overlap` tells how its tile pipeline hides loads: "double-buffered" fills two
    buffers in turn; "perfect" hides all that can be hidden. `levels` tells whether a
    byte crosses HBM and the on-chip memories at once ("parallel", a pipeline) or one
    after the other ("series"). `prefetch` lets the launch and the first weight tile of
    the next operator overlap the current one.
    """

    name: Name
    vendor: str
    kind: Literal["gpu", "tpu", "cpu", "accelerator"]
    clock_GHz: Positive
    cores: Annotated[int, msgspec.Meta(gt=0, le=10**7)]
    matrix: Peak
    vector: Peak
    hbm: Hbm
    on_chip: Annotated[tuple[OnChip, ...], msgspec.Meta(min_length=1, max_length=8)]
    launch: Launch
    efficiency: Efficiency = msgspec.field(default_factory=Efficiency)
    overlap: Literal["double-buffered", "perfect"] = "double-buffered"
    levels: Literal["parallel", "series"] = "parallel"
    prefetch: bool = False
    source: Source

    def capacity(self, memory: OnChip) -> float:
        """Bytes of an on-chip memory over the whole device."""
        each = memory.capacity_KiB * 1024
        return each * self.cores if memory.scope == "core" else each

    @property
    def reuse_capacity(self) -> float:
        """Bytes of the level before HBM, which decides how often HBM is re-read: the largest
        shared memory, or all cores' together where nothing is shared."""
        shared = [m for m in self.on_chip if m.scope == "shared"] or list(self.on_chip)
        return max(self.capacity(memory) for memory in shared)

    @property
    def staging_capacity(self) -> float:
        """Bytes of the level nearest the arithmetic: what holds the tiles in flight."""
        cores = [m for m in self.on_chip if m.scope == "core"] or list(self.on_chip)
        return min(self.capacity(memory) for memory in cores)
