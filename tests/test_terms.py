"""Calibrated terms of streams, experts and exchanges: they act where they say, and only there."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SOURCE, system, tier

from hw_models.device import Device
from hw_models.efficiency import CollectiveTerms, ExpertTerms, Protocol, VectorTerms
from sim import Parallelism, Scenario, Workload, simulate
from sim.clock import ticks
from sim.cost.arith import SCALAR, VECTOR
from sim.cost.collectives import Network
from sim.cost.kernels import priced
from sim.cost.kernels.collective import OPS, Message, exchange_seconds, protocol_seconds
from sim.cost.kernels.experts import expert_times
from sim.cost.kernels.price import Flops, Moved
from sim.cost.kernels.rates import rates_of
from sim.cost.kernels.stream import Rows, stream_times
from sim.cost.model import CostModel
from sim.cost.rounds import Send
from sim.inputs.catalogue import load_device
from sim.scenario import resolve
from sim.simulation import Result
from workloads.ops import activation, grouped, lookup, norm, residual
from workloads.precision import Precision

BF16 = Precision()
VECTORS = VectorTerms(
    floor_us=2.0,
    hbm=0.9,
    cached=0.5,
    cached_gain=0.3,
    walk={"norm": 1200.0, "activation": 900.0, "embedding": 1500.0},
    hidden=0.4,
    passes={"norm": 2.5, "embedding": 5.0},
    depth=1,
    source=SOURCE,
)
EXPERTS = ExpertTerms(floor_us=18.0, hbm=0.85, matrix=0.6, combine=0.3, depth=6, source=SOURCE)
RING = Protocol(algorithm="ring", latency_us=8.0, round_us=1.0, bandwidth=0.1)
WIDE = Protocol(algorithm="ring", latency_us=20.0, round_us=2.0, bandwidth=0.75, copy=1.5)
SWITCH = Protocol(algorithm="switch", latency_us=25.0, bandwidth=0.8, least_ranks=8)
ALL = Protocol(algorithm="direct", latency_us=6.0, round_us=0.5, bandwidth=0.7)
ONE = Protocol(algorithm="one-shot", latency_us=4.0, round_us=0.1, bandwidth=0.6)
TWO = Protocol(algorithm="two-shot", latency_us=6.0, round_us=0.5, bandwidth=0.6)
LIBRARIES = {
    "nccl": CollectiveTerms(protocols=(RING, WIDE, SWITCH, ALL), source=SOURCE),
    "custom": CollectiveTerms(protocols=(ONE, TWO), most_MiB={"": 1, "4": 8}, source=SOURCE),
}


def h100(**terms: Any) -> Device:
    device = load_device("h100-sxm")
    efficiency = msgspec.structs.replace(device.efficiency, **terms)
    return msgspec.structs.replace(device, efficiency=efficiency)


CALIBRATED = h100(elementwise={"bf16": VECTORS}, experts={"bf16": EXPERTS}, collectives=LIBRARIES)
sizes = st.integers(0, 2**34)


@given(st.lists(st.tuples(sizes, sizes, st.integers(1, 2**15)), min_size=1, max_size=6))
def test_many_points_cost_what_each_costs(points: list[tuple[int, ...]]) -> None:
    rates = rates_of(CALIBRATED, "bf16")
    reads, writes, width = (np.array(column) for column in zip(*points, strict=True))

    def both(xp: Any, r: Any, w: Any, n: Any) -> list[Any]:
        moved = Moved(r, w, 0 * r)
        times = [
            stream_times(xp, rates, moved, Flops(0, r), Rows(kind, w // n, n))
            for kind in ("norm", "embedding", "residual", "")
        ]
        times.append(expert_times(xp, rates, EXPERTS, moved, (w // n, n, 2 * n)))
        return [priced(xp, rates, t) for t in times]

    many = both(VECTOR, reads, writes, width)
    for i, (r, w, n) in enumerate(points):
        for found, alone in zip(many, both(SCALAR, r, w, n), strict=True):
            for name, value in alone._asdict().items():
                assert np.broadcast_to(getattr(found, name), reads.shape)[i] == value


def test_rows_are_walked_in_waves() -> None:
    """Two rows of 1024 elements or more a core; a row more takes as long again."""
    device = h100(elementwise={"bf16": VectorTerms(walk={"norm": 1000.0}, source=SOURCE)})
    turn = 1000 / (device.clock_GHz * 1e9)

    def walked(rows: int, width: int, kind: str = "norm") -> float:
        rates = rates_of(device, "bf16")
        none = Moved(0, 0, 0)
        times = stream_times(SCALAR, rates, none, Flops(0, 0), Rows(kind, rows, width))
        return float(times.compute) / turn

    at_once = 2 * device.cores
    for rows, width, turns in (
        (1, 1024, 1),
        (at_once, 1024, 1),
        (at_once + 1, 1024, 2),
        (at_once, 1025, 2),
        (at_once + 1, 8192, 16),
        (4 * at_once, 256, 1),  # narrow rows have room for more
        (4 * at_once + 1, 256, 2),
        (64 * at_once + 1, 1, 3),  # but no row takes less than a warp
        (0, 0, 0),
    ):
        assert walked(rows, width) == pytest.approx(turns), (rows, width)
    # A look-up is dealt out by elements, which have half of the room.
    assert walked(1, 1024 * device.cores, "embedding") == pytest.approx(1)
    assert walked(device.cores, 1025, "embedding") == pytest.approx(2)


def test_what_is_hidden_is_a_part_of_the_shorter_one() -> None:
    moved, shape = Moved(2**24, 2**24, 0), Rows("norm", 4096, 4096)

    def took(hidden: float) -> int:
        terms = VectorTerms(walk={"norm": 1000.0}, hidden=hidden, depth=1, source=SOURCE)
        rates = rates_of(h100(elementwise={"bf16": terms}), "bf16")
        return int(
            priced(SCALAR, rates, stream_times(SCALAR, rates, moved, Flops(0, 0), shape)).duration
        )

    none, half, whole = took(0.0), took(0.5), took(1.0)
    assert none - half == pytest.approx(half - whole, rel=1e-6)
    memory = 2**25 / load_device("h100-sxm").hbm.bandwidth
    assert none - whole == pytest.approx(memory * 1e12 / h100().efficiency.hbm, rel=1e-6)


@given(
    st.lists(st.tuples(st.integers(2, 16), st.integers(0, 2**32)), min_size=1, max_size=6),
    st.sampled_from(OPS),
    st.booleans(),
)
def test_many_exchanges_cost_what_each_costs(
    points: list[tuple[int, int]], op: str, in_switch: bool
) -> None:
    n, nbytes = (np.array(column) for column in zip(*points, strict=True))
    which, many = exchange_seconds(VECTOR, LIBRARIES, op, Message(n, nbytes, 450e9, in_switch))
    for i, (ranks, size) in enumerate(points):
        one, alone = exchange_seconds(SCALAR, LIBRARIES, op, Message(ranks, size, 450e9, in_switch))
        found = (which[i], many.latency[i], many.data[i], many.protocol[i])
        assert found == (one, alone.latency, alone.data, alone.protocol)


# Streams ---------------------------------------------------------------------------------


def test_passes_act_on_what_was_not_fused() -> None:
    costs = CostModel(CALIBRATED, "bf16")
    plain = norm("n", "rmsnorm", 10**5, 4096, BF16)
    twice = costs(plain).hbm_time
    once = costs(msgspec.structs.replace(plain, parts=("n", "r"))).hbm_time
    assert twice == pytest.approx(2.5 * once, rel=1e-6)
    assert costs(residual("r", 10**5, 4096, BF16)).hbm_time == pytest.approx(1.5 * once, rel=2e-3)


def test_the_bytes_of_the_account_are_those_of_the_graph() -> None:
    costs = CostModel(CALIBRATED, "bf16")
    for op in (norm("n", "rmsnorm", 100, 4096, BF16), lookup("e", 100, 4096, 1, BF16, ways=8)):
        assert costs(op).hbm_bytes == op.traffic.total


def test_a_look_up_gathers_a_row_a_token_on_every_rank() -> None:
    costs = CostModel(CALIBRATED, "bf16")
    alone, one_of_eight = (costs(lookup("e", 4096, 4096, 1, BF16, ways=w)) for w in (1, 8))
    assert one_of_eight.hbm_time == alone.hbm_time


def test_a_few_wide_rows_take_as_long_as_one() -> None:
    """floor + turns along the row, what it reads being on chip, until the bytes take longer."""
    costs = CostModel(CALIBRATED, "bf16")
    wide = [costs(activation("a", "silu", rows, 28672, True, BF16)).duration for rows in (1, 4)]
    turn = 900 / (CALIBRATED.clock_GHz * 1e9) / 1.3
    assert wide[0] == pytest.approx(ticks(2e-6 + 28 * turn), rel=0.05)
    assert wide[1] == pytest.approx(wide[0], rel=0.05)


def test_what_is_still_on_chip_moves_faster() -> None:
    device = CALIBRATED
    costs = CostModel(device, "bf16")
    bandwidth = 0.9 * device.hbm.bandwidth
    for size, gain in ((10**6, 1.3), (10**10, 1.0)):
        op = residual("r", 1, size // 6, BF16)
        assert costs(op).hbm_time == pytest.approx(ticks(size / bandwidth / gain), rel=1e-2)


# Experts ---------------------------------------------------------------------------------


def test_experts_read_the_weights_of_those_visited() -> None:
    costs = CostModel(CALIBRATED, "bf16")

    def price(groups: list[tuple[int, int]]) -> int:
        return costs(grouped("up", "experts", groups, (4096, 3072), BF16, "column")).duration

    weights = 4096 * 3072 * 2 / (0.85 * CALIBRATED.hbm.bandwidth)
    assert price([(64, 1)]) - price([(32, 1)]) == pytest.approx(ticks(32 * weights), rel=0.25)
    # Beyond a block of rows, an expert costs another block of arithmetic.
    assert price([(8, 4096)]) < price([(7, 4096), (1, 4097)])


# Exchanges -------------------------------------------------------------------------------


def test_a_ring_across_nodes_goes_through_the_cards_of_a_node() -> None:
    """Latency, rounds, and 2 (n-1) / n of the bytes at a share of the cards' rate."""
    ring = Protocol(algorithm="ring", latency_us=30.0, round_us=4.0, bandwidth=0.5)
    send = Protocol(algorithm="send", latency_us=9.0, bandwidth=0.8)
    libraries = {
        "across": CollectiveTerms(protocols=(ring, send), rails=2, source="made up"),
        "nccl": CollectiveTerms(protocols=(send,), source="made up"),
    }
    machine = system(tier("switch", 4, 400.0, 1.0), tier("switch", 2, 50.0, 5.0))
    network, size = Network(machine, libraries=libraries), 8_000_000
    for group, cards in ((tuple(range(8)), 2), ((0, 1, 4, 5), 2), ((1, 6), 1)):
        rounds = 2 * (len(group) - 1)
        exchange = network.all_reduce(group, size)
        assert exchange.library == "across"
        expected = 30e-6 + rounds * 4e-6 + rounds * size / len(group) / (cards * 50e9 * 0.5)
        assert exchange.time == pytest.approx(expected * 1e12, rel=1e-9)
    # Three of one node and one of another are no ring of equal nodes.
    assert network.all_reduce((0, 1, 2, 4), size).library == ""
    for target, rate in ((1, 400e9), (4, 50e9)):
        sent = network.send((Send(0, target, size),))
        assert sent.time == pytest.approx((9e-6 + size / (0.8 * rate)) * 1e12, rel=1e-9)
    # Two sends that share a card share its rate.
    both = network.send((Send(0, 4, size), Send(0, 5, size)))
    assert both.time == pytest.approx((9e-6 + 2 * size / (0.8 * 50e9)) * 1e12, rel=1e-6)


