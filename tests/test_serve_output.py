"""What a serving run writes: exact sums, the same bytes each time, and numbers checked by hand."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
from collections import defaultdict
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from commands import content
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from serving import Case, Prices
from serving import Run as Served
from serving import run as served_by

from sim import Scenario
from sim.engine.processes import Engine
from sim.errors import InputError
from sim.inputs.documents import convert
from sim.inputs.traces import read_trace
from sim.mapping.parallelism import Parallelism
from sim.scenario import resolve
from sim.serve import columns, serving
from sim.serve.busy_periods import busy_periods
from sim.serve.columns import PART_COLUMNS, STATE_COLUMNS, RequestColumns, StepColumns
from sim.serve.columns import collect_steps as write_steps
from sim.serve.config import RequestTraffic, Serving
from sim.serve.knobs import Knobs, Slo
from sim.serve.latency import PERCENTILES, exact_sum, percentiles, spread
from sim.serve.live import PARTS, Finished, Outcome, StepRow
from sim.serve.memory import Blocks
from sim.serve.output import ServeFiles, print_summary, write_serve
from sim.serve.plots import BINS, PART_COLOURS, binned, plot_time, request_bars
from sim.serve.policies import policy
from sim.serve.pricing import Pricer
from sim.serve.record import ServeRecord
from sim.serve.replica import Recorder, Replica, ReplicaParts
from sim.serve.single_stage import SingleStageWorker
from sim.serve.summary import Fleet, device_account, summarise
from sim.serve.trace import FIRST_DEVICE, FIRST_STEPS, write_window
from sim.states import STATES
from tests.trace_format import NANO, check_trace, tick
from workloads.request import Request

S = 10**12  # ticks per second
BLOCKS = 60  # few enough that requests are preempted
AZURE = Path(__file__).parents[2] / "shared/data/traces/AzureLLMInferenceTrace_conv.csv"


class Run(msgspec.Struct):
    requests: RequestColumns
    steps: list[StepColumns]
    outcomes: list[Outcome]
    summary: dict[str, Any]
    finished: list[Finished]
    rows: list[StepRow]

    @property
    def makespan(self) -> int:
        return max(o.end for o in self.outcomes)


def serve(scenario: Scenario, stream: list[Request], replicas: int, blocks: int) -> Run:
    """Round robin over replicas, everything kept."""
    requests, steps = RequestColumns(), [StepColumns(i) for i in range(replicas)]
    finished: list[Finished] = []
    rows: list[StepRow] = []
    pricer, knobs = Pricer(resolve(scenario)), Knobs()

    def leaves(row: Finished) -> None:
        requests.append(row)
        finished.append(row)

    def stepped(number: int, row: StepRow) -> None:
        steps[number].append(row)
        rows.append(row)

    engine, made = Engine(), []
    for i in range(replicas):
        parts = ReplicaParts(
            pricer=pricer,
            policy=policy("chunked"),
            knobs=knobs,
            blocks=Blocks(blocks, knobs.block_size, False),
        )
        recorder = Recorder(partial(stepped, i), leaves)
        made.append(Replica(parts, SingleStageWorker(parts), recorder, i))
        made[-1].start(engine)
    for request in stream:
        if request.arrival > engine.now:
            engine.run(request.arrival)
        made[request.index % replicas].push(request)
    engine.run()
    outcomes = [r.outcome(0, 0) for r in made]
    run = Run(requests, steps, outcomes, {}, finished, rows)
    run.summary = summary_of(run, blocks)
    return run


def summary_of(run: Run, blocks: int = BLOCKS, slo: Slo | None = None) -> dict[str, Any]:
    return summarise(
        run.requests,
        run.outcomes,
        Fleet(len(run.outcomes), 1, 1e15, 3.35e12, blocks),
        run.makespan,
        slo=slo,
        steps=run.steps,
    )


def stream(count: int, seed: int = 0) -> list[Request]:
    draw = np.random.default_rng(seed)
    gaps = draw.exponential(0.004 * S, count)
    at = np.cumsum(gaps).astype(int)
    sizes = draw.integers((1, 1), (400, 60), (count, 2))
    return [
        Request(i, int(at[i]), int(p), int(o), id=f"r,{i}" if i % 3 else "")
        for i, (p, o) in enumerate(sizes)
    ]


GPT2 = Scenario(model="gpt2", on="h100-sxm")


@pytest.fixture(scope="module")
def run() -> Run:
    # The last one can never fit.
    made = serve(GPT2, [*stream(60), Request(60, S, 2000, 1)], replicas=2, blocks=BLOCKS)
    assert made.summary["preemptions"] > 0
    assert made.summary["refused"] == 1
    return made


def test_every_picosecond_of_a_request_is_in_its_row(run: Run) -> None:
    frame = run.requests.frame()
    assert frame["index"].to_list() == list(range(60))
    assert frame.columns[:3] == ["index", "id", "replica"]
    account = frame.select(pl.sum_horizontal(PART_COLUMNS)).to_series()
    assert (account == frame["last_token_ps"] - frame["arrival_ps"]).all()
    assert sum(run.summary["request_account_ps"].values()) == account.sum()
    spent = sum(store.column("duration_ps").sum() for store in run.steps)
    assert frame["device_share_ps"].sum() == spent
    for row in run.finished:
        got = frame.row(row.index, named=True)
        assert got["ttft_s"] == row.ttft / S
        assert got["tpot_s"] == row.tpot / S
        assert got["e2e_s"] == row.e2e / S
        assert got["arrival_s"] == row.arrival / S
        assert (got["prompt_tokens"], got["output_tokens"]) == (row.prompt, row.output)
        assert tuple(got[c] for c in PART_COLUMNS) == row.account
        assert got["id"] == row.id


def test_steps_are_written_as_they_were(run: Run) -> None:
    frame = pl.concat([store.frame() for store in run.steps])
    assert frame.height == len(run.rows)
    assert frame["replica"].is_sorted()
    states = frame.select(pl.sum_horizontal(STATE_COLUMNS)).to_series()
    assert (states == frame["duration_ps"]).all()
    assert frame["flops"].sum() == run.summary["flops"]
    assert frame["hbm_bytes"].sum() == run.summary["hbm_bytes"]


def test_device_states_sum_to_the_makespan_of_all_devices(run: Run) -> None:
    for tp in (1, 4):
        states = device_account(run.outcomes, tp, run.makespan)
        assert sum(states) == run.makespan * 2 * tp
    assert len({o.end for o in run.outcomes}) == 2  # one of them is padded
    assert sum(run.summary["account_ps"].values()) == run.makespan * 2
    assert sum(run.summary["account_share"].values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="of a makespan of 5"):
        device_account(run.outcomes, 1, 5)


def test_percentiles_are_those_of_numpy(run: Run) -> None:
    frame = run.requests.frame()
    two = frame.filter(frame["output_tokens"] > 1)
    assert two.height < frame.height
    for name, values in (
        ("ttft", frame["ttft_s"]),
        ("tpot", two["tpot_s"]),
        ("e2e", frame["e2e_s"]),
        ("queuing_delay", frame["queuing_delay_s"]),
    ):
        row = run.summary["latency_s"][name]
        assert row["count"] == len(values)
        for p in (50, 90, 95, 99):
            assert row[f"p{p}"] == np.percentile(values.to_numpy(), p)
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert row["max"] == values.max()
    assert run.summary["tokens_per_s_per_user"] == 1 / run.summary["latency_s"]["tpot"]["mean"]


def test_a_table_read_back_gives_the_same_summary(run: Run, tmp_path: Path) -> None:
    frame = pl.read_parquet(run.requests.collect(tmp_path / "requests.parquet"))
    again = msgspec.structs.replace(run, requests=frame)  # type: ignore[arg-type]
    assert summary_of(again) == run.summary


def test_csv_and_parquet_hold_the_same(run: Run, tmp_path: Path) -> None:
    for write in (run.requests.collect, lambda path: write_steps(run.steps, path)):
        parquet = pl.read_parquet(write(tmp_path / "table.parquet"))
        text = write(tmp_path / "table.csv").read_text("utf-8")
        head, *lines = csv.reader(io.StringIO(text))
        assert head == parquet.columns
        kinds = [type(cell) for cell in parquet.row(0)]
        cells = [tuple(k(c) for k, c in zip(kinds, line, strict=True)) for line in lines]
        assert cells == parquet.rows()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["table.csv", "table.parquet"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_spilled_rows_come_out_as_the_same_bytes(
    run: Run, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "WINDOW", 8)
    expected = run.requests.collect(tmp_path / f"kept.{kind}").read_bytes()
    first, second = RequestColumns(), RequestColumns()
    first.spill(tmp_path / "first", rows=7)
    second.spill(tmp_path / "second", rows=5)
    for number, row in enumerate(run.finished):
        (first, second)[number % 2].append(row)
    assert len(first.parts) == 4
    assert len(first) + len(second) == 60
    both = pickle.loads(pickle.dumps(second))  # as it comes from another process
    both.absorb(first)
    assert len(both) == 60
    assert both.collect(tmp_path / f"spilled.{kind}").read_bytes() == expected
    assert sorted(both.column("index")) == list(range(60))

    expected = write_steps(run.steps, tmp_path / f"steps.{kind}").read_bytes()
    again = [StepColumns(i) for i in (1, 0)]
    for store, kept in zip(again, reversed(run.steps), strict=True):
        store.spill(tmp_path / "steps", rows=11)
        for replica, _, _, *cells in kept.frame().iter_rows():
            assert replica == kept.replica
            store.append(StepRow(*cells[:7], tuple(cells[7:12]), *cells[12:]))
        assert store.parts
    assert write_steps(again, tmp_path / f"steps.{kind}").read_bytes() == expected


def test_without_ids_there_is_no_column_of_ids(run: Run, tmp_path: Path) -> None:
    plain = RequestColumns()
    plain.spill(tmp_path, rows=16)
    for row in run.finished:
        plain.append(msgspec.structs.replace(row, id=""))
    assert "id" not in plain.frame().columns
    assert plain.frame().equals(run.requests.frame().drop("id"))


def tiny(first: list[float], tpot: list[float]) -> pl.DataFrame:
    """Requests of 11 tokens that came at 0."""
    store = RequestColumns()
    for i, (t, gap) in enumerate(zip(first, tpot, strict=True)):
        begin, end = round(t * S), round(t * S) + round(10 * gap * S)
        account = (begin, end - begin, 0, 0, 0, 0, 0, 0)
        store.append(Finished(i, "", 0, 0, begin, begin, end, 5, 11, 0, 0, 1, account))
    return store.frame()


def test_goodput_by_hand() -> None:
    # TTFT 1, 1, 2, 3 s and TPOT 0.1, 0.3, 0.1, 0.1 s: with bounds of 2 s and 0.2 s the first and
    # the third are good; one was refused; 10 s in all.
    requests = tiny([1, 1, 2, 3], [0.1, 0.3, 0.1, 0.1])
    outcome = Outcome(0, 10 * S, ((4 * S, 0, 0, 0, 0, 0, 6 * S),), 9, 4, 1, 0, 8, 2, 20, 44)
    made = summarise(
        requests,
        [outcome],
        Fleet(devices=2, tp=2, matrix_peak_flops=1.0, hbm_bandwidth=0.4),
        10 * S,
        slo=Slo(ttft_s=2.0, tpot_s=0.2, attainment=0.4),
    )
    good = made["goodput"]
    assert good["good_requests"] == 2
    assert good["goodput"] == 0.2
    assert good["attainment"] == 0.4
    assert good["met"]
    assert good["attainment_by_bound"] == {"ttft": 3 / 5, "tpot": 3 / 5}
    assert made["request_throughput"] == 0.4
    assert made["generation_throughput"] == 4.4
    assert made["prompt_throughput"] == 2.0
    assert made["tokens_per_s_per_device"] == 2.2
    assert made["tokens_per_s_per_user"] == pytest.approx(1 / 0.15)
    assert made["mfu"] == 0.8  # 8 FLOP on each of two ranks, 1 FLOP/s each, 10 s
    assert made["mbu"] == 0.5
    assert made["latency_s"]["ttft"]["p50"] == 1.5
    assert made["account_ps"] == dict(zip(STATES, (8 * S, 0, 0, 0, 0, 0, 12 * S), strict=True))
    assert made["kv_cache_usage"] is None
    with pytest.raises(ValueError, match="devices = 3"):
        summarise(
            requests,
            [outcome],
            Fleet(devices=3, tp=2, matrix_peak_flops=1.0, hbm_bandwidth=1.0),
            10 * S,
        )
    with pytest.raises(InputError, match="ttft_s"):
        convert({"ttft_s": -1.0}, Slo, "slo.toml")


def test_sums_go_beyond_64_bits() -> None:
    large = np.full(1000, 2**62 + 3, np.int64)
    assert exact_sum(large) == 1000 * (2**62 + 3)
    assert exact_sum(np.array([-5, 3], np.int64)) == -2
    assert spread(lambda: iter([large]))["mean"] == pytest.approx((2**62 + 3) / S)
    assert spread(lambda: iter([large[:0]]))["p99"] is None


def test_the_same_run_writes_the_same_bytes(run: Run, tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        again = serve(GPT2, [*stream(60), Request(60, S, 2000, 1)], replicas=2, blocks=BLOCKS)
        files = write_serve(
            tmp_path / name,
            config={"seed": 1, "model": "gpt2"},
            summary=again.summary,
            record=ServeRecord(again.requests, again.steps, kv_blocks_total=BLOCKS),
            files=ServeFiles(title="gpt2", trace_window=(0, S // 10)),
        )
        assert sorted(content(tmp_path / name)) == sorted(p.name for p in files)
        made.append({p.name: p.read_bytes() for p in files})
    assert made[0] == made[1]
    assert list(made[0])[:5] == [
        "config.json",
        "summary.json",
        "requests.csv",
        "steps.csv",
        "trace.json.gz",
    ]
    assert {"latencies.png", "requests.svg", "time.png"} < set(made[0])
    config = json.loads(made[0]["config.json"])
    assert config["seed"] == 1
    assert config["memorywall"]
    assert json.loads(made[0]["summary.json"]) == run.summary


def test_a_run_that_finished_nothing_is_a_valid_result(tmp_path: Path) -> None:
    nothing = Outcome(0, 0, ((0,) * 7,), 0, 0, 0, 0, 0, 0, 0, 0)  # type: ignore[arg-type]
    empty = Run(RequestColumns(), [StepColumns(0)], [nothing], {}, [], [])
    empty.summary = summary_of(empty)
    for kind in ("csv", "parquet"):
        files = write_serve(
            tmp_path / kind,
            config={},
            summary=empty.summary,
            record=ServeRecord(empty.requests, empty.steps),
            files=ServeFiles(kind),
        )
        assert [p.stem for p in files] == ["config", "summary", "requests", "steps"]
    assert pl.read_csv(tmp_path / "csv/requests.csv").columns == empty.requests.frame().columns
    assert pl.read_parquet(tmp_path / "parquet/steps.parquet").height == 0
    print_summary(empty.summary, Console(file=io.StringIO()))


def test_the_terminal_shows_the_account_and_mfu_next_to_mbu(run: Run) -> None:
    text = io.StringIO()
    shown = summary_of(run, slo=Slo(ttft_s=0.05, e2e_s=0.5))
    print_summary(shown, Console(file=text, width=120))
    for part in ("1 refused", "MFU", "MBU", "TTFT", "p99", "Where the device time goes"):
        assert part in text.getvalue()
    assert "goodput" in text.getvalue()
    assert "preempted" in text.getvalue()


def test_the_picture_over_time_adds_up(run: Run) -> None:
    edges = np.linspace(0, run.makespan, 51)
    found = binned(run.requests, run.steps, edges)
    whole = sum(found[s] for s in STATES)
    assert whole == pytest.approx(np.ones(50), abs=1e-9)
    for state in STATES:
        share = run.summary["account_share"][state]
        assert found[state].mean() == pytest.approx(share, abs=1e-9)
    blocks = sum(exact_sum(s.column("kv_blocks") * s.column("duration_ps")) for s in run.steps)
    assert found["kv_blocks"].mean() == pytest.approx(blocks / run.makespan)
    staged = binned(run.requests, run.steps, edges, stages=2)
    present = 1 - staged["idle"]
    assert staged["bubble"].max() > 0.3  # the second stage is never seen to work
    assert (present >= staged["bubble"]).all()
    assert found["idle"].min() >= 0


def piped() -> Served:
    """Two requests on two stages, so far apart that each is alone."""
    requests = (Request(0, 0, 5, 4), Request(1, 10**6, 5, 4))
    return served_by(Case(requests=requests, pp=2), Prices(lambda *_: 100, 2))


def stored(served: Served) -> tuple[RequestColumns, StepColumns]:
    requests, steps = RequestColumns(), StepColumns(0)
    for row in served.rows:
        requests.append(row)
    for step in served.steps:
        steps.append(step)
    return requests, steps


def test_what_runs_in_later_stages_is_in_the_picture() -> None:
    """A request alone on two stages runs all the time, not half of it."""
    served = piped()
    requests, steps = stored(served)
    end = served.rows[0].last_token
    found = binned(requests, [steps], np.linspace(0, end, 41), stages=2)
    assert found["running"] == pytest.approx(np.ones(40))
    assert found["kv_blocks"] == pytest.approx(np.ones(40))
    begins, ends = busy_periods(requests, 0)
    assert [(b, e) for b, e in zip(begins, ends, strict=True)] == [
        (row.arrival, row.last_token) for row in served.rows
    ]


def test_counters_hold_until_nobody_is_in_any_stage(tmp_path: Path) -> None:
    served = piped()
    requests, steps = stored(served)
    split = Parallelism(pp=2)
    path = write_window(
        tmp_path / "t.json", ServeRecord(requests, [steps], split=split), (0, 2 * 10**6)
    )
    document = json.loads(path.read_text(), parse_float=Decimal)
    running = [
        (tick(e["ts"]), e["args"]["requests"])
        for e in document["traceEvents"]
        if e["ph"] == "C" and e["name"] == "running"
    ]
    wanted = [t for row in served.rows for t in ((row.scheduled, 1), (row.last_token, 0))]
    assert running == wanted


def test_waiting_is_seen_while_no_step_runs() -> None:
    """A batch that is being gathered waits."""
    knobs = Knobs(max_wait_ms=1e-6)  # 1000 ticks
    served = served_by(Case(requests=(Request(0, 0, 5, 0),), knobs=knobs, scheduler="dynamic"))
    requests, steps = stored(served)
    found = binned(requests, [steps], np.array([0.0, 500.0, 1000.0]))
    assert found["waiting"] == pytest.approx(np.ones(2))


def test_blocks_in_use_are_a_share_of_those_of_all_replicas(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr("sim.serve.plots.save", lambda fig, stem: drawn.append(fig) or [])
    record = ServeRecord(run.requests, run.steps, kv_blocks_total=100)
    plot_time(record, run.makespan, tmp_path)
    share = drawn[0].axes[2].lines[0].get_ydata()
    found = binned(run.requests, run.steps, np.linspace(0, run.makespan, BINS + 1))
    assert share == pytest.approx(found["kv_blocks"] / 100)


def test_bars_of_requests_hold_everyone_once(run: Run) -> None:
    bars = request_bars(run.requests)
    assert sum(count for _, count, _ in bars) == 60
    assert bars[0][0].startswith("0")
    total = sum(count * sum(parts.values()) for _, count, parts in bars)
    assert total == pytest.approx(sum(row.e2e for row in run.finished))
    assert set(PART_COLOURS) == set(PARTS)
    assert len(set(PART_COLOURS.values())) == len(PARTS)


def test_laws_of_the_trace(run: Run, tmp_path: Path) -> None:
    window = (S // 20, S // 10)
    path = write_window(tmp_path / "t.json.gz", ServeRecord(run.requests, run.steps), window, 5)
    document = json.loads(gzip.decompress(path.read_bytes()), parse_float=Decimal)
    inside = [r for r in run.finished if r.arrival < window[1] and r.last_token > window[0]]
    assert len(inside) > 5
    assert document["otherData"]["requests"].startswith(f"5 of {len(inside)} ")
    check_trace(document["traceEvents"])
    tracks = defaultdict(list)
    counters = defaultdict(list)
    for e in document["traceEvents"]:
        if e["ph"] == "X":
            begin = tick(e["ts"])
            tracks[e["pid"], e["tid"]].append((begin, begin + tick(e["dur"]), e["name"], e["args"]))
        elif e["ph"] == "C":
            counters[e["pid"], e["name"]].append((e["ts"], *e["args"].values()))
    for replica in (0, 1):
        states, steps = tracks[replica, FIRST_DEVICE], tracks[replica, FIRST_STEPS]
        assert all(a[1] <= b[0] for lane in (states, steps) for a, b in pairwise(lane))
        assert all(b < window[1] and e > window[0] for b, e, _, _ in steps)
        assert {name for _, _, name, _ in steps} <= {"prefill", "decode", "mixed"}
        assert sum(e - b for b, e, _, _ in states) == sum(e - b for b, e, _, _ in steps)
        for begin, end, _, args in steps:
            told = sum(tick(v) for k, v in args.items() if k.endswith("_us"))
            assert told == end - begin
        for name in ("running", "waiting", "kv_blocks"):
            found = counters[replica, name]
            assert found[-1][1] == 0
            assert all(a[0] < b[0] and a[1] != b[1] for a, b in pairwise(found))
    for tid, row in enumerate(sorted(inside, key=lambda r: r.index)[:5], 1):
        outer, *phases = tracks[2, tid]
        assert outer[:2] == (row.arrival // NANO * NANO, row.last_token // NANO * NANO)
        assert sum(e - b for b, e, _, _ in phases) == row.e2e
        told = sum(tick(v) for k, v in outer[3].items() if k.endswith("_us"))
        assert told == row.e2e


@pytest.mark.skipif(not AZURE.exists(), reason=f"the sample {AZURE.name} is not here")
def test_the_start_of_the_azure_trace() -> None:
    requests = list(read_trace(AZURE))[:200]
    made = serve(Scenario(model="llama-2-7b", on="a100-sxm-80gb"), requests, 1, 8000)
    frame = made.requests.frame()
    assert frame.height == 200
    assert frame["output_tokens"].sum() == sum(r.output for r in requests)
    assert sum(made.summary["account_ps"].values()) == made.makespan
    assert 0 < made.summary["mfu"] < made.summary["mbu"] < 1


@given(
    st.lists(st.one_of(st.integers(0, 2**40), st.sampled_from([0, 1, 7, 2**39])), min_size=1),
    st.integers(1, 9),
    st.lists(st.floats(0, 100), min_size=1, max_size=4),
)
def test_percentiles_of_blocks_are_those_of_numpy(
    ticks: list[int], size: int, wanted: list[float]
) -> None:
    values = np.array(ticks) / S
    blocks = [values[i : i + size] for i in range(0, len(values), size)]
    found = percentiles(lambda: iter(blocks), len(values), wanted)
    assert found == np.percentile(values, wanted).tolist()


def test_a_summary_of_parts_is_that_of_rows_in_memory(tmp_path: Path) -> None:
    run = serving.serve(
        Serving(
            model="gpt2",
            on="h100-sxm",
            traffic=RequestTraffic(arrivals="poisson:50", output="uniform:1-9", num_requests=400),
        )
    )
    parts = RequestColumns()
    parts.spill(tmp_path, rows=37)
    width = 8 * len(parts.names)
    for at in range(0, len(run.requests.rows), width):
        parts.rows += run.requests.rows[at : at + width]
        parts.ids.append("")
        if len(parts.rows) >= parts.limit:
            parts._write()
    assert len(parts.parts) == 10
    slo = Slo(ttft_s=0.01, tpot_s=0.001)
    made = [
        summarise(rows, run.outcomes, Fleet(1, 1, 1e15, 3e12), run.makespan, slo=slo)
        for rows in (run.requests, parts, run.requests.frame())
    ]
    assert made[0] == made[1] == made[2]
    e2e = run.requests.column("last_token_ps") - run.requests.column("arrival_ps")
    assert made[0]["latency_s"]["e2e"]["p99"] == np.percentile(e2e / S, 99)
    assert PERCENTILES[-1] == 99
