"""Tasks side by side on one device, and the operators that could run side by side."""

from __future__ import annotations

import itertools

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.engine.des import Program, Task, run
from sim.inputs.catalogue import load_model
from workloads.batch import Batch, Group, Sequence
from workloads.block import Lowering
from workloads.graph import build_graph
from workloads.precision import Precision

DEVICE = (("arithmetic", 1.0), ("hbm", 1.0))
ARITHMETIC, HBM = 0, 1


def side_by_side(*tasks: Task) -> list[int]:
    """When each task ends, in ticks, if each has its own stream of one device."""
    streams = [f"stream{i}" for i in range(len(tasks))]
    return run(Program(tasks, streams, DEVICE)).end


def on(stream: int, duration: int, arithmetic: float, hbm: float) -> Task:
    loads = ((ARITHMETIC, arithmetic), (HBM, hbm))
    return Task("operator", duration, (stream,), loads=loads)


@given(st.integers(1, 10**9))
def test_two_tasks_that_load_a_half_each_run_at_full_speed(duration: int) -> None:
    one, two = (on(s, duration, 0.5, 0.5) for s in (0, 1))
    assert side_by_side(one, two) == [duration, duration]


@given(st.integers(1, 10**9))
def test_two_tasks_that_load_all_of_a_resource_take_twice_as_long(duration: int) -> None:
    one, two = (on(s, duration, 0.25, 1.0) for s in (0, 1))
    assert side_by_side(one, two) == [2 * duration, 2 * duration]


def test_a_product_beside_a_stream_of_bytes_by_hand() -> None:
    # HBM is over-subscribed by 0.2 + 1.0: both run at 1 / 1.2 of their pace. The bytes end at
    # 60 * 1.2 = 72; by then the product has done 60 of its 100 ticks, and ends alone 40 later.
    assert side_by_side(on(0, 100, 1.0, 0.2), on(1, 60, 0.0, 1.0)) == [112, 72]


@given(
    st.lists(st.tuples(st.integers(1, 10**6), *[st.floats(0.01, 1)] * 2), min_size=1, max_size=5)
)
def test_the_makespan_lies_between_the_busiest_resource_and_one_stream(
    operators: list[tuple[int, float, float]],
) -> None:
    tasks = [on(s, *operator) for s, operator in enumerate(operators)]
    makespan = max(side_by_side(*tasks))
    busiest = max(sum(t.duration * t.loads[r][1] for t in tasks) for r in (ARITHMETIC, HBM))
    rounding = 2 * len(tasks) ** 2
    assert makespan >= max(busiest - rounding, *(t.duration for t in tasks))
    assert makespan <= sum(t.duration for t in tasks) + rounding


@pytest.mark.parametrize("name", ["deepseek-v3", "llama-3.1-8b", "mixtral-8x7b"])
@pytest.mark.parametrize("fusion", [True, False])
def test_operators_lie_in_a_topological_order_of_one_flow(name: str, fusion: bool) -> None:
    batch = Batch(groups=(Group(sequence=Sequence(new=16)),))
    graph = build_graph(load_model(name), batch, Precision(), Lowering(fusion=fusion))
    for block in (placed.block.graph for placed in graph.placed):
        order = {name: i for i, name in enumerate(block)}
        assert all(order[a] < order[b] for a, b in block.edges)
        assert nx.is_weakly_connected(block)
        assert [n for n in block if not block.out_degree(n)] == [list(order)[-1]]


@pytest.mark.parametrize("fusion", [True, False])
def test_shared_and_routed_experts_wait_only_for_their_input(fusion: bool) -> None:
    batch = Batch(groups=(Group(sequence=Sequence(new=16)),))
    graph = build_graph(load_model("deepseek-v3"), batch, Precision(), Lowering(fusion=fusion))
    block = graph.placed[-2].block.graph
    shared = {n for n in block if n.startswith("shared_")}
    routed = {n for n in block if n.startswith(("experts_", "router"))}
    assert shared
    assert routed
    for one, other in itertools.product(shared, routed):
        assert not nx.has_path(block, one, other)
        assert not nx.has_path(block, other, one)
    assert shared | routed <= nx.ancestors(block, list(block)[-1])
