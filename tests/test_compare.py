"""Differences explained: parts sum to the whole exactly, and turn their sign with the order."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from commands import content
from hypothesis import given, settings
from strategies import cases

from sim import Infeasible, InputError, Scenario, Workload, load_device, run
from sim.inputs.catalogue import LAUNCH
from sim.output.export import write_result
from sim.scenario import Resolved
from sim.serve.serving import serve
from sim.serve.session import summary
from sim.simulation import simulate
from sim.studies.sweep.changes import changed, factor, from_flags
from sim.studies.whatif import compare, runs
from sim.studies.whatif.parts import Breakdown
from sim.studies.whatif.resources import resources_of
from sim.studies.whatif.served import break_down
from sim.studies.whatif.subjects import RunSubject, ServeSubject, subject, tables_of

COMMAND = Path(sys.executable).with_name("memorywall")
GPT2 = ["prompt=64", "output=4"]
SERVED = ["arrivals=poisson:40", "num_requests=60", "max_num_seqs=8", "seed=3"]
METRICS = ("makespan", "ttft", "tpot", "e2e", "pass:0")


def run_of(*changes: str) -> RunSubject:
    found = subject("gpt2", "hgx-h100", [*GPT2, *changes])
    assert isinstance(found, RunSubject)
    return found


def served_of(*changes: str) -> ServeSubject:
    found = subject("gpt2", "l4", [*SERVED, *changes])
    assert isinstance(found, ServeSubject)
    return found


def seconds(breakdown: Breakdown) -> float:
    return float(breakdown.total) * 1e-12


@given(cases())
@settings(max_examples=25)
def test_parts_sum_to_the_metric(resolved: Resolved) -> None:
    result = simulate(resolved)
    metrics = result.metrics
    assert runs.break_down(result, "makespan").total == result.makespan
    if metrics.ttft_s is not None and metrics.tpot_s is not None:
        assert seconds(runs.break_down(result, "ttft")) == pytest.approx(metrics.ttft_s)
        if len(resolved.passes) > 1:
            assert seconds(runs.break_down(result, "tpot")) == pytest.approx(metrics.tpot_s)
    every = [runs.break_down(result, f"pass:{n}") for n in range(len(resolved.passes))]
    whole = sum((one.total for one in every), Fraction())
    assert whole == runs.break_down(result, "e2e").total
    assert all(x >= 0 for one in every for x in one.parts.values())


@pytest.mark.parametrize("metric", METRICS)
def test_laws_of_a_run(metric: str) -> None:
    a = run_of("tp=2").break_down(metric)
    b = run_of("pp=2", "batch=4", "microbatches=2", "hbm.bandwidth_GBps=*2").break_down(metric)
    assert compare(a, a).change.parts == {}
    there, back = compare(a, b).change, compare(b, a).change
    assert there.parts == {cause: -x for cause, x in back.parts.items()}
    assert there.total == b.total - a.total
    for fields in (("state",), ("kind",), ("what",), ("state", "what"), ()):
        assert sum(there.by(*fields).values(), Fraction()) == there.total


@pytest.mark.parametrize("metric", ["makespan", "e2e", "ttft", "tpot:p90", "ttft:p50", "e2e:p99"])
def test_laws_of_serving(metric: str) -> None:
    a, b = (served_of(*more).break_down(metric) for more in ((), ("hbm.bandwidth_GBps=*2",)))
    assert compare(a, a).change.parts == {}
    assert compare(a, b).change.parts == {c: -x for c, x in compare(b, a).change.parts.items()}
    assert compare(a, b).change.total == b.total - a.total
    assert all(x > 0 for x in a.parts.values())


def test_serving_metrics_are_those_of_the_summary() -> None:
    found = served_of()
    assert found.serving is not None
    done = serve(found.serving)
    tables, told = tables_of(done), summary(done)
    assert break_down(tables, "makespan").total == told["makespan_ps"]
    for name in ("e2e", "ttft", "tpot"):
        assert seconds(break_down(tables, name)) == pytest.approx(told["latency_s"][name]["mean"])
        for p in (50, 90, 99):
            part = seconds(break_down(tables, f"{name}:p{p}"))
            assert part == pytest.approx(told["latency_s"][name][f"p{p}"])
    one = done.requests.frame().row(7, named=True)
    assert break_down(tables, "e2e:request=7").total == one["last_token_ps"] - one["arrival_ps"]


def test_doubled_bandwidth_is_told_as_weights() -> None:
    a = subject("llama-3.1-8b", "h100-sxm", ["prompt=128", "output=3"])
    b = subject("llama-3.1-8b", "h100-sxm", ["prompt=128", "output=3", "hbm.bandwidth_GBps=*2"])
    told = compare(a.break_down("tpot"), b.break_down("tpot")).sentence()
    assert told.startswith("TPOT -2.")
    assert "HBM (weights)" in told


def test_all_reduce_is_told_by_its_name() -> None:
    change = compare(run_of().break_down("ttft"), run_of("tp=2").break_down("ttft")).change
    exchanges = {c.what for c in change.parts if c.state == "link"}
    assert exchanges == {"all-reduce", "all-gather"}


def test_another_micro_batch_is_a_queue_and_no_link() -> None:
    found = run_of("pp=2", "batch=4", "microbatches=2").break_down("ttft")
    assert any(c.what == runs.BUSY for c in found.parts)


def test_a_result_folder_is_what_it_was(tmp_path: Path) -> None:
    one = run_of("tp=2")
    write_result(one.result, tmp_path, pictures=False, trace=False)
    again = subject(str(tmp_path))
    assert again.name == one.name
    for metric in METRICS:
        assert again.break_down(metric).parts == one.break_down(metric).parts


def test_changes_by_factor_and_percentage() -> None:
    base = {"model": "gpt2", "on": "hgx-h100", "workload": {"batch": 4}}
    found = changed(
        "run",
        base,
        [
            "batch=*2",
            "hbm.bandwidth_GBps=+10%",
            "hbm.bandwidth_GBps=*2",
            "model.n_layer=/2",
            "system.tiers.0.latency_us=-50%",
            "on_chip.L2.capacity_KiB=*2",
            "fusion=false",
        ],
    )
    assert found["workload"] == {"batch": 8}
    assert found["lowering"] == {"fusion": False}
    assert found["set"]["hbm.bandwidth_GBps"] == pytest.approx(2 * 1.1 * 3350)
    assert found["set"]["model.n_layer"] == 6
    assert found["set"]["on_chip.L2.capacity_KiB"] == 2 * 51200
    assert base == {"model": "gpt2", "on": "hgx-h100", "workload": {"batch": 4}}
    assert factor("*2") == 2
    assert factor("/4") == 0.25
    assert factor("x") is None
    assert from_flags(
        ["--batch", "8", "--no-fusion", "--kv-dtype=fp8", "--hbm.bandwidth_GBps", "*2"]
    ) == [
        "batch=8",
        "fusion=false",
        "kv_dtype=fp8",
        "hbm.bandwidth_GBps=*2",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("hbm.bandwith_GBps=*2", "did you mean 'bandwidth_GBps'"),
        ("batchh=2", "did you mean"),
        ("batch=+10%", "a whole number is due"),
        ("dtype=*2", "needs a number"),
        ("batch=-100%", "nothing is left"),
    ],
)
def test_bad_changes_are_told_in_a_sentence(change: str, said: str) -> None:
    with pytest.raises((InputError, Infeasible), match=said):
        run_of("batch=4", change)


def test_launches_at_half_are_all_launches_at_half() -> None:
    """Fitted kernels have floors of their own, which go with the launch overhead; `sensitivity`,
    which sets each, says the same. Some of an H100's kernels are two launches at times."""
    base = Scenario(model="llama-3.2-1b", on="h100-sxm", workload=Workload(prompt=64, output=2))
    launch = load_device("h100-sxm").launch.overhead_us
    half = msgspec.structs.replace(base, set={LAUNCH: launch / 2})
    before, after = run(base).account.share("launch"), run(half)
    spent = after.account.share("launch") * after.makespan / run(base).makespan
    assert spent / before == pytest.approx(0.5, rel=0.06)
    document = msgspec.to_builtins(base)
    each = next(r for r in resources_of(document, "bf16") if r.name == "launch overhead")
    same = run(msgspec.structs.replace(base, set=dict(each.scaled(0.5))))
    assert same.makespan == after.makespan


def test_a_floor_that_is_set_itself_stays() -> None:
    floor = "efficiency.gemm.bf16.floor_us"
    assert load_device("h100-sxm", {LAUNCH: 1.0, floor: 9.0}).efficiency.gemm["bf16"].floor_us == 9


def test_the_command(tmp_path: Path) -> None:
    call = [COMMAND, "compare", "gpt2", "--on", "hgx-h100", "--with", "output=3"]
    good = subprocess.run(
        [*call, "--tp", "2", "--set", "hbm.bandwidth_GBps=*2", "--out", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the same with hbm.bandwidth_GBps=*2, tp=2" in good.stdout
    assert set(content(tmp_path)) == {f"compare.{kind}" for kind in ("csv", "json", "png", "svg")}
    bad = subprocess.run([*call, "--metric", "tpots"], capture_output=True, text=True)
    assert bad.returncode == 2
    assert len(bad.stderr.splitlines()) == 1
