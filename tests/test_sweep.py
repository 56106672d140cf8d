"""Sweeps: grids and conditions, rows equal to runs, resumed, local and on a cluster alike."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import InputError, run
from sim.mapping.parallelism import Parallelism
from sim.scenario import Scenario, Workload
from sim.serve.config import RequestTraffic, Serving
from sim.serve.knobs import Slo
from sim.serve.rate import at_rate
from sim.serve.serving import serve
from sim.serve.session import summary
from sim.states import STATES
from sim.studies.sweep.axes import parse_values
from sim.studies.sweep.expression import Expression
from sim.studies.sweep.fronts import Metric, pareto
from sim.studies.sweep.grid import Sweep, document, points_of, sweep_of
from sim.studies.sweep.log import Keys
from sim.studies.sweep.pools import compute, run_jobs
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.session import base_of, write_sweep
from sim.studies.sweep.study import Swept, run_sweep

COMMAND = Path(sys.executable).with_name("memorywall")
SMALL = ["tp=1,2,3", "batch=1:4:x2", "prompt=64,640", "output=3"]


LONG_WAY = "shortcuts=false"  # points without a closed form


def small(*more: str, where: str = "") -> Sweep:
    return sweep_of("run", {"model": "gpt2", "on": "hgx-h100"}, [*SMALL, *more], where)


def traffic(*more: str, option: str = "") -> Sweep:
    base = Serving(
        model="gpt2",
        on="h100-sxm",
        traffic=RequestTraffic(arrivals="poisson:50", num_requests=150, output="fixed:16"),
        slo=Slo(ttft_s=0.01),
    )
    return sweep_of("serve", msgspec.to_builtins(base), more, "", option)


# Grids and conditions ---------------------------------------------------------------------


VALUES: dict[str, list[Any]] = {
    "1,2,4": [1, 2, 4],
    "1:256:x4": [1, 4, 16, 64, 256],
    "1:100:x3": [1, 3, 9, 27, 81],
    "0:30:+10": [0, 10, 20, 30],
    "2:5": [2, 3, 4, 5],
    "0.1:0.5:+0.1": [0.1, 0.2, 0.3, 0.4, 0.5],
    "bf16,fp8": ["bf16", "fp8"],
    "true,false": [True, False],
    "lognormal:mean=500,cv=1|fixed:512": ["lognormal:mean=500,cv=1", "fixed:512"],
    "poisson:4": ["poisson:4"],
    "fixed:512,lognormal:mean=500,cv=1,max=9,zipf:alpha=2": [
        "fixed:512",
        "lognormal:mean=500,cv=1,max=9",
        "zipf:alpha=2",
    ],
    "piecewise:60@2,60@8,gamma:4:cv=2": ["piecewise:60@2,60@8", "gamma:4:cv=2"],
    "[5,7]|[6,6]": [[5, 7], [6, 6]],
}


@pytest.mark.parametrize("text", VALUES)
def test_values_of_an_axis(text: str) -> None:
    assert parse_values(text, "") == VALUES[text]


numbers = st.integers(-20, 20)


@given(a=numbers, b=numbers, c=st.integers(1, 9))
def test_an_expression_has_the_value_that_python_gives_it(a: int, b: int, c: int) -> None:
    for text in (
        "a*b <= 8",
        "a + b*c > a // c or a == b",
        "-9 < a <= b",
        "min(a, b) % c",
        "a/c - b",
    ):
        names = {"a": a, "b": b, "c": c}
        assert Expression(text, "--where")(names) == eval(text, {}, names)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__",
        "[x for x in (1,)]",
        "(lambda: 1)()",
        "tp.__class__.__mro__",
        "open('x')",
        "9**9**9",
        "'a' * 10**9",
        "tp <",
        "tp := 3",
        "nothing > 1",
        "1 / (tp - tp)",
    ],
)
def test_an_expression_runs_nothing(text: str) -> None:
    with pytest.raises(InputError):
        Expression(text, "--where")({"tp": 2})


def test_where_sees_the_axes_and_the_scenario() -> None:
    swept = run_sweep(small(where="tp*batch <= 2 and prompt < 100 and microbatches == 1"))
    assert [p[:3] for p in swept.points] == [(1, 1, 64), (1, 2, 64), (2, 1, 64)]


REFUSALS = {
    "key": (["batsh=1"], "did you mean 'batch'"),
    "twice": (["tp=1", "parallelism.tp=2"], "two axes"),
    "shape": (["tp"], "KEY=VALUES"),
    "range": (["batch=8:1:x2"], "goes up"),
    "factor": (["batch=1:8:x1"], "factor above 1"),
    "model": (["model=gpt2,gpt22"], "did you mean"),
    "value": (["batch=0,1"], "batch"),
    "set": (["hbm.bandwith_GBps=1,2"], "did you mean 'bandwidth_GBps'"),
    "none is left": (["tp=1"], "no point"),
    "size": (["batch=1:100000", "prompt=1:100000"], "points"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_slip_is_one_sentence_before_anything_runs(case: str) -> None:
    grids, said = REFUSALS[case]
    base = {"model": "gpt2", "on": "hgx-h100"}
    with pytest.raises(InputError, match=said):
        run_sweep(sweep_of("run", base, grids, "tp > 99" if case == "none is left" else ""))


# Rows -------------------------------------------------------------------------------------


def test_a_sweep_of_one_point_equals_run() -> None:
    swept = run_sweep(sweep_of("run", {"model": "gpt2", "on": "hgx-h100"}, ["tp=2", "batch=3"]))
    result = run(
        Scenario(
            model="gpt2",
            on="hgx-h100",
            workload=Workload(batch=3),
            parallelism=Parallelism(tp=2),
        )
    )
    (row,) = swept.rows
    assert row is not None
    assert row["makespan_ps"] == result.makespan
    assert tuple(row[f"{s}_ps"] for s in STATES) == result.account.total
    assert sum(result.account.total) == 2 * result.makespan
    assert row["ttft_s"] == result.metrics.ttft_s
    assert row["flops"] == result.metrics.flops
    parts = [row[f"{phase}_{s}_ps"] for phase in ("prefill", "decode") for s in STATES]
    assert sum(parts) == 2 * result.makespan


def test_a_serving_sweep_of_one_point_equals_serve() -> None:
    swept = run_sweep(traffic("scheduler=prefill-first"))
    serving = Serving(
        model="gpt2",
        on="h100-sxm",
        traffic=RequestTraffic(arrivals="poisson:50", num_requests=150, output="fixed:16"),
        scheduler="prefill-first",
        slo=Slo(ttft_s=0.01),
    )
    found = summary(serve(serving))
    (row,) = swept.rows
    assert row is not None
    assert row["makespan_ps"] == found["makespan_ps"]
    assert row["ttft_p99_s"] == found["latency_s"]["ttft"]["p99"]
    assert {s: row[f"{s}_ps"] for s in STATES} == found["account_ps"]


def test_points_that_cannot_be_are_rows_with_the_reason() -> None:
    base = {"model": "llama-3.1-70b", "on": "hgx-h100"}
    grids = ["tp=1,5,8", "pp=1,2", "microbatches=1,2", "output=1", "prompt=8"]
    records = run_sweep(sweep_of("run", base, grids)).records()
    told = {(r["tp"], r["pp"], r["microbatches"]): (r["status"], r["reason"]) for r in records}
    assert told[1, 1, 1][0] == "out of memory"
    assert "141.1" in told[1, 1, 1][1]
    assert told[5, 1, 1][0] == "infeasible"
    assert "28672 mod 5" in told[5, 1, 1][1]
    assert told[8, 2, 1][0] == "infeasible"
    assert told[8, 1, 1] == ("ok", "")
    assert "cannot be split" in told[8, 1, 2][1]
    for record in records:
        assert record["makespan_ps"] if record["status"] == "ok" else record["reason"]


def test_every_column_is_filled_and_typed() -> None:
    for swept in (run_sweep(small()), run_sweep(traffic("rate=40,80"))):
        columns = kind_of(swept.sweep.kind).columns
        for row in swept.rows:
            assert row is not None
            if row["status"] == "ok":
                assert list(row) == list(columns)
                for name, column in columns.items():
                    assert row[name] is None or isinstance(row[name], column.kind), name


# Fronts and capacities --------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_the_front_is_what_no_other_point_beats(pairs: list[tuple[int, int]]) -> None:
    columns = kind_of("run").columns
    x, y = Metric("max:mfu", columns, ""), Metric("tpot_s", columns, "")
    records = [{"mfu": a, "tpot_s": b} for a, b in pairs]
    front = {(r["mfu"], r["tpot_s"]) for r in pareto(records, x, y)}

    def beaten(p: tuple[int, int]) -> bool:
        return any(q != p and q[0] >= p[0] and q[1] <= p[1] for q in pairs)

    assert front == {p for p in pairs if not beaten(p)}


def test_the_highest_rate_meets_the_slo_and_a_higher_one_does_not() -> None:
    (row,) = run_sweep(traffic(option="max-rate")).rows
    assert row is not None
    rate = row["max_rate"]
    assert row["slo_met"]
    just, over = run_sweep(traffic(f"rate={rate},{rate * 1.02}")).rows
    assert just is not None
    assert over is not None
    assert {**just, "max_rate": rate} == row
    assert not over["slo_met"]


def test_a_rate_moves_a_process_and_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    lines = [f"{0.5 * i},100,4" for i in range(21)]
    trace.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + "\n".join(lines) + "\n")
    base = {"model": "gpt2", "on": "h100-sxm", "traffic": {"trace": str(trace)}}
    slow, fast = run_sweep(sweep_of("serve", base, ["rate=2,40"])).rows
    assert slow is not None
    assert fast is not None
    assert 10e12 < slow["makespan_ps"] < 10.1e12  # two a second, as it is
    assert 0.5e12 < fast["makespan_ps"] < 0.6e12
    process = at_rate(RequestTraffic(arrivals="gamma:4:cv=2"), 7.5)
    assert process.arrivals == "gamma:7.5:cv=2"
    with pytest.raises(InputError, match="no one rate"):
        at_rate(RequestTraffic(arrivals="closed:4"), 7.5)


def test_what_a_file_holds_decides_a_row(tmp_path: Path) -> None:
    kind, keys = kind_of("serve"), Keys("serve", "")

    def key(**more: Any) -> str:
        made = {"model": "gpt2", "on": "h100-sxm", "traffic": {"arrivals": "poisson:4"}, **more}
        return keys(kind.decides(kind.prepare(made)))

    engine = tmp_path / "mine.toml"
    found = {key(), key(engine="vllm-0.12"), key(set={"hbm.bandwidth_GBps": 9.0}), key(seed=1)}
    for step in (5.0, 6.0):
        engine.write_text(f'name = "mine"\nstep_us = {step}\nsource = "made up for a test"\n')
        found.add(key(engine=str(engine)))
    assert len(found) == 6


# The same table, whoever computes it ------------------------------------------------------


def bytes_of(swept: Swept, folder: Path) -> bytes:
    folder.mkdir(exist_ok=True)
    write_sweep(swept, folder, "csv", None, "")
    return (folder / "sweep.csv").read_bytes()


def test_local_workers_give_the_same_table(tmp_path: Path) -> None:
    alone = run_sweep(small(LONG_WAY), workers=1)
    spread = run_sweep(small(LONG_WAY), workers=2)
    assert bytes_of(alone, tmp_path / "a") == bytes_of(spread, tmp_path / "b")


def test_closed_forms_are_kept_and_found_again(tmp_path: Path) -> None:
    first = run_sweep(small(), folder=tmp_path)
    again = run_sweep(small(), folder=tmp_path)
    assert (first.known, again.known) == (0, len(first.points))
    assert first.rows == again.rows


def test_only_what_is_missing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = small(LONG_WAY)
    whole = bytes_of(run_sweep(sweep, folder=tmp_path / "a", workers=1), tmp_path / "a")
    log = (tmp_path / "a" / "points.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "b").mkdir()
    torn = b"".join(log[:5]) + log[5][:40]  # a kill in the middle of a write
    (tmp_path / "b" / "points.jsonl").write_bytes(torn)
    asked = []

    def counted(kind: str, option: str, job: Any) -> Any:
        asked.extend(job)
        return compute(kind, option, job)

    monkeypatch.setattr("sim.studies.sweep.pools.compute", counted)
    resumed = run_sweep(sweep, folder=tmp_path / "b", workers=1)
    assert len(asked) == len(resumed.points) - 5
    assert resumed.known == 5
    assert bytes_of(resumed, tmp_path / "b") == whole
    asked.clear()
    # Another grid over the same points finds them, too, and a wider one only the rest.
    other = run_sweep(small(LONG_WAY, "seed=0,1"), folder=tmp_path / "b", workers=1)
    assert len(other.points) == 2 * len(resumed.points)
    assert not asked  # the seed of a static run decides nothing


def test_a_changed_number_is_another_point(tmp_path: Path) -> None:
    first = run_sweep(small("hbm.bandwidth_GBps=3350"), folder=tmp_path)
    second = run_sweep(small("hbm.bandwidth_GBps=3351"), folder=tmp_path)
    assert first.known == second.known == 0
    assert first.rows != second.rows


@pytest.mark.slow
def test_kill_dash_nine_at_any_moment(tmp_path: Path) -> None:
    grid = ["batch=2:41", "prompt=100,200", "output=6", "dp=2"]
    flags = [flag for text in grid for flag in ("--grid", text)]
    command = [COMMAND, "sweep", "gpt2", "--on", "hgx-h100", *flags]
    log = tmp_path / "out" / "points.jsonl"
    kept = 0
    for least in (1, 20):
        running = subprocess.Popen(
            [*command, "--out", tmp_path / "out", "--workers", "1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and running.poll() is None:
            if log.exists() and log.read_bytes().count(b"\n") >= least:
                break
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        found = log.read_bytes().count(b"\n")
        assert found >= max(least, kept)
        kept = found
    subprocess.run([*command, "--out", tmp_path / "out", "--no-pictures"], check=True)
    subprocess.run([*command, "--out", tmp_path / "new", "--no-pictures"], check=True)
    one, two = (tmp_path / name / "sweep.csv" for name in ("out", "new"))
    assert one.read_bytes() == two.read_bytes()


def suicidal(flag: Path, kind: str, option: str, job: Any) -> Any:
    """As `compute_away`, but the first worker that comes here dies."""
    try:
        flag.touch(exist_ok=False)
    except FileExistsError:
        return compute(kind, option, job)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_local_worker_that_dies_loses_no_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sim.studies.sweep.pools.compute_away", partial(suicidal, tmp_path / "died")
    )
    sweep = small(LONG_WAY)
    ready = [kind_of("run").prepare(document(sweep, p)) for p in points_of(sweep)]
    jobs = [[(n, one)] for n, one in enumerate(ready)]
    found = dict(pair for rows in run_jobs("run", "", jobs, 2, None) for pair in rows)
    assert (tmp_path / "died").exists()
    assert [found[n] for n in range(len(ready))] == run_sweep(sweep, workers=1).rows


def test_ctrl_c_leaves_a_table_and_the_rest_for_later(tmp_path: Path) -> None:
    command = [COMMAND, "sweep", "llama-3.1-8b", "--on", "h100-sxm", "--grid", "batch=1:1000"]
    command += ["--grid", "microbatches=1", "--grid", "detail=tile", "--grid", "output=1"]
    command += ["--out", str(tmp_path), "--no-pictures", "--workers", "2"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    log = tmp_path / "points.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (log.exists() and log.stat().st_size):
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "goes on from here" in said
    rows = (tmp_path / "sweep.csv").read_text().splitlines()
    assert 2 <= len(rows) < 1000
    assert len(log.read_text().splitlines()) == len(rows) - 1


def test_two_sweeps_do_not_write_one_folder(tmp_path: Path) -> None:
    from sim.studies.sweep.log import Log

    log = Log(tmp_path / "points.jsonl")
    try:
        with pytest.raises(InputError, match="another sweep"):
            run_sweep(small(), folder=tmp_path)
    finally:
        log.close()


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """(address, processes) of a scheduler and two workers on this machine."""
    file = folder / "scheduler.json"
    place = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}

    def start(name: str, *words: str) -> subprocess.Popen[bytes]:
        module = [sys.executable, "-m", f"distributed.cli.{name}", *place, *words]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(module, env=where, stdout=quiet, stderr=quiet)

    started = [start("dask_scheduler", "--port", "0")]
    try:
        for number in (0, 1):
            own = ["--local-directory", str(folder / f"w{number}"), "--nthreads", "1", "--no-nanny"]
            started.append(start("dask_worker", *own))
        until = time.monotonic() + 60
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], started
    finally:
        for one in started:
            one.kill()
            one.wait()


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_table_though_a_worker_dies(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    sweep = sweep_of(
        "run",
        {"model": "llama-3.1-8b", "on": "h100-sxm", "detail": "tile"},
        ["batch=1:24", "output=2", "allow_oom=true"],
    )
    with dask_cluster(tmp_path) as (address, started):
        seen = []

        def watch(done: int, total: int) -> None:
            seen.append(done)
            if len(seen) == 2:
                started[1].kill()

        spread = run_sweep(sweep, dask=address, watch=watch, folder=tmp_path / "log")
        assert started[1].wait(timeout=10) == -signal.SIGKILL
    assert spread.rows == run_sweep(sweep, workers=1).rows
    assert len((tmp_path / "log" / "points.jsonl").read_text().splitlines()) == 24


@pytest.mark.slow
def test_a_dask_scheduler_that_dies_is_one_sentence_and_the_sweep_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    words = ["sweep", "llama-3.1-8b", "--on", "h100-sxm", "--grid", "batch=1:300"]
    words += ["--grid", "detail=tile", "--grid", "output=2", "--no-pictures", "--out", str(out)]
    log = out / "points.jsonl"
    with dask_cluster(tmp_path) as (address, started):
        running = subprocess.Popen(
            [COMMAND, *words, "--dask", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and not (log.exists() and log.stat().st_size):
            time.sleep(0.05)
        started[0].kill()
        _, err = running.communicate(timeout=60)
    assert running.returncode == 2
    assert err.startswith("memorywall: --dask")
    assert "what is finished is kept" in err
    assert err.count("\n") == 1
    known = len(log.read_text().splitlines())
    assert 0 < known < 300
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, check=True)
    assert f"{known} of them were computed before" in done.stdout
    assert len((out / "sweep.csv").read_text().splitlines()) == 301


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "nowhere"])
def test_a_scheduler_that_does_not_answer_is_told_first(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every point has a closed form, and nothing would be sent to it."""
    pytest.importorskip("distributed")
    monkeypatch.setattr("sim.studies.sweep.pools.ANSWER", "500ms")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match="no scheduler answers there"):
        run_sweep(small(), folder=tmp_path / "out", dask=address.format(port=port))
    assert not (tmp_path / "out").exists()


