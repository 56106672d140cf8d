"""HBM traffic of a matrix product: bounds, monotony, and all tiles there are."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cost.tiling import ACCUMULATOR_BITS, all_stays, best_tiling, fixed_tiling
from workloads.ops import Gemm
from workloads.precision import packed

bits = st.sampled_from([4, 8, 16, 32])
sizes = st.one_of(st.integers(1, 40), st.integers(1, 20000))


def gemms(size: st.SearchStrategy[int] = sizes, batch: int = 9) -> st.SearchStrategy[Gemm]:
    return st.builds(
        Gemm,
        batch=st.integers(1, batch),
        m=size,
        k=size,
        n=size,
        a_bits=bits,
        b_bits=bits,
        out_bits=bits,
    )


capacities = st.integers(0, 2**28)


def compulsory_in(g: Gemm) -> int:
    return packed(g.batch * g.m * g.k, g.a_bits) + packed(g.batch * g.k * g.n, g.b_bits)


@given(gemms(), capacities)
def test_never_below_the_compulsory_traffic(gemm: Gemm, capacity: int) -> None:
    tiling = best_tiling(gemm, capacity)
    assert tiling.read >= compulsory_in(gemm)
    assert tiling.written >= packed(gemm.batch * gemm.m * gemm.n, gemm.out_bits)


@given(gemms(), capacities)
def test_where_all_stays_the_search_finds_the_compulsory_traffic(gemm: Gemm, capacity: int) -> None:
    if all_stays(gemm, capacity):
        assert best_tiling(gemm, capacity).bytes == gemm.bytes


@given(gemms())
def test_with_all_the_room_there_is_it_is_the_compulsory_traffic(gemm: Gemm) -> None:
    assert best_tiling(gemm, 2**62).bytes == gemm.bytes


@given(gemms(), capacities)
def test_half_the_capacity_never_moves_less(gemm: Gemm, capacity: int) -> None:
    assert best_tiling(gemm, capacity // 2).bytes >= best_tiling(gemm, capacity).bytes


@pytest.mark.parametrize("size", [2048, 4096, 8192])
def test_half_the_sram_of_a_big_product_shows(size: int) -> None:
    gemm = Gemm(m=size, k=size, n=size, a_bits=16, b_bits=16, out_bits=16)
    capacity = 16 * 2**20
    moved = [best_tiling(gemm, capacity >> i).bytes for i in range(8)]
    big = [a for a in moved if a > gemm.bytes]
    assert len(big) >= 4
    assert big == sorted(set(big))


@given(gemms(), capacities, st.integers(2, 50))
def test_a_batch_of_products_moves_a_multiple(gemm: Gemm, capacity: int, count: int) -> None:
    one = best_tiling(msgspec.structs.replace(gemm, batch=1), capacity)
    many = best_tiling(msgspec.structs.replace(gemm, batch=count), capacity)
    # Packed numbers of less than a byte share the bytes at the edges.
    assert count * (one.bytes - 5) <= many.bytes <= count * one.bytes
    if min(gemm.a_bits, gemm.b_bits, gemm.out_bits) >= 8:
        assert many.bytes == count * one.bytes


@given(gemms(), capacities)
def test_the_tiles_fit(gemm: Gemm, capacity: int) -> None:
    t = best_tiling(gemm, capacity)
    accumulator = max(ACCUMULATOR_BITS, gemm.out_bits)
    needed = (
        2 * t.tile_k * (t.tile_m * gemm.a_bits + t.tile_n * gemm.b_bits)
        + t.tile_m * t.tile_n * accumulator
    ) / 8
    assert needed <= capacity or (t.tile_m, t.tile_n, t.tile_k) == (1, 1, 1)


def least_of_all(g: Gemm, capacity: int) -> float:
    """Every integer tile in every order, written from the loops rather than from the formulas."""
    a, b, out = g.a_bits / 8, g.b_bits / 8, g.out_bits / 8
    wide = max(ACCUMULATOR_BITS / 8, out)
    best = math.inf
    for tm in range(1, g.m + 1):
        for tn in range(1, g.n + 1):
            for tk in range(1, g.k + 1):
                room = 2 * (tm * tk * a + tk * tn * b) + tm * tn * wide
                if room > capacity and (tm, tn, tk) != (1, 1, 1):
                    continue
                lm, ln, lk = -(-g.m // tm), -(-g.n // tn), -(-g.k // tk)
                whole_a, whole_b, whole_out = g.m * g.k * a, g.k * g.n * b, g.m * g.n * out
                spill = 2 * (lk - 1) * g.m * g.n * wide
                best = min(
                    best,
                    whole_a * ln + whole_b * lm + whole_out,
                    whole_a + whole_b * lm + whole_out + spill,
                    whole_a * ln + whole_b + whole_out + spill,
                )
    return g.batch * best


@settings(max_examples=25)
@given(gemms(st.integers(1, 13), batch=2), st.integers(0, 1500))
def test_the_search_is_near_the_best_of_all_tiles(gemm: Gemm, capacity: int) -> None:
    found, least = best_tiling(gemm, capacity).bytes, least_of_all(gemm, capacity)
    # Three roundings to whole bytes, and tiles between the candidates.
    assert least <= found <= 1.25 * least + 3


@given(gemms(), st.integers(1, 300), st.integers(1, 300))
def test_given_tiles_move_no_less_than_must_be(gemm: Gemm, tile_m: int, tile_n: int) -> None:
    tiling = fixed_tiling(gemm, tile_m, tile_n)
    loops_m, loops_n = -(-gemm.m // tile_m), -(-gemm.n // tile_n)
    assert tiling.bytes + 2 >= gemm.bytes
    if gemm.a_bits >= 8 and gemm.b_bits >= 8:
        a, b = gemm.m * gemm.k * gemm.a_bits // 8, gemm.k * gemm.n * gemm.b_bits // 8
        assert tiling.read == gemm.batch * (a * loops_n + b * loops_m)
