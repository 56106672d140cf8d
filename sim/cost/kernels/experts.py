"""Grouped products of a mixture of experts: the weights of each expert that has a token.

A kernel deals out blocks of rows. An expert's rows are padded to whole blocks, whose height
follows the mean number of rows per expert (Triton's fused kernels choose it so), its
outputs and inputs to whole tiles.
"""

from __future__ import annotations

from typing import Any

from hw_models.efficiency import ExpertTerms, terms_for
from sim.cost.arith import Arith
from sim.cost.kernels.price import Moved, Times, Work, times
from sim.cost.kernels.rates import Rates
from workloads.ops import Gemm

BLOCKS = (16, 32, 64, 128)
OUTPUTS, INPUTS = 128, 64


def expert_terms(rates: Rates) -> ExpertTerms | None:
    """The terms of a calibrated device, of the number format or else of 16 bits; on other devices
    an expert is a product like any other."""
    table = rates.efficiency.experts
    return terms_for(table, rates.dtype, None) or terms_for(table, "bf16", None)


def expert_times(
    xp: Arith,
    rates: Rates,
    terms: ExpertTerms,
    moved: Moved,
    sizes: tuple[Any, Any, Any],
    vector: Any = 0,
) -> Times:
    """One grouped product with `vector` FLOPs of an epilogue.

    sizes: (rows padded to whole blocks, inputs, outputs); numbers or arrays.
    """
    rows, inputs, outputs = sizes
    outputs = xp.ceil(outputs / OUTPUTS) * OUTPUTS
    inputs = xp.ceil(inputs / INPUTS) * INPUTS
    compute = 2.0 * rows * outputs * inputs / (rates.peak * terms.matrix) + vector / rates.vector
    bandwidth = rates.device.hbm.bandwidth * terms.hbm
    work = Work(rates.floor(terms.floor_us), compute, terms.depth)
    return times(xp, rates, work, moved, bandwidth=bandwidth)


def padded_rows(groups: list[tuple[int, int]]) -> int:
    """Rows of (how many experts, rows of each), each padded to the block of the mean expert."""
    block = block_of(sum(n * rows for n, rows in groups) / sum(n for n, _ in groups))
    return sum(n * -(-rows // block) * block for n, rows in groups)


def block_of(mean: float) -> int:
    return next((b for b in BLOCKS if mean <= b), BLOCKS[-1])


def grouped_rows(gemms: tuple[Gemm, ...]) -> int:
    return padded_rows([(g.batch, g.m) for g in gemms])
