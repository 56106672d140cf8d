"""Kernel formulas: what holds for one point holds for arrays of them, to the picosecond."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_models.device import Device
from hw_models.efficiency import GemmTerms
from sim import load_device
from sim.cost.arith import SCALAR, VECTOR
from sim.cost.kernels import RESOURCES, priced
from sim.cost.kernels.attention import attention_times
from sim.cost.kernels.attention_shape import AttentionShape
from sim.cost.kernels.gemm import gemm_times
from sim.cost.kernels.price import Flops, Moved
from sim.cost.kernels.rates import rates_of
from sim.cost.kernels.stream import stream_times
from tests.strategies import devices, gemm_terms
from workloads.ops import Gemm

# Sums that only a device with terms of attention looks at; `test_attention_terms` has those.
NOTHING = AttentionShape(
    heads=1,
    kv_heads=1,
    width=2,
    window=0,
    causal=True,
    kv_bits=16,
    decoding=1,
    seen=0,
    chunks=(),
    queries=0,
    written=0,
    kv=0,
    appended=0,
)
counts = st.integers(0, 2**40)
points = st.lists(st.tuples(counts, counts, counts, counts, counts), min_size=1, max_size=5)


@given(devices(), points, st.sampled_from([None, *RESOURCES]))
def test_many_points_at_once_cost_what_each_costs(
    device: Device, points: list[tuple[int, ...]], free: str | None
) -> None:
    rates = rates_of(device, next(iter(device.matrix.TFLOPS)), frozenset({free} - {None}))
    arrays = [np.array(column) for column in zip(*points, strict=True)]
    reads, writes, matrix, vector, rows = arrays
    moved = Moved(reads, writes, reads + writes)
    for_all = [
        stream_times(VECTOR, rates, moved, Flops(matrix, vector)),
        attention_times(VECTOR, rates, moved, Flops(matrix, vector), rows, NOTHING),
    ]
    many = [priced(VECTOR, rates, t) for t in for_all]
    for i, (r, w, m, v, q) in enumerate(points):
        one = Moved(r, w, r + w)
        for_one = [
            stream_times(SCALAR, rates, one, Flops(m, v)),
            attention_times(SCALAR, rates, one, Flops(m, v), q, NOTHING),
        ]
        for found, times in zip(many, for_one, strict=True):
            alone = priced(SCALAR, rates, times)
            for name, value in alone._asdict().items():
                column = np.broadcast_to(getattr(found, name), reads.shape)
                assert column[i] == value, name


sizes = st.integers(1, 300)


@given(devices(), gemm_terms(), st.lists(st.tuples(sizes, sizes, sizes), min_size=1, max_size=5))
def test_many_products_at_once_cost_what_each_costs(
    device: Device, terms: GemmTerms, shapes: list[tuple[int, int, int]]
) -> None:
    efficiency = msgspec.structs.replace(device.efficiency, gemm={"bf16": terms})
    rates = rates_of(msgspec.structs.replace(device, efficiency=efficiency), "bf16")
    if not terms.tiles:
        return

    def of(m: Any, n: Any, k: Any) -> tuple[Gemm, Moved]:
        gemm = Gemm(m=m, n=n, k=k, a_bits=16, b_bits=16, out_bits=16)
        return gemm, Moved(2 * (m * k + k * n), 2 * m * n, 0)

    gemm, moved = of(*(np.array(column) for column in zip(*shapes, strict=True)))
    many = priced(VECTOR, rates, gemm_times(VECTOR, rates, (gemm,), moved, Flops(gemm.flops, 7)))
    for i, shape in enumerate(shapes):
        gemm, moved = of(*shape)
        times = gemm_times(SCALAR, rates, (gemm,), moved, Flops(gemm.flops, 7))
        for name, value in priced(SCALAR, rates, times)._asdict().items():
            assert np.broadcast_to(getattr(many, name), len(shapes))[i] == value, name


def test_a_product_pays_whole_waves() -> None:
    """One tile more than there are cores takes a second wave, and no time in between; with slack
    that part of it is saved that has no tiles."""
    device = load_device("h100-sxm")

    def compute(tiles: int, slack: float = 0.0) -> float:
        terms = GemmTerms(tiles=((128, 128),), slack=slack, source="made up for a test")
        efficiency = msgspec.structs.replace(device.efficiency, gemm={"bf16": terms})
        rates = rates_of(msgspec.structs.replace(device, efficiency=efficiency), "bf16")
        gemm = Gemm(m=128, n=128 * tiles, k=4096, a_bits=16, b_bits=16, out_bits=16)
        times = gemm_times(SCALAR, rates, (gemm,), Moved(gemm.bytes, 0, 0), Flops(gemm.flops, 0))
        return float(times.compute)

    peak = rates_of(device, "bf16").peak
    assert compute(1) == compute(132) == 2 * 128 * 128 * 4096 / (peak / 132)
    assert compute(133) == compute(264) == 2 * compute(132)
    assert compute(264, 0.5) == compute(264)
    assert compute(1, 0.5) == compute(1)
    assert compute(198, 0.5) == pytest.approx(1.75 * compute(132))


@given(st.integers(1, 5000), st.integers(64, 20000), st.integers(64, 20000))
def test_a_library_takes_a_kernel_near_the_fastest(m: int, n: int, k: int) -> None:
    """Two kernels, x apart: their mean with weights 1 and (1 + x / (4 choice))^-4."""
    device = load_device("a100-sxm-80gb")
    gemm = Gemm(m=m, n=n, k=k, a_bits=16, b_bits=16, out_bits=16)

    def compute(tiles: tuple[tuple[int, int], ...], choice: float) -> float:
        terms = GemmTerms(tiles=tiles, choice=choice, source="made up for a test")
        efficiency = msgspec.structs.replace(device.efficiency, gemm={"bf16": terms})
        rates = rates_of(msgspec.structs.replace(device, efficiency=efficiency), "bf16")
        times = gemm_times(SCALAR, rates, (gemm,), Moved(0, 0, 0), Flops(gemm.flops, 0))
        return float(times.compute)

    both = ((128, 128), (256, 64))
    fast, slow = sorted(compute((shape,), 0.1) for shape in both)
    assert compute(both, 0.0) == fast == sorted(compute((shape,), 0.0) for shape in both)[0]
    weight = (1 + (slow / fast - 1) / 0.4) ** -4
    assert compute(both, 0.1) == pytest.approx((fast + weight * slow) / (1 + weight), rel=1e-9)
    assert compute(both, 1e-6) == pytest.approx(fast, rel=1e-4)
