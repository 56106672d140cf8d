"""The laws of whole runs, on random small models, machines, splits and batches."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BF16, cases

from hw_models.efficiency import Efficiency, KernelTerms
from hw_models.system import Link, System
from sim import Result, Scenario, Workload, run
from sim.account.timeline import spans
from sim.cost.model import RESOURCES
from sim.inputs.catalogue import Machine
from sim.mapping.parallelism import Parallelism, shard
from sim.scenario import Resolved
from sim.simulation import simulate
from sim.states import BUBBLE, COMPUTE, IDLE, LAUNCH, NOTHING, STATES, Ticks, add, total
from workloads.graph import build_graph

ROOT = Path(__file__).parents[1]
details = st.sampled_from(["op", "tile"])


def changed(case: Resolved, **fields: object) -> Resolved:
    scenario = msgspec.structs.replace(case.scenario, **fields)
    return msgspec.structs.replace(case, scenario=scenario)


def on_device(case: Resolved, **fields: object) -> Resolved:
    device = msgspec.structs.replace(case.machine.device, **fields)
    machine = Machine(case.machine.name, case.machine.system, device)
    return msgspec.structs.replace(case, machine=machine)


def accounts(result: Result, *fields: str) -> dict[tuple[object, ...], Ticks]:
    return {key: states for key, states in result.account.by(*fields).items() if any(states)}


def steps(result: Result) -> Iterable[object]:
    return (s for job in result.record.compiled.plan.jobs for w in job.work for s in w.block.steps)


def roundings(result: Result) -> int:
    """Ticks that rounding can move a run by: half a tick of each part of each tile."""
    compute = sum(3 * s.cost.pipeline.tiles + 1 for s in steps(result) if s.cost)
    links = sum(4 * len(s.exchange.rounds) + 1 for s in steps(result) if s.exchange)
    handed = 4 * sum(1 for job in result.record.compiled.plan.jobs if job.handover)
    return compute + links + handed


# The account -----------------------------------------------------------------------------


@given(cases(), details, st.booleans())
def test_states_sum_to_the_makespan_on_every_device(
    case: Resolved, detail: str, shortcuts: bool
) -> None:
    result = simulate(changed(case, detail=detail, shortcuts=shortcuts))
    split, weight = case.scenario.parallelism, result.account.weight
    found = accounts(result, "replica", "stage", "rank")
    ranks = 1 if weight > 1 or split.tp == 1 else split.tp
    if result.makespan:
        assert len(found) == split.dp * split.pp * ranks
    for states in found.values():
        assert min(states) >= 0
        assert sum(states) == weight * result.makespan
    assert sum(result.account.total) == split.devices * result.makespan


@given(cases(), details, st.booleans())
def test_spans_follow_one_another_and_are_the_account(
    case: Resolved, detail: str, shortcuts: bool
) -> None:
    result = simulate(changed(case, detail=detail, shortcuts=shortcuts))
    ends: dict[tuple[int, int, int], int] = {}
    by_rank: dict[tuple[int, int, int], Ticks] = {}
    for span in spans(result.record):
        rank = (span.replica, span.stage, span.rank)
        assert span.begin == ends.get(rank, 0)
        assert min(span.states) >= 0
        assert sum(span.states) == span.end - span.begin
        assert 0 <= span.launched <= span.states[LAUNCH] or span.step is None
        ends[rank] = span.end
        by_rank[rank] = add(by_rank.get(rank, NOTHING), span.states)
    assert set(ends.values()) == {result.makespan}
    weight = result.account.weight
    for rank, states in result.account.by("replica", "stage", "rank").items():
        assert states == tuple(weight * x for x in by_rank[rank])  # type: ignore[index]


@given(cases(), details)
def test_every_roll_up_has_the_same_sum(case: Resolved, detail: str) -> None:
    book = simulate(changed(case, detail=detail)).account
    for fields in (("kind",), ("layer", "stack"), ("phase",), ("number", "micro"), ("stage",)):
        assert total(book.by(*fields).values()) == book.total
    assert sum(map(book.share, STATES)) == pytest.approx(1 if book.makespan else 0)


@given(cases(), details, st.booleans())
def test_a_device_computes_what_its_operators_take(
    case: Resolved, detail: str, shortcuts: bool
) -> None:
    """However a run is resolved, shared or prefetched, arithmetic is neither lost nor made up."""
    result = simulate(changed(case, detail=detail, shortcuts=shortcuts))
    compute = sum(s.cost.compute for s in steps(result) if s.cost)
    assert result.account.total[COMPUTE] == case.scenario.parallelism.tp * compute


@given(cases(dense=True), details)
def test_work_is_that_of_the_graph(case: Resolved, detail: str) -> None:
    result = simulate(changed(case, detail=detail))
    split, lowering = case.scenario.parallelism, case.scenario.lowering
    local = shard(case.model, split.tp)
    graphs = [build_graph(local, p.batch, BF16, lowering, ways=split.tp) for p in case.passes]
    done = list(steps(result))
    assert result.metrics.flops == split.tp * sum(graph.flops for graph in graphs)
    assert result.metrics.flops == split.tp * sum(s.cost.flops for s in done if s.cost)
    least = sum(g.traffic.total for g in graphs)
    assert result.metrics.hbm_bytes >= split.tp * least
    assert result.metrics.hbm_bytes == split.tp * sum(s.cost.hbm_bytes for s in done if s.cost)
    if case.model.decoder:
        size = case.passes[0].batch.size
        assert result.metrics.tokens_out == size * len(case.passes)


# One model, three resolutions ------------------------------------------------------------


@given(cases(prefetch=False))
def test_the_shortcuts_are_exact(case: Resolved) -> None:
    short, long = (simulate(changed(case, shortcuts=s)) for s in (True, False))
    assert short.makespan == long.makespan
    for fields in (("phase", "kind"), ("replica", "stage"), ("number", "micro", "layer")):
        assert accounts(short, *fields) == accounts(long, *fields)
    assert short.metrics == long.metrics


@given(cases(prefetch=True), details)
def test_folding_ranks_is_exact_with_prefetch(case: Resolved, detail: str) -> None:
    case = changed(case, detail=detail)
    short, long = (simulate(changed(case, shortcuts=s)) for s in (True, False))
    assert short.makespan == long.makespan
    assert accounts(short, "phase", "kind") == accounts(long, "phase", "kind")


@given(cases(contend=False, dp=False))
def test_tile_is_op_where_nothing_contends(case: Resolved) -> None:
    op, tile = (simulate(changed(case, detail=d)) for d in ("op", "tile"))
    assert tile.makespan == op.makespan
    for fields in (("phase", "kind"), ("stage", "number", "layer")):
        assert accounts(tile, *fields) == accounts(op, *fields)


@given(cases(prefetch=False, contend=False, dp=False))
def test_alone_a_run_is_the_sum_of_its_steps(case: Resolved) -> None:
    plan = simulate(case).record.compiled.plan
    own = sum(s.duration for job in plan.jobs for w in job.work for s in w.block.steps)
    launch = plan.costs.launch
    handed = sum(launch + job.handover.time for job in plan.jobs if job.handover)
    assert simulate(case).makespan == own + handed


# What if ---------------------------------------------------------------------------------


@given(cases(), details)
def test_where_all_is_free_nothing_takes_time(case: Resolved, detail: str) -> None:
    assert simulate(changed(case, detail=detail), free=frozenset(RESOURCES)).makespan == 0


@given(cases(prefetch=False, contend=False, dp=False), st.sampled_from(RESOURCES))
def test_what_is_free_never_slows(case: Resolved, resource: str) -> None:
    base, free = simulate(case), simulate(case, free=frozenset({resource}))
    # Without re-reads an operator may be cut into other tiles, each rounded for itself.
    slack = roundings(base) if resource == "sram" else 0
    assert free.makespan <= base.makespan + slack
    gone = {"compute": "compute", "launch": "launch"}
    if resource in gone:
        assert free.account.share(gone[resource]) == 0


@given(cases(dp=False), st.sampled_from([2.0, 4.0]))
def test_all_rates_doubled_halve_the_time(case: Resolved, factor: float) -> None:
    fast = faster(case, factor)
    slow, quick = simulate(case), simulate(fast)
    assert abs(slow.makespan - factor * quick.makespan) <= factor * roundings(slow)


def quicker(efficiency: Efficiency, factor: float) -> Efficiency:
    """Every term that is a time, divided."""

    def each(terms: KernelTerms) -> KernelTerms:
        times = {f: getattr(terms, f) for f in terms.__struct_fields__ if f.endswith("_us")}
        return msgspec.structs.replace(
            terms, **{f: t if t is None else t / factor for f, t in times.items()}
        )

    families = {f: getattr(efficiency, f) for f in efficiency.__struct_fields__}
    return msgspec.structs.replace(
        efficiency,
        **{
            name: {key: each(terms) for key, terms in table.items()}
            for name, table in families.items()
            if isinstance(table, dict)
        },
    )


def faster(case: Resolved, factor: float) -> Resolved:
    d = case.machine.device
    replace = msgspec.structs.replace

    def peak(p: object) -> object:
        return replace(p, TFLOPS={k: factor * v for k, v in p.TFLOPS.items()})  # type: ignore

    device = replace(
        d,
        matrix=peak(d.matrix),
        vector=peak(d.vector),
        hbm=replace(d.hbm, bandwidth_GBps=factor * d.hbm.bandwidth_GBps),
        on_chip=tuple(
            replace(m, bandwidth_GBps=m.bandwidth_GBps and factor * m.bandwidth_GBps)
            for m in d.on_chip
        ),
        launch=replace(d.launch, overhead_us=d.launch.overhead_us / factor),
        efficiency=quicker(d.efficiency, factor),
    )
    s = case.machine.system
    links: tuple[Link, ...] = tuple(
        replace(
            link,
            bandwidth_GBps=factor * link.bandwidth_GBps,
            latency_us=link.latency_us / factor,
        )
        for link in s.links
    )
    machine = Machine("fast", System(s.name, len(s.devices), s.switches, links), device)
    return replace(case, machine=machine)


# Splits ----------------------------------------------------------------------------------


@given(cases())
def test_equal_replicas_do_equal_things(case: Resolved) -> None:
    """Where replicas use different links and get equal shares, each one's time is the same."""
    size, dp = case.passes[0].batch.size, case.scenario.parallelism.dp
    result = simulate(case, free=frozenset({"link"}))
    found = result.account.by("replica", "stage")
    for (replica, stage), states in found.items():
        if size % dp == 0:
            assert states == found[0, stage]
        assert replica < dp


