"""Several streams on one device: shared resources, the order of operators, the account."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import cases

from sim.account.lanes import task_lanes
from sim.account.timeline import spans
from sim.cost.model import Cost
from sim.cost.pipeline import Pipeline
from sim.engine.des import Program, Task, run
from sim.errors import InputError
from sim.inputs.catalogue import load_model
from sim.mapping.parallelism import Parallelism
from sim.mapping.streams import RESOURCES, Streams, operator_loads
from sim.output.export import summary
from sim.output.tables import operators, time_account
from sim.scenario import Resolved, Scenario, Workload, load_scenario, save_scenario
from sim.simulation import Result, simulate
from sim.simulation import run as run_scenario
from sim.states import STATES
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


several = st.builds(
    Streams,
    count=st.integers(2, 3),
    rule=st.sampled_from(["branches", "shared-experts", "collectives"]),
)


def streamed(case: Resolved, streams: Streams, **changes: object) -> Result:
    scenario = msgspec.structs.replace(case.scenario, streams=streams, allow_oom=True, **changes)
    return simulate(msgspec.structs.replace(case, scenario=scenario))


@given(cases(prefetch=False), several)
def test_states_of_every_device_sum_to_the_makespan(case: Resolved, streams: Streams) -> None:
    result = streamed(case, streams)
    account = result.account
    for states in account.by("replica", "stage", "rank").values():
        assert sum(states) == result.makespan * account.weight
        assert min(states) >= 0
    assert sum(account.total) == result.makespan * account.devices
    table = operators(result)
    at = list(table.columns).index("total_us")
    assert sum(row[at] for row in table.rows) == pytest.approx(  # type: ignore[arg-type, misc]
        result.makespan * account.devices / 1e6
    )
    assert sum(row[-8] for row in time_account(result).rows) == sum(account.total)  # type: ignore[misc]


@given(cases(prefetch=False), several)
def test_steps_keep_the_edges_of_the_graph_and_streams_serve_one_at_a_time(
    case: Resolved, streams: Streams
) -> None:
    result = streamed(case, streams, shortcuts=False)
    compiled, times = result.record.compiled, result.record.timeline
    for lane, _ in enumerate(compiled.program.lanes):
        mine = [i for i, task in enumerate(compiled.program.tasks) if lane in task.lanes]
        assert all(times.end[a] <= times.start[b] for a, b in itertools.pairwise(mine))
    for slot in compiled.slots:
        length = len(slot.pieces) // slot.job.parts
        for part in range(slot.job.parts):
            ends: dict[tuple[str, str], int] = {}  # by place and operator, its exchange included
            for piece in slot.pieces[part * length : (part + 1) * length]:
                path, name = piece.placed.path, piece.step.name
                (task,) = piece.ends
                if piece.step.cost is None:
                    name = name.rpartition(".")[0]
                    assert times.start[task] >= ends[path, name]
                else:
                    graph = piece.placed.block.graph
                    fed = [ends[path, p] for p in graph.predecessors(name)]
                    assert times.start[task] >= max(fed, default=0)
                ends[path, name] = times.end[task]


@given(cases(prefetch=False, dense=True), st.integers(2, 4))
def test_streams_that_nothing_uses_change_nothing(case: Resolved, count: int) -> None:
    one = streamed(case, Streams())
    many = streamed(case, Streams(count=count, rule="shared-experts"))
    assert many.makespan == one.makespan
    assert many.account.rows == one.account.rows
    assert not any(many.account.hidden.values())


@given(cases(prefetch=False, contend=False), several)
def test_equal_ranks_simulated_one_by_one_end_as_one_of_them(
    case: Resolved, streams: Streams
) -> None:
    # Calibrated exchanges load the HBM of every rank alike, so that all ranks keep one pace.
    short, long = (streamed(case, streams, shortcuts=on) for on in (True, False))
    assert short.makespan == pytest.approx(long.makespan, abs=2 * len(case.passes) * 1000)


@given(cases(prefetch=False, dp=False), st.integers(2, 3))
def test_the_same_work_ends_between_the_busiest_resource_and_one_stream(
    case: Resolved, count: int
) -> None:
    result = streamed(case, Streams(count=count))
    compiled, times = result.record.compiled, result.record.timeline
    links = len(compiled.plan.network.fabric.links)
    used: dict[int, float] = {}
    for task in compiled.program.tasks:
        for resource, load in task.loads:
            used[resource] = used.get(resource, 0.0) + load * task.duration
    capacity = [amount for _, amount in compiled.program.resources]
    rounding = 2 * len(compiled.program.tasks)
    assert max((x / capacity[r] for r, x in used.items()), default=0) <= times.makespan + rounding
    assert len(capacity) == links + len(RESOURCES) * len(
        {(s.job.replica, s.job.stage, s.rank) for s in compiled.slots}
    )
    assert times.makespan <= sum(t.latency + t.duration for t in compiled.program.tasks) + rounding
    assert result.metrics.flops == streamed(case, Streams()).metrics.flops


def test_an_operator_loads_what_it_keeps_busy() -> None:
    pipeline = Pipeline(tiles=4, load=10, compute=5, store=0)
    cost = Cost(0, pipeline, 20, 25, 0, 0, 0, 0, hbm_time=40, sram_time=0)
    assert pipeline.makespan == 45
    loads = operator_loads(cost, 7, 90.0)
    assert loads == ((7, pytest.approx(40.0)), (8, pytest.approx(80.0)))


def deepseek(streams: Streams) -> Result:
    return run_scenario(
        Scenario(
            model="deepseek-v3",
            on="hgx-h200",
            workload=Workload(batch=4, prompt=64, output=2),
            parallelism=Parallelism(tp=8),
            streams=streams,
            dtype="fp8",
        )
    )


def test_shared_experts_are_hidden_under_the_routed_ones() -> None:
    one, two = deepseek(Streams()), deepseek(Streams(count=2, rule="shared-experts"))
    assert two.makespan < one.makespan
    hidden = two.account.hidden_by("kind")
    assert hidden["ffn",] > 0
    assert summary(two)["hidden_under_other_streams_ps"] == sum(hidden.values())
    assert summary(one)["hidden_under_other_streams_ps"] == 0
    # What is done is done on some stream: arithmetic is the account's in both.
    done = [r.account.total[STATES.index("compute")] for r in (one, two)]
    assert done[1] == pytest.approx(done[0], rel=1e-4)
    assert two.account.share("launch") < one.account.share("launch")
    busy = [busy for _, _, busy in task_lanes(two.record, frozenset({1}))]
    assert any("shared_gate_up_proj" in b.name and " + " in b.name for b in busy)
    assert all(0 < b.work <= b.end - b.begin for b in busy)


def test_a_collective_of_one_part_runs_beside_the_products_of_the_other() -> None:
    result = run_scenario(
        Scenario(
            model="llama-3.1-8b",
            on="hgx-h100",
            workload=Workload(batch=2, prompt=2048, output=1),
            parallelism=Parallelism(tp=8),
            streams=Streams(count=2, rule="collectives"),
        )
    )
    mine = [s for s in spans(result.record) if s.step]
    sums = [s for s in mine if s.step and s.step.exchange]
    beside = [
        (a, b)
        for a in sums
        for b in mine
        if b.stream != a.stream and b.step and b.step.cost and a.begin < b.end and b.begin < a.end
    ]
    assert len(beside) > len(sums) // 2
    assert result.account.hidden_by("kind")["collective",] > 0


def test_streams_are_a_part_of_the_document(tmp_path: Path) -> None:
    scenario = Scenario(model="gpt2", on="a100-80gb", streams=Streams(count=2, rule="collectives"))
    save_scenario(scenario, tmp_path / "s.toml")
    assert "[streams]" in (tmp_path / "s.toml").read_text()
    assert load_scenario(tmp_path / "s.toml") == scenario


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"detail": "tile"}, "tiles"), ({"set": {"device.prefetch": True}}, "prefetch")],
)
def test_what_does_not_go_with_streams_is_refused(changes: dict[str, object], words: str) -> None:
    scenario = Scenario(model="gpt2", on="h100-sxm", streams=Streams(count=2))
    with pytest.raises(InputError, match=words):
        run_scenario(msgspec.structs.replace(scenario, **changes))