@given(st.sampled_from([2, 3, 4, 8]), st.integers(1, 2**30))
def test_an_exchange_is_the_fastest_way_of_the_library_that_takes_it(n: int, size: int) -> None:
    network = Network(system(tier("switch", n, 450.0, 1.0)), libraries=LIBRARIES)
    exchange = network.all_reduce(tuple(range(n)), size)
    custom = size <= (8 if n == 4 else 1) * 2**20
    ways = [ONE, TWO] if custom else [RING, WIDE] + [SWITCH] * (n >= 8)
    least = min(sum(protocol_seconds(p, "all_reduce", Message(n, size, 450e9))) for p in ways)
    assert exchange.library == ("custom" if custom else "nccl")
    assert exchange.time == pytest.approx(ticks(least), abs=2)
    assert exchange.nbytes == sum(s.nbytes for one in exchange.rounds for s in one)
    for link, rate in exchange.loads:
        assert 0 < rate <= network.fabric.links[link][1]


@pytest.mark.parametrize("algorithm", ["ring", "direct", "tree"])
def test_a_named_algorithm_stays_what_it_is(algorithm: str) -> None:
    machine = system(tier("switch", 4, 450.0, 1.0))
    plain, calibrated = Network(machine), Network(machine, libraries=LIBRARIES)
    args = (tuple(range(4)), 10**6, algorithm)
    assert calibrated.all_reduce(*args) == plain.all_reduce(*args)


def test_across_nodes_the_rounds_are_priced() -> None:
    machine = system(tier("switch", 4, 450.0, 1.0), tier("switch", 2, 50.0, 5.0))
    plain, calibrated = Network(machine), Network(machine, libraries=LIBRARIES)
    assert calibrated.all_reduce(tuple(range(8)), 10**6) == plain.all_reduce(tuple(range(8)), 10**6)


def calibrated_run(detail: str) -> Result:
    scenario = Scenario(
        model="llama-3.1-8b",
        on="hgx-h100",
        workload=Workload(prompt=64, output=3),
        parallelism=Parallelism(tp=4),
        detail=detail,  # type: ignore[arg-type]
    )
    resolved = resolve(scenario)
    machine = msgspec.structs.replace(resolved.machine, device=CALIBRATED)
    return simulate(msgspec.structs.replace(resolved, machine=machine))


def test_tiles_and_operators_agree_with_calibrated_terms() -> None:
    op, tile = (calibrated_run(detail) for detail in ("op", "tile"))
    assert op.makespan == tile.makespan
    assert op.account.share("link") > 0
