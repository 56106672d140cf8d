"""Matrix products of an accelerator with a scratchpad for inputs and an accumulator for outputs.

An output tile Tm x Tn stays in the accumulator at 32 bits while k runs; both inputs come through
the scratchpad in two buffers of depth 16, the side of the array, at least:

    4 Tm Tn <= accumulator        2 (Tm + Tn) 16 <= scratchpad
    local bytes = m k ceil(n/Tn) + k n ceil(m/Tm) + m n

A product takes max(MACs / rate, local bytes / inner rate + compulsory bytes / DRAM rate), as the
survey's accelerator does (`hw_models/devices/survey-accelerator.toml`), or the sum of the two
without overlap; every tile is a multiple of 16, and all are tried.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from sim.clock import ticks
from sim.cost.kernels.rates import Rates, rates_of
from sim.scenario import Resolved
from sim.states import STATES
from sim.studies.paper.convention import AS_PAPER, INT8
from sim.studies.whatif.mechanisms import LocalBuffers
from sim.studies.whatif.parts import Breakdown, Cause, Parts
from workloads.graph import build_graph
from workloads.ops import Gemm

SIDE = 16
ACCUMULATED = 4  # bytes of a number in the accumulator


def matmul_time(resolved: Resolved, buffers: LocalBuffers) -> Breakdown:
    """Ticks of all matrix products of the first pass, 8 bit, by operator class."""
    rates = rates_of(resolved.machine.device, "int8")
    graph = build_graph(resolved.model, resolved.passes[0].batch, INT8, AS_PAPER)
    parts: Parts = {}
    for place, op in graph.ops():
        if place.layer < 0:
            continue
        for gemm in op.gemms:
            compute, moved = product_seconds(gemm, rates, buffers)
            busy, wait = ticks(compute), ticks(moved)
            wait = max(0, wait - busy) if buffers.overlap else wait
            for state, t in ((STATES[0], busy), ("sram", wait)):
                cause = Cause(state, "", op.kind)
                parts[cause] = parts.get(cause, Fraction()) + t
    return Breakdown("matmul", {c: x for c, x in parts.items() if x})


def product_seconds(gemm: Gemm, rates: Rates, buffers: LocalBuffers) -> tuple[float, float]:
    """(arithmetic, moving) of one product with its best tile."""
    local = local_bytes(gemm, buffers)
    inner = gemm.batch * local / rates.inner_rate
    return gemm.flops / rates.peak, inner + gemm.bytes / rates.bandwidth


def local_bytes(gemm: Gemm, buffers: LocalBuffers) -> int:
    """Bytes between the shared level and the local memories of one of the batch, at best."""
    tm = np.arange(SIDE, gemm.m + SIDE, SIDE)[:, None]
    tn = np.arange(SIDE, gemm.n + SIDE, SIDE)[None, :]
    fits = ACCUMULATED * tm * tn <= buffers.accumulator_KiB * 1024
    fits &= 2 * (tm + tn) * SIDE <= buffers.scratchpad_KiB * 1024
    moved = gemm.m * gemm.k * -(-gemm.n // tn) + gemm.k * gemm.n * -(-gemm.m // tm)
    if not fits.any():
        raise ValueError(
            f"scratchpad {buffers.scratchpad_KiB:g} KiB and accumulator "
            f"{buffers.accumulator_KiB:g} KiB do not hold one tile of {SIDE} x {SIDE}"
        )
    return int(np.where(fits, moved, np.iinfo(np.int64).max).min()) + gemm.m * gemm.n
