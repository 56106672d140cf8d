"""Collectives: closed forms in ticks, and that every rank ends with the whole sum."""

from __future__ import annotations

from collections import Counter
from math import ceil, log2
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import positive, system, systems, tier

from sim.clock import ticks
from sim.cost.collectives import Network
from sim.cost.fabric import Fabric
from sim.cost.rounds import (
    Rounds,
    Send,
    all_gather,
    bidirectional_all_reduce,
    direct_all_reduce,
    doubling_all_reduce,
    hierarchical_all_reduce,
    ring_all_reduce,
    tree_all_reduce,
)
from sim.errors import Infeasible

nbytes = st.integers(0, 10**8)
ranks = st.integers(2, 9)


def group(n: int) -> tuple[int, ...]:
    return tuple(range(n))


# Time ------------------------------------------------------------------------------------


@given(ranks, nbytes, positive(1, 900), positive(0, 9))
def test_a_ring_on_a_switch(n: int, size: int, bandwidth: float, latency: float) -> None:
    """2 (n-1) (latency + ceil(bytes / n) / bandwidth), to the tick."""
    network = Network(system(tier("switch", n, bandwidth, latency)))
    chunk = -(-size // n)
    # Device to switch and switch to device, each with half of the latency.
    one = 2 * ticks(latency / 2 * 1e-6) + ticks(chunk / (bandwidth * 1e9))
    assert network.all_reduce(group(n), size, "ring").time == 2 * (n - 1) * one
    assert network.gather(group(n), size).time == (n - 1) * one


@given(st.sampled_from([2, 4, 8]), nbytes, positive(1, 900), positive(0, 9))
def test_doubling_on_a_switch(n: int, size: int, bandwidth: float, latency: float) -> None:
    network = Network(system(tier("switch", n, bandwidth, latency)))
    one = 2 * ticks(latency / 2 * 1e-6) + ticks(size / (bandwidth * 1e9))
    assert network.all_reduce(group(n), size, "doubling").time == int(log2(n)) * one


@given(ranks, nbytes, positive(1, 900), positive(0, 9))
def test_a_tree_on_a_switch(n: int, size: int, bandwidth: float, latency: float) -> None:
    network = Network(system(tier("switch", n, bandwidth, latency)))
    one = 2 * ticks(latency / 2 * 1e-6) + ticks(size / (bandwidth * 1e9))
    assert network.all_reduce(group(n), size, "tree").time == 2 * (n - 1).bit_length() * one


@given(st.integers(2, 4), st.integers(2, 4), nbytes, positive(1, 900), positive(1, 50))
def test_two_tiers(node: int, nodes: int, size: int, fast: float, slow: float) -> None:
    """Reduce-scatter and all-gather within a node, a ring of shards across."""
    network = Network(system(tier("switch", node, fast, 1.0), tier("switch", nodes, slow, 6.0)))
    inner = ticks(1e-6) + ticks(-(-size // node) / (fast * 1e9))
    shard = -(-size // node)
    outer = ticks(6e-6) + ticks(-(-shard // nodes) / (slow * 1e9))
    expected = 2 * (node - 1) * inner + 2 * (nodes - 1) * outer
    assert network.all_reduce(group(node * nodes), size, "hierarchical").time == expected


@given(st.integers(3, 6), st.integers(1, 10**8))
def test_on_a_ring_of_cables_every_hop_is_its_own(n: int, size: int) -> None:
    # The bandwidth of a device is shared by its two cables.
    network = Network(system(tier("ring", n, 20.0, 1.0)))
    one = ticks(1e-6) + ticks(-(-size // n) / 10e9)
    assert network.all_reduce(group(n), size, "ring").time == 2 * (n - 1) * one


@given(st.integers(3, 6), st.integers(1, 10**8))
def test_both_ways_round_a_ring_of_cables(n: int, size: int) -> None:
    """Each cable carries half of the data each way: 2 (n-1) (latency + bytes/(2n)/bandwidth)."""
    network = Network(system(tier("ring", n, 20.0, 1.0)))
    one = ticks(1e-6) + ticks(ceil(ceil(size / 2) / n) / 10e9)
    assert network.all_reduce(group(n), size, "bidirectional").time == 2 * (n - 1) * one


@given(st.integers(2, 6), st.integers(1, 10**8))
def test_direct_on_a_mesh_uses_every_cable(n: int, size: int) -> None:
    network = Network(system(tier("mesh", n, 20.0 * (n - 1), 1.0)))
    one = ticks(1e-6) + ticks(-(-size // n) / 20e9)
    assert abs(network.all_reduce(group(n), size, "direct").time - 2 * one) <= 2


@given(st.integers(2, 6), st.integers(1, 10**8))
def test_direct_on_a_switch_shares_each_cable(n: int, size: int) -> None:
    """2 (latency + (n-1) bytes/n / bandwidth)."""
    network = Network(system(tier("switch", n, 20.0, 2.0)))
    one = 2 * ticks(1e-6) + (n - 1) * -(-size // n) / 20e9 * 1e12
    assert abs(network.all_reduce(group(n), size, "direct").time - 2 * one) <= 2 * n


@given(st.integers(1, 10**8))
def test_sends_that_share_a_cable_share_its_bandwidth(size: int) -> None:
    network = Network(system(tier("switch", 3, 10.0, 2.0)))
    both = network.send((Send(0, 2, size), Send(1, 2, size)))
    assert both.latency == 2 * ticks(1e-6)
    assert abs(both.duration - 2 * ticks(size / 10e9)) <= 2


# Bytes -----------------------------------------------------------------------------------


@given(systems(least=2), nbytes, st.sampled_from(["ring", "tree", "auto"]))
def test_bytes_are_those_of_the_rounds(machine: object, size: int, algorithm: str) -> None:
    network = Network(machine)  # type: ignore[arg-type]
    members = group(len(network.fabric.system.devices))
    exchange = network.all_reduce(members, size, algorithm)
    assert exchange.nbytes == sum(s.nbytes for one in exchange.rounds for s in one)
    carried = Counter[int]()
    for one in exchange.rounds:
        for send in one:
            for hop in network.fabric.system.route(send.src, send.dst):
                carried[network.fabric.index[hop]] += send.nbytes
    assert exchange.duration == 0 or {link for link, _ in exchange.loads} == set(carried)
    for link, rate in exchange.loads:
        assert rate <= network.fabric.links[link][1]
        # Less where data of near ranks flows while the latency of far ones passes.
        assert rate * exchange.duration * 1e-12 <= carried[link] * (1 + 1e-6)


@given(st.sampled_from(["switch", "mesh"]), ranks, st.integers(10**4, 10**8))
def test_loads_carry_all_bytes_where_all_are_equally_far(topology: str, n: int, size: int) -> None:
    network = Network(system(tier(topology, n)))
    exchange = network.all_reduce(group(n), size, "ring")
    for _, rate in exchange.loads:
        sent = rate * exchange.duration * 1e-12
        assert sent == pytest.approx(2 * (n - 1) * -(-size // n), rel=1e-4)


@given(ranks, nbytes)
def test_a_ring_sends_two_vectors_less_two_chunks_a_rank(n: int, size: int) -> None:
    sent = Counter[int]()
    for one in ring_all_reduce(group(n), size):
        for send in one:
            sent[send.src] += send.nbytes
    assert set(sent.values()) == {2 * (n - 1) * -(-size // n)}
    assert (
        sum(s.nbytes for one in all_gather(group(n), size) for s in one) == sum(sent.values()) / 2
    )


# Meaning ---------------------------------------------------------------------------------
# What a rank holds: for each chunk, how often each rank's part is in its sum.

State = list[list[Counter[int]]]


def parts(n: int, chunks: int) -> State:
    return [[Counter([rank]) for _ in range(chunks)] for rank in range(n)]


def is_whole_sum(state: State, n: int) -> bool:
    whole = Counter(range(n))
    return all(chunk == whole for rank in state for chunk in rank)


def ring_phase(state: State, members: list[int], rounds: Rounds, first: int, add: bool) -> None:
    """Rank i sends chunk first + i - r in round r; the receiver adds it or takes it."""
    n, place = len(members), {rank: i for i, rank in enumerate(members)}
    for r, one in enumerate(rounds):
        moves = []
        for send in one:
            if send.src in place:
                chunk = (first + place[send.src] - r) % n
                moves.append((send.dst, chunk, state[send.src][chunk].copy()))
        assert len(moves) == n
        for dst, chunk, data in moves:
            state[dst][chunk] = state[dst][chunk] + data if add else data


@given(ranks)
def test_a_ring_leaves_the_whole_sum_everywhere(n: int) -> None:
    rounds, state = ring_all_reduce(group(n), 1000), parts(n, n)
    ring_phase(state, list(range(n)), rounds[: n - 1], 0, add=True)
    ring_phase(state, list(range(n)), rounds[n - 1 :], 1, add=False)
    assert is_whole_sum(state, n)


@given(st.sampled_from([1, 2, 4, 8, 16]))
def test_doubling_leaves_the_whole_sum_everywhere(n: int) -> None:
    state = parts(n, 1)
    for one in doubling_all_reduce(group(n), 1000):
        moves = [(s.dst, state[s.src][0].copy()) for s in one]
        for dst, data in moves:
            state[dst][0] += data
    assert is_whole_sum(state, n)


@given(st.integers(1, 20))
def test_a_tree_leaves_the_whole_sum_everywhere(n: int) -> None:
    rounds, state = tree_all_reduce(group(n), 1000), parts(n, 1)
    for number, one in enumerate(rounds):
        for s in one:
            data = state[s.src][0].copy()
            state[s.dst][0] = state[s.dst][0] + data if number < len(rounds) / 2 else data
    assert is_whole_sum(state, n)


@given(st.integers(2, 4), st.integers(2, 4))
def test_two_tiers_leave_the_whole_sum_everywhere(node: int, nodes: int) -> None:
    n, size = node * nodes, 5040
    rounds = hierarchical_all_reduce(group(n), size, node)
    scatter, across, gather = rounds[: node - 1], rounds[node - 1 : 1 - node], rounds[1 - node :]
    state = parts(n, node)
    for first in range(0, n, node):
        ring_phase(state, list(range(first, first + node)), scatter, 0, add=True)
    # After the reduce-scatter rank i of a node owns chunk i + 1; rails join equal places.
    for rank in range(node):
        rail = list(range(rank, n, node))
        own = (rank + 1) % node
        shards: State = [[state[r][own].copy() for _ in rail] for r in range(n)]
        ring_phase(shards, rail, across[: nodes - 1], 0, add=True)
        ring_phase(shards, rail, across[nodes - 1 :], 1, add=False)
        for r in rail:
            assert all(chunk == shards[r][0] for chunk in shards[r])
            state[r][own] = shards[r][0]
    for first in range(0, n, node):
        ring_phase(state, list(range(first, first + node)), gather, 1, add=False)
    assert is_whole_sum(state, n)


# Choice ----------------------------------------------------------------------------------


@given(systems(least=2), nbytes)
def test_auto_is_the_fastest_that_can_be_done(machine: object, size: int) -> None:
    network = Network(machine)  # type: ignore[arg-type]
    members = group(len(network.fabric.system.devices))
    found = {}
    for name in ("ring", "bidirectional", "direct", "doubling", "tree", "hierarchical"):
        try:
            found[name] = network.all_reduce(members, size, name)
        except Infeasible:
            continue
        assert found[name].algorithm == name
    auto = network.all_reduce(members, size)
    assert auto.time == min(e.time for e in found.values())
    assert auto == found[auto.algorithm]


def test_a_ring_of_cables_goes_by_doubling_when_small_and_both_ways_when_large() -> None:
    network = Network(system(tier("ring", 8, 100.0, 1.0)))
    assert network.all_reduce(group(8), 1024).algorithm == "doubling"
    assert network.all_reduce(group(8), 10**9).algorithm == "bidirectional"


def test_a_mesh_goes_directly() -> None:
    network = Network(system(tier("mesh", 8, 448.0, 1.0)))
    assert network.all_reduce(group(8), 10**9).algorithm == "direct"


def test_across_nodes_large_goes_hierarchically() -> None:
    network = Network(system(tier("switch", 8, 300.0, 1.0), tier("switch", 2, 25.0, 5.0)))
    assert network.all_reduce(group(16), 10**9).algorithm == "hierarchical"


@pytest.mark.parametrize(
    ("n", "algorithm", "said"),
    [
        (6, "doubling", "power of two ranks, not 6; use ring or tree"),
        (4, "hierarchical", "all whole: here 4 ranks lie on nodes of 4; use ring"),
        (6, "hierarchical", "all whole: here 6 ranks lie on nodes of 4; use ring"),
    ],
)
def test_what_cannot_be_done_is_refused(n: int, algorithm: str, said: str) -> None:
    network = Network(system(tier("switch", 4, 300.0, 1.0), tier("switch", 2, 25.0, 5.0)))
    with pytest.raises(Infeasible, match=said):
        network.all_reduce(group(n), 1000, algorithm)


@given(st.integers(1, 4), st.integers(1, 3), positive(0, 4))
def test_a_node_is_what_is_near(inner: int, outer: int, extra: float) -> None:
    assume(inner > 1)
    machine = system(tier("switch", inner, 9.0, 1.0), tier("switch", outer, 9.0, 1.1 + extra))
    assert Fabric(machine).node_size(group(inner * outer)) == inner


def test_a_node_of_a_lone_device() -> None:
    assert Fabric(system(tier("switch", 1))).node_size((0,)) == 1


@given(systems(least=2), nbytes)
def test_free_links_take_no_time(machine: object, size: int) -> None:
    network = Network(machine, free=True)  # type: ignore[arg-type]
    exchange = network.all_reduce(group(len(network.fabric.system.devices)), size)
    assert (exchange.time, exchange.loads) == (0, ())


@given(systems(2), st.data())
def test_a_round_in_closed_form_is_the_engines(machine: Any, data: st.DataObject) -> None:
    ordered = tuple(data.draw(st.permutations(range(len(machine.devices)))))
    size = data.draw(st.integers(1, 10**9))
    fabric, closed = Fabric(machine), 0
    makers = (ring_all_reduce, bidirectional_all_reduce, direct_all_reduce, tree_all_reduce)
    for make in makers:
        for one in make(ordered, size):
            found = fabric._alike(tuple(one))
            closed += found is not None
            assert found is None or found == fabric._simulated(tuple(one))
    assert closed or len(machine.switches) != 1  # on one switch every round of a ring is alike
