"""Fig 9 of Kim et al. 2023 (arXiv 2302.14017): latency measured on a CPU. A calibration.

The paper does not state batch size, number format, threads or framework, so this figure cannot
be computed from it. What can be asked is how far one parameter goes: the four groups of
operators as four roofline operators on `xeon-gold-6242` in fp32, loads hidden under arithmetic
as far as they can be, and the bandwidth that fits best. The fit uses the points it is shown on.
"""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec

from sim.cost.model import CostModel
from sim.inputs.catalogue import Value, load_device
from sim.studies.paper.cells import Printed, Section, compare, load_printed
from sim.studies.paper.convention import GROUPS, MODELS, counted, paper_model
from sim.studies.paper.figures import LENGTHS
from workloads.batch import Batch
from workloads.ops import Op
from workloads.precision import Precision

FP32 = Precision(weights="fp32", activations="fp32", kv="fp32")
DEVICE = "xeon-gold-6242"
REACH = (20.0, 500.0)  # GB/s in which the bandwidth is sought
PRECISE = 1e-4  # relative error of the fitted bandwidth


class CpuFit(msgspec.Struct, frozen=True):
    """The bandwidth that fits best, and how well it does."""

    bandwidth_GBps: float
    flops_per_element: float  # at which arithmetic and memory take the same time
    rms: float  # of the natural logarithm of ours over printed, the normalised point left out
    latency: dict[str, dict[str, float]]


@lru_cache(maxsize=64)
def group_ops(name: str, length: int) -> tuple[tuple[Op, ...], int]:
    """The paper's four rows as one operator each, and how often they run."""
    model = paper_model(name)
    encoder = model.decoder is None
    batch = Batch.encode(1, length) if encoder else Batch.decode(1, length // 2)
    sums: dict[str, Op] = {}
    for op in counted(model, batch, FP32):
        row = GROUPS[op.kind]
        one = sums.get(row, Op(name=row, kind=op.kind))
        sums[row] = msgspec.structs.replace(
            one,
            matrix_flops=one.matrix_flops + op.matrix_flops,
            vector_flops=one.vector_flops + op.vector_flops,
            traffic=one.traffic + op.traffic,
        )
    return tuple(sums.values()), 1 if encoder else length


def latencies(bandwidth: float) -> dict[str, dict[str, float]]:
    """Normalised latency by model and length at a bandwidth in GB/s."""
    changes: dict[str, Value] = {
        "hbm.bandwidth_GBps": bandwidth,
        "launch.overhead_us": 0.0,
        "overlap": "perfect",
    }
    costs = CostModel(load_device(DEVICE, changes), "fp32")

    def time(name: str, length: int) -> int:
        ops, times = group_ops(name, length)
        return times * sum(costs(op).duration for op in ops)

    unit = time("BERT-Base", 128)
    return {name: {str(n): time(name, n) / unit for n in LENGTHS} for name in MODELS}


def calibrate() -> CpuFit:
    """The bandwidth of least rms log error, by golden section on its logarithm."""
    printed = load_printed("figure-9")

    def error(log_bandwidth: float) -> float:
        return rms(latencies(math.exp(log_bandwidth)), printed)

    low, high = (math.log(edge) for edge in REACH)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = error(left), error(right)
    while high - low > PRECISE:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = error(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = error(right)
    bandwidth = math.exp((low + high) / 2)
    peak = load_device(DEVICE).matrix.flops("fp32")
    assert peak is not None
    computed = latencies(bandwidth)
    return CpuFit(bandwidth, 4 * peak / (bandwidth * 1e9), rms(computed, printed), computed)


def rms(ours: dict[str, dict[str, float]], printed: Printed) -> float:
    """Root mean square of the log error over all points but the one that is the unit."""
    errors = [
        math.log(ours[row.name][column] / float(text))
        for row in printed.rows
        for column, text in zip(printed.columns, row.printed, strict=True)
        if (row.name, column) != ("BERT-Base", "128")
    ]
    return math.sqrt(sum(e * e for e in errors) / len(errors))


def cpu_latency() -> tuple[Section, CpuFit]:
    """Fig 9 at the bandwidth that fits it best."""
    fit = calibrate()
    nominal = load_device(DEVICE).hbm.bandwidth_GBps
    plain = rms(latencies(nominal), load_printed("figure-9"))
    notes = (
        "Calibrated, not predicted: one parameter, the bandwidth, is fitted to the 17 points that "
        f"it is shown on. Best: {fit.bandwidth_GBps:.1f} GB/s in fp32, which is R = "
        f"{fit.flops_per_element:.1f} FLOPs per element; rms log error {fit.rms:.1%}.",
        f"With the datasheet's {nominal:g} GB/s and nothing fitted it is {plain:.1%}. What counts "
        "as near, 20 %, is a choice.",
    )
    return compare("figure-9", fit.latency, notes=notes), fit