@given(cases(dp=False, dense=True))
def test_a_lone_stage_never_waits(case: Resolved) -> None:
    split = msgspec.structs.replace(case.scenario.parallelism, pp=1, stages=())
    result = simulate(changed(case, parallelism=split))
    assert result.account.total[BUBBLE] == result.account.total[IDLE] == 0


@pytest.mark.parametrize("micro", [1, 4])
def test_equal_stages_make_the_bubble_of_the_formula(micro: int) -> None:
    """(m + p - 1) t of which (p - 1) t are bubble, on free links."""
    scenario = Scenario(
        model="gpt2",
        on="dgx-a100",
        workload=Workload(batch=4, prompt=64, output=1),
        parallelism=Parallelism(pp=4, microbatches=micro),
        set={"model.n_layer": 8, "model.vocab_size": 1},
    )
    result = run(scenario)
    plan = result.record.compiled.plan
    times = [sum(w.block.duration for w in job.work) for job in plan.jobs]
    longest, handed = max(times), [job.handover for job in plan.jobs if job.handover]
    assert len(handed) == 3 * micro
    # A calibrated library's time has the launch in it.
    hop = handed[0].time + (0 if handed[0].library else plan.costs.launch)
    # The first and the last stage have more to do; the middle ones are equal.
    assert times[1] == times[2]
    assert result.makespan >= (micro - 1) * longest + sum(times[:4]) + 3 * hop - longest
    if micro == 1:
        assert result.makespan == sum(times) + 3 * hop