# The command ------------------------------------------------------------------------------


def test_a_slip_in_a_condition_is_told_before_anything_runs(tmp_path: Path) -> None:
    call = ["sweep", "gpt2", "--on", "l4", "--grid", "batch=1,2", "--having", "ttft <= 1"]
    done = subprocess.run(
        [COMMAND, *call, "--out", tmp_path / "o"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no column 'ttft'; did you mean" in done.stderr
    assert "'ttft_s'" in done.stderr
    assert not done.stdout
    assert not (tmp_path / "o").exists()


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    grid = ["--grid", "tp=1,2,5", "--grid", "batch=1,8", "--grid", "output=4"]
    done = subprocess.run(
        [
            COMMAND,
            "sweep",
            "gpt2",
            "--on",
            "hgx-h100",
            *grid,
            "--out",
            tmp_path,
            "--format",
            "parquet",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for word in ("6 points: 4 ok, 2 infeasible", "Pareto front", "mod 5", "written to"):
        assert word in done.stdout
    import polars as pl

    frame = pl.read_parquet(tmp_path / "sweep.parquet")
    assert frame["tp"].to_list() == [1, 1, 2, 2, 5, 5]
    assert frame["status"].to_list().count("ok") == 4
    assert (tmp_path / "front.png").stat().st_size > 10_000


def test_the_kind_follows_from_the_file_or_the_grid(tmp_path: Path) -> None:
    assert base_of("gpt2", "t4", [], ["batch=1"])[0] == "run"
    assert base_of("gpt2", "t4", [], ["arrivals=poisson:4"])[0] == "serve"
    file = tmp_path / "serving.toml"
    file.write_text('model = "gpt2"\non = "t4"\n[traffic]\narrivals = "poisson:4"\n')
    assert base_of(str(file), None, [], ["tp=1"])[0] == "serve"


@settings(max_examples=5)
@given(st.integers(1, 5), st.integers(1, 40))
def test_a_document_changes_only_its_axes(batch: int, prompt: int) -> None:
    sweep = sweep_of(
        "run",
        {"model": "m", "on": "d", "workload": {"batch": 7, "output": 3}},
        [f"batch={batch}", f"prompt={prompt}", "hbm.bandwidth_GBps=9"],
    )
    made = document(sweep, (batch, prompt, 9))
    assert made["workload"] == {"batch": batch, "output": 3, "prompt": prompt}
    assert made["set"] == {"hbm.bandwidth_GBps": 9}
    assert sweep.base["workload"] == {"batch": 7, "output": 3}


def test_an_axis_takes_factors() -> None:
    base = {"model": "gpt2", "on": "h100-sxm", "workload": {"output": 2}}
    plain = sweep_of("run", base, ["hbm.bandwidth_GBps=3350,6700"])
    factors = sweep_of("run", base, ["hbm.bandwidth_GBps=*1,*2"])
    assert factors.axes[0].values == plain.axes[0].values
    with pytest.raises(InputError, match="no value is stated to multiply"):
        sweep_of("run", base, ["on_chip.L2.bandwidth_GBps=*1,*2"])
