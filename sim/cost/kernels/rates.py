"""What the formulas need of a device: rates and sizes in SI units, computed once."""

from __future__ import annotations

import msgspec

from hw_models.device import Device
from hw_models.efficiency import Efficiency
from sim.errors import Infeasible, hint

RESOURCES = ("compute", "hbm", "sram", "link", "launch")


class Rates(msgspec.Struct, frozen=True):
    """One device at one number format. A resource in `free` costs nothing (what-if).

    peak, vector_peak: FLOP/s of the datasheet. vector: FLOP/s that vector units reach.
    attention_peak: matrix FLOP/s of attention, which multiplies in 16 bits or more. bandwidth:
    bytes/s that large HBM streams reach; ramp: bytes that a stream costs on top. inner_rate:
    bytes/s of the slowest on-chip level, 0 if none limits. reuse, staging: bytes of the level
    before HBM, and of the innermost one.
    """

    device: Device
    dtype: str
    free: frozenset[str]
    peak: float
    vector: float
    vector_peak: float
    attention_peak: float
    bandwidth: float
    ramp: float
    inner_rate: float
    reuse: int
    staging: float
    cores: int
    launch: float  # seconds
    series: bool
    perfect: bool

    @property
    def efficiency(self) -> Efficiency:
        return self.device.efficiency

    def floor(self, stated: float | None) -> float:
        """Seconds of the smallest kernel: `stated` in microseconds, or the launch overhead."""
        if "launch" in self.free:
            return 0.0
        return self.launch if stated is None else stated * 1e-6


def rates_of(device: Device, dtype: str, free: frozenset[str] = frozenset()) -> Rates:
    """Raises ValueError for an unknown resource, Infeasible for a format without units."""
    unknown = free - set(RESOURCES)
    if unknown:
        raise ValueError(f"{sorted(unknown)} cannot be free; resources are {RESOURCES}")
    inner = [m.bandwidth_GBps * 1e9 for m in device.on_chip if m.bandwidth_GBps]
    peak, wide = matrix_rate(device, dtype), device.matrix.flops("bf16")
    wide = wide or device.matrix.flops("fp16") or peak
    vector_peak = vector_rate(device)
    return Rates(
        device=device,
        dtype=dtype,
        free=free,
        peak=peak,
        vector_peak=vector_peak,
        attention_peak=wide if dtype in ("fp8", "int8", "fp4", "int4") else peak,
        vector=vector_peak * device.efficiency.vector,
        bandwidth=device.hbm.bandwidth * device.efficiency.hbm,
        ramp=device.efficiency.hbm_ramp_MB * 1e6,
        inner_rate=0.0 if "sram" in free or not inner else min(inner),
        reuse=2**62 if "sram" in free else int(device.reuse_capacity),
        staging=device.staging_capacity,
        cores=device.cores,
        launch=0.0 if "launch" in free else device.launch.overhead_us * 1e-6,
        series=device.levels == "series",
        perfect=device.overlap == "perfect" or "sram" in free,
    )


def matrix_rate(device: Device, dtype: str) -> float:
    """Matrix peak in FLOP/s for `dtype`. Raises Infeasible naming what the device has."""
    rate = device.matrix.flops(dtype)
    if rate is None:
        have = ", ".join(device.matrix.TFLOPS)
        raise Infeasible(
            f"{device.name} has no {dtype} matrix units (it has {have}); "
            f"choose another --dtype{hint(dtype, device.matrix.TFLOPS)}"
        )
    return rate


def vector_rate(device: Device) -> float:
    """Vector peak in FLOP/s: fp32 if there is such, else the slowest listed."""
    return device.vector.flops("fp32") or min(device.vector.TFLOPS.values()) * 1e12