# Reproducible ----------------------------------------------------------------------------


@settings(max_examples=30)
@given(cases(), cases())
def test_the_same_input_gives_the_same_account(one: Resolved, other: Resolved) -> None:
    first = simulate(one)
    simulate(other)
    again = simulate(one)
    assert first.account.rows == again.account.rows
    assert first.record.timeline.end == again.record.timeline.end


def fingerprint() -> str:
    scenario = Scenario(
        model="llama-3.1-8b",
        on="hgx-h100",
        workload=Workload(batch=4, prompt=64, output=3),
        parallelism=Parallelism(tp=2, pp=2, dp=2, microbatches=2),
        set={"model.num_hidden_layers": 4},
    )
    result = run(scenario)
    book = repr((result.record.timeline.end, result.account.rows, result.metrics))
    return hashlib.sha256(book.encode()).hexdigest()


@pytest.mark.slow
def test_another_process_gives_the_same_bytes() -> None:
    seen = {fingerprint()}
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        code = "import test_laws; print(test_laws.fingerprint())"
        out = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        seen.add(out.stdout.strip())
    assert len(seen) == 1


# The catalogue ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "on", "changes", "workload", "split"),
    [
        ("bert-base", "h100-sxm", {"num_hidden_layers": 2}, {"seq": 128}, {}),
        ("gpt2", "survey-accelerator", {"n_layer": 2}, {"prompt": 64, "output": 3}, {}),
        (
            "llama-3.1-8b",
            "hgx-h100",
            {"num_hidden_layers": 4},
            {"batch": 2, "output": 3},
            {"tp": 4, "pp": 2},
        ),
        ("mixtral-8x7b", "mi300x-8x", {"num_hidden_layers": 2}, {"output": 2}, {"tp": 8}),
        ("deepseek-v3", "2x-hgx-h100-ib", {"num_hidden_layers": 4}, {"output": 2}, {"tp": 16}),
        ("t5-large", "tpu-v4-ring-4", {"num_layers": 2}, {"output": 3}, {"tp": 2, "pp": 2}),
        (
            "whisper-large-v3",
            "pcie-4x-a100",
            {"decoder_layers": 2, "encoder_layers": 2},
            {"output": 3},
            {"pp": 4},
        ),
    ],
)
def test_real_models_on_real_machines(
    model: str, on: str, changes: dict[str, int], workload: dict[str, int], split: dict[str, int]
) -> None:
    scenario = Scenario(
        model=model,
        on=on,
        workload=Workload(**workload),
        parallelism=Parallelism(**split),
        dtype="int8" if on == "survey-accelerator" else None,
        set={f"model.{key}": value for key, value in changes.items()},
    )
    op = run(scenario)
    others = {"detail": "tile"}, {"shortcuts": False}
    for fields in others:
        other = run(msgspec.structs.replace(scenario, **fields))
        assert other.makespan == op.makespan
        assert accounts(other, "phase", "kind") == accounts(op, "phase", "kind")
    assert sum(op.account.total) == op.resolved.scenario.parallelism.devices * op.makespan
    for name, makespan in op.counterfactual.items():
        assert makespan <= op.makespan, name
