"""Kernel formulas: what holds for one point holds for arrays of them, to the picosecond."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hw_models.device import Device
from sim.arith import SCALAR, VECTOR
from sim.kernels import RESOURCES, priced
from sim.kernels.attention import attention_times
from sim.kernels.price import Moved
from sim.kernels.rates import rates_of
from sim.kernels.stream import stream_times
from tests.strategies import devices

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
        stream_times(VECTOR, rates, moved, matrix, vector),
        attention_times(VECTOR, rates, moved, matrix, vector, rows),
    ]
    many = [priced(VECTOR, rates, t) for t in for_all]
    for i, (r, w, m, v, q) in enumerate(points):
        one = Moved(r, w, r + w)
        for_one = [
            stream_times(SCALAR, rates, one, m, v),
            attention_times(SCALAR, rates, one, m, v, q),
        ]
        for found, times in zip(many, for_one, strict=True):
            alone = priced(SCALAR, rates, times)
            for name, value in alone._asdict().items():
                column = np.broadcast_to(getattr(found, name), reads.shape)
                assert column[i] == value, name
