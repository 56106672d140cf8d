"""An accelerator as data: peaks, memories, launch overhead, and how close it comes to them.

Every table carries its own `source`. Units stand in the key (decimal giga, binary gibi)
and are SI in the properties. `hw_models.efficiency` says how close real kernels come to the peaks.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hw_models.efficiency import Efficiency
from hw_models.record import Name, NonNegative, Positive, Record, Source


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
        """Bytes per second."""
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
    """Time that passes before a kernel's first byte or multiply, once per kernel."""

    overhead_us: NonNegative
    source: Source


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
