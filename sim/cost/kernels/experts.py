"""Grouped products of a mixture of experts: the weights of each expert that has a token.

A kernel deals out blocks of rows. An expert's rows are padded to whole blocks, whose height
follows the mean number of rows per expert (Triton's fused kernels choose it so), its
outputs and inputs to whole tiles.
"""

from __future__ import annotations

from typing import Any

from hw_models.efficiency import ExpertTerms, terms_for
from sim.cost.arith import Arith
from sim.cost.kernels.price import Moved, Times, times
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
    inputs: Any,
    outputs: Any,
    padded: Any,
    vector: Any = 0,
) -> Times:
    """One grouped product of `padded` rows (rows x inputs) (inputs x outputs), with `vector`
    FLOPs of an epilogue."""
    wide = xp.ceil(outputs / OUTPUTS) * OUTPUTS
    deep = xp.ceil(inputs / INPUTS) * INPUTS
    compute = 2.0 * padded * wide * deep / (rates.peak * terms.matrix) + vector / rates.vector
    bandwidth = rates.device.hbm.bandwidth * terms.hbm
    floor = rates.floor(terms.floor_us)
    return times(xp, rates, floor, moved, compute, terms.depth, bandwidth=bandwidth)


def padded_rows(groups: list[tuple[int, int]]) -> int:
    """Rows of (how many experts, rows of each), each padded to the block of the mean expert."""
    block = block_of(sum(n * rows for n, rows in groups) / sum(n for n, _ in groups))
    return sum(n * -(-rows // block) * block for n, rows in groups)


def block_of(mean: float) -> int:
    return next((b for b in BLOCKS if mean <= b), BLOCKS[-1])


def grouped_rows(gemms: tuple[Gemm, ...]) -> int:
    return padded_rows([(g.batch, g.m) for g in gemms])
