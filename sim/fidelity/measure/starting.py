"""A device file to start from, for a machine that the catalogue does not have.

Peaks are what was measured: the fastest product of each number format, the fastest copy. Sizes
are what the operating system or the driver says. Calibration adds the efficiency terms.
"""

from __future__ import annotations

import polars as pl

from hw_models.device import Device, Hbm, Launch, OnChip, Peak
from sim.fidelity.measure.cases import FORMATS
from sim.fidelity.measure.host import HostDescription

SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


def peaks(gemm: pl.DataFrame) -> dict[str, float]:
    """TFLOP/s of the fastest product, by number format."""
    fastest = {}
    for dtype, name in FORMATS.items():
        rows = gemm.filter(pl.col("dtype") == name) if len(gemm) else gemm
        if len(rows):
            rate = 2.0 * pl.col("m") * pl.col("n") * pl.col("k") / pl.col("latency_us") * 1e-6
            fastest[dtype] = round(float(rows.select(rate.max()).item()), 4)
    return fastest


def bandwidth(gemm: pl.DataFrame, copies: pl.DataFrame) -> float:
    """GB/s of the fastest copy among the largest ones (bytes read and written), or of a product of
    one row with a weight as large, which only reads."""
    size = pl.col("dtype").replace_strict(SIZES, return_dtype=pl.Int64)
    both = (pl.col("read") + pl.col("written")) * pl.col("rows")
    moved = [copies.select((both * size).alias("moved"), "latency_us")]
    rows = gemm.filter(pl.col("m") == 1)
    moved.append(rows.select((pl.col("n") * pl.col("k") * size).alias("moved"), "latency_us"))
    most = float(moved[0].select(pl.col("moved").max()).item())
    large = pl.concat(moved).filter(pl.col("moved") * 8 >= most)
    rate = large.select((pl.col("moved") / pl.col("latency_us")).max()).item()
    return round(float(rate) / 1e3, 3)


def floor_us(*frames: pl.DataFrame) -> float:
    """Time of the fastest kernel of all."""
    least = [frame["latency_us"].min() for frame in frames if len(frame)]
    return round(min(float(x) for x in least if isinstance(x, int | float)), 3)


def cpu_device(
    name: str,
    host: HostDescription,
    gemm: pl.DataFrame,
    copies: pl.DataFrame,
    *others: pl.DataFrame,
) -> Device:
    """The CPU at hand, from its measured products, copies and other kernels."""
    rates = peaks(gemm)
    measured = "measured: the fastest product of `memorywall measure` on these cores"
    source = "what the operating system says"
    levels = tuple(
        OnChip(
            name=f"L{c.level}",
            scope="core" if c.cores == 1 else "shared",
            capacity_KiB=c.kib,
            source="/sys/devices/system/cpu" if c.reported else "assumption: a usual size",
        )
        for c in host.caches
    )
    return Device(
        name=name,
        vendor=host.vendor,
        kind="cpu",
        clock_GHz=round(host.clock, 3),
        cores=host.cores,
        matrix=Peak(TFLOPS=rates, source=measured),
        vector=Peak(
            TFLOPS={"fp32": rates.get("fp32") or max(rates.values())},
            source=f"the same units as [matrix]; {measured}",
        ),
        hbm=Hbm(
            capacity_GB=round(host.memory / 1e9, 2),
            bandwidth_GBps=bandwidth(gemm, copies),
            source=f"capacity: {source}; bandwidth measured: the fastest large copy or read",
        ),
        on_chip=levels,
        launch=_launch(gemm, copies, *others),
        source=f"{source} (cores: those that the threads use; clock: {host.clock_source})",
    )


def gpu_device(
    name: str, driver: dict[str, float], gemm: pl.DataFrame, *others: pl.DataFrame
) -> Device:
    """A GPU at hand. `driver`: cores, clock_GHz, memory, shared_KiB, l2_KiB as PyTorch tells them.

    The first of `others` are the copies.
    """
    rates = peaks(gemm)
    measured = "measured: the fastest product of `memorywall measure` on this board"
    source = "what the driver says, through PyTorch"
    return Device(
        name=name,
        vendor="as PyTorch names it",
        kind="gpu",
        clock_GHz=driver["clock_GHz"],
        cores=int(driver["cores"]),
        matrix=Peak(TFLOPS=rates, source=measured),
        vector=Peak(
            TFLOPS={"fp32": rates.get("fp32") or max(rates.values()) / 16},
            source=(
                f"fp32 without tensor cores; {measured}"
                if "fp32" in rates
                else "estimate: a sixteenth of the fastest product; measure fp32 to have it"
            ),
        ),
        hbm=Hbm(
            capacity_GB=round(driver["memory"] / 1e9, 2),
            bandwidth_GBps=bandwidth(gemm, others[0]),
            source=f"capacity: {source}; bandwidth measured: the fastest large copy or read",
        ),
        on_chip=(
            OnChip(
                name="L1/shared", scope="core", capacity_KiB=driver["shared_KiB"], source=source
            ),
            OnChip(name="L2", scope="shared", capacity_KiB=driver["l2_KiB"], source=source),
        ),
        launch=_launch(gemm, *others),
        source=source,
    )


def _launch(*frames: pl.DataFrame) -> Launch:
    return Launch(
        overhead_us=floor_us(*frames),
        source="measured: the fastest of all kernels, most of which is its launch",
    )
