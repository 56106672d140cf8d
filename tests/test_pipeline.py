"""The closed form of the tile pipeline against the engine's own run of the tiles."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from sim.cost.model import Cost
from sim.cost.pipeline import Pipeline
from sim.engine.des import Program, Task, run
from sim.mapping.emit import CORE, Emitter

times = st.integers(0, 100)
pipelines = st.builds(Pipeline, st.integers(1, 9), times, times, times, st.booleans())


@st.composite
def costs(draw: st.DrawFn) -> Cost:
    p = draw(pipelines)
    return Cost(
        launch=draw(st.integers(0, 50)),
        pipeline=p,
        compute=p.compute_busy,
        hbm=0,
        sram=0,
        weight_load=draw(st.integers(0, p.load)),
        flops=0,
        hbm_bytes=0,
        hbm_time=p.hbm_busy,
        sram_time=0,
    )


def emitted(many: list[Cost], detail: str, prefetch: bool) -> tuple[list[Task], int]:
    tasks: list[Task] = []
    emitter = Emitter(tasks, 0, detail, prefetch, ())
    for cost, following in zip(many, [*many[1:], None], strict=True):
        emitter.operator("op", cost, following)
    return tasks, run(Program(tasks, ["host", "hbm", "core"])).makespan


@given(pipelines)
def test_the_closed_form_is_the_run_of_the_tiles(p: Pipeline) -> None:
    cost = Cost(0, p, p.compute_busy, 0, 0, 0, 0, 0, 0, 0)
    assert emitted([cost], "tile", False)[1] == p.makespan
    assert emitted([cost], "op", False)[1] == p.makespan


@given(st.lists(costs(), min_size=1, max_size=5))
def test_operators_in_a_row_add_up(many: list[Cost]) -> None:
    whole = sum(cost.duration for cost in many)
    assert emitted(many, "tile", False)[1] == emitted(many, "op", False)[1] == whole


@given(st.lists(costs(), min_size=1, max_size=5))
def test_with_prefetch_tile_is_op_and_never_slower(many: list[Cost]) -> None:
    tile, op = emitted(many, "tile", True)[1], emitted(many, "op", True)[1]
    assert tile == op <= sum(cost.duration for cost in many)


@given(st.lists(costs(), min_size=1, max_size=5), st.booleans())
def test_both_details_do_the_same_work(many: list[Cost], prefetch: bool) -> None:
    for detail in ("tile", "op"):
        tasks, makespan = emitted(many, detail, prefetch)
        busy = sum(
            task.duration for task in tasks if CORE in task.lanes and "body" not in task.name
        )
        if detail == "tile":
            assert busy == sum(cost.pipeline.compute_busy for cost in many)
        assert makespan >= sum(cost.pipeline.compute_busy for cost in many)


@given(st.integers(1, 50), times, times)
def test_without_stores_it_is_the_formula_of_the_design(n: int, load: int, compute: int) -> None:
    p = Pipeline(n, load, compute, 0)
    assert p.makespan == load + (n - 1) * max(load, compute) + compute
    memory, work = n * load, n * compute
    assert p.makespan == max(memory, work) + Fraction(min(memory, work), n)


@given(pipelines)
def test_busy_and_waiting_fill_the_makespan(p: Pipeline) -> None:
    assert max(p.hbm_busy, p.compute_busy) <= p.makespan <= p.hbm_busy + p.compute_busy


@given(pipelines, st.integers(2, 9))
def test_scaled_times_scale_the_makespan(p: Pipeline, k: int) -> None:
    scaled = Pipeline(p.tiles, k * p.load, k * p.compute, k * p.store, p.perfect)
    assert scaled.makespan == k * p.makespan
