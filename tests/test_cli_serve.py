"""`memorywall serve`: results in a folder, refusals, the long way, Ctrl-C."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import in_process
from typer.testing import CliRunner

from sim.cli.app import app
from sim.serve.config import RequestTraffic, Serving
from sim.serve.serving import serve
from sim.serve.session import share_done
from sim.serve.shard import Reached

COMMAND = Path(sys.executable).with_name("memorywall")
TRAFFIC = ["--arrivals", "poisson:8", "--prompt", "uniform:16-400", "--output", "uniform:1-40"]


def memorywall(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, "serve", *args], capture_output=True, text=True, check=False)


def test_it_prints_latencies_and_writes_a_folder(tmp_path: Path) -> None:
    done = memorywall(
        *("gpt2", "--on", "h100-sxm", *TRAFFIC, "--num-requests", "50"),
        *("--slo-ttft", "1", "--out", str(tmp_path), "--no-pictures", "--trace-window", "0:2"),
    )
    assert done.returncode == 0, done.stderr
    for word in ("TTFT", "p99", "MFU", "MBU", "goodput", "Where the time of a request goes"):
        assert word in done.stdout
    with (tmp_path / "requests.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(50))
    for row in rows:
        parts = ("queue", "compute", "hbm", "sram", "link", "launch", "bubble", "preempted")
        spent = sum(int(row[f"{part}_ps"]) for part in parts)
        assert spent == int(row["last_token_ps"]) - int(row["arrival_ps"])
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 42
    assert (tmp_path / "trace.json.gz").exists()


@pytest.mark.parametrize(
    "scheduler",
    ["chunked", *(pytest.param(n, marks=pytest.mark.slow) for n in ("prefill-first", "static"))],
)
def test_the_long_way_writes_the_same_bytes(tmp_path: Path, scheduler: str) -> None:
    for name, flag in (("short", "--shortcuts"), ("long", "--no-shortcuts")):
        done = memorywall(
            *("gpt2", "--on", "a100-sxm-80gb", *TRAFFIC, "--num-requests", "12", flag),
            *("--scheduler", scheduler, "--kv-blocks", "40", "--set", "model.n_layer=2"),
            *("--out", str(tmp_path / name), "--no-pictures"),
        )
        assert done.returncode == 0, done.stderr
    for file in ("requests.csv", "steps.csv"):
        assert (tmp_path / "short" / file).read_bytes() == (tmp_path / "long" / file).read_bytes()


REFUSALS = {
    "scheduler": (["--scheduler", "chunky", *TRAFFIC], "did you mean 'chunked'"),
    "router": (["--router", "roundrobin", *TRAFFIC], "did you mean 'round-robin'"),
    "order": (["--order", "lifo", *TRAFFIC], "fcfs, priority, shortest"),
    "arrivals": (["--arrivals", "poison:3"], "did you mean 'poisson'"),
    "no traffic": ([], "--trace FILE or --arrivals"),
    "trace": (["--trace", "missing.csv"], "missing.csv: cannot be read"),
    "window": ([*TRAFFIC, "--window", "5"], "FROM:TO"),
    "budget": ([*TRAFFIC, "--max-num-seqs", "5000"], "max_num_batched_tokens = 2048"),
    "replicas": ([*TRAFFIC, "--replicas", "0"], "replicas"),
    "dp": ([*TRAFFIC, "--tp", "5"], "3072 mod 5"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_mistake_is_one_sentence_and_exit_code_2(case: str) -> None:
    args, expected = REFUSALS[case]
    done = in_process("serve", "gpt2", "--on", "hgx-h100", *args)
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_bad_row_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n0,100,4\n1,-5,4\n2,100,4\n")
    args = ("gpt2", "--on", "h100-sxm", "--trace", str(trace))
    failed = in_process("serve", *args)
    assert failed.returncode == 2
    assert "line 3" in failed.stderr
    assert "column `prompt_tokens` = '-5'" in failed.stderr
    skipped = in_process("serve", *args, "--on-bad-row", "skip")
    assert skipped.returncode == 0, skipped.stderr
    assert "1 bad row skipped" in skipped.stdout
    assert "2 requests" in skipped.stdout


TRACE = "arrival_s,prompt_tokens,output_tokens,id\n"


@pytest.mark.parametrize(
    ("rows", "flags", "said"),
    [
        ("0,100,4,a\n", ["--prompt", "fixed:3"], "prompt: said of synthetic traffic"),
        ("0,100,4,a\n", ["--num-requests", "3"], "num_requests: said of synthetic traffic"),
        ("0,100,4,a\n", ["--window", "5:6"], "t.csv: no request in the window"),
        ("", [], "t.csv: no request"),
    ],
)
def test_traffic_that_makes_no_sense_is_refused(
    tmp_path: Path, rows: str, flags: list[str], said: str
) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text(TRACE + rows)
    done = in_process("serve", "gpt2", "--on", "h100-sxm", "--trace", str(trace), *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_progress_tells_of_the_bytes_of_a_trace_and_of_requests(tmp_path: Path) -> None:
    text = TRACE + "".join(f"{i},100,4,a\n" for i in range(4_000))
    for name, content in (("t.csv", text.encode()), ("t.csv.gz", gzip.compress(text.encode()))):
        path = tmp_path / name
        path.write_bytes(content)
        traffic = RequestTraffic(trace=str(path))
        seen: list[Reached] = []
        serving = Serving(model="gpt2", on="h100-sxm", traffic=traffic, keep_steps=False)
        serve(serving, seen.append)
        taken = [at.bytes_read for at in seen]
        assert taken == sorted(taken)
        assert taken[-1] == path.stat().st_size
        shares = [share_done(traffic)(at) for at in seen]
        assert all(0 < share <= 1 for share in shares)
        assert shares[-1] == 1
    drawn = RequestTraffic(arrivals="poisson:5", num_requests=200)
    assert share_done(drawn)(Reached(50, 1.0, 0)) == 0.25


def test_what_can_never_fit_is_named_and_the_rest_served(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text(TRACE + "0,100,4,a\n1,9000,4,long one\n2,100,4,b\n")
    done = memorywall(
        *("gpt2", "--on", "h100-sxm", "--trace", str(trace), "--kv-blocks", "20"),
        *("--out", str(tmp_path / "out"), "--no-pictures"),
    )
    assert done.returncode == 0, done.stderr
    assert "1 request can never fit into the KV memory, by number: 1 (long one)" in done.stdout
    found = json.loads((tmp_path / "out" / "config.json").read_text())["refused_requests"]
    assert found == [{"index": 1, "id": "long one", "tokens": 9004}]


PLUG_INS = """
from sim.serve.policies import ChunkedPrefill, Work

class Mine(ChunkedPrefill):
    pass

class Idle:
    def plan(self, replica):
        return Work([], False)

def far(request, replicas):
    return 7
"""


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--scheduler", "own_policies:Mine"], None),
        (["--scheduler", "own_policies:Idle"], "own_policies:Idle planned nothing"),
        (["--router", "own_policies:far"], "'own_policies:far' sent request 0 to replica 7"),
        (["--scheduler", "own_broken:Mine"], "cannot be imported: it raised SyntaxError"),
    ],
)
def test_plug_ins_of_the_folder_at_hand(tmp_path: Path, flags: list[str], said: str | None) -> None:
    (tmp_path / "own_policies.py").write_text(PLUG_INS)
    (tmp_path / "own_broken.py").write_text("def x(:")
    few = ("--num-requests", "5")
    done = subprocess.run(
        [COMMAND, "serve", "gpt2", "--on", "h100-sxm", *TRAFFIC, *few, *flags],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    if said is None:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_lengths_are_drawn_from_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n")
    with trace.open("a") as file:
        file.write("100,4,104,25.0\n200,8,208,25.0\n")
    traffic = RequestTraffic(arrivals="poisson:8", prompt=f"trace:{trace}", num_requests=40)
    rows = serve(Serving(model="gpt2", on="h100-sxm", traffic=traffic)).requests.frame()
    drawn = set(zip(rows["prompt_tokens"], rows["output_tokens"], strict=True))
    assert drawn == {(100, 4), (200, 8)}


def test_ctrl_c_leaves_a_valid_result(tmp_path: Path) -> None:
    """Two workers write how far they are: the signal comes when a hundred requests are served."""
    many = ["--num-requests", "2000000", "--replicas", "2", "--no-steps", "--no-pictures"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    running = subprocess.Popen(
        [COMMAND, "serve", "gpt2", "--on", "h100-sxm", *TRAFFIC, *many, "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and running.poll() is None:
        told = [p.read_text().split() for p in scratch.glob("*/progress-*")]
        if any(words and int(words[0]) > 100 for words in told):
            break
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert "interrupted" in said
    assert json.loads((tmp_path / "config.json").read_text())["interrupted"] is True
    with (tmp_path / "requests.csv").open() as file:
        assert sum(1 for _ in file) > 100


def test_replicas_over_processes_are_the_same_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    serving = Serving(
        model="gpt2",
        on="h100-sxm",
        traffic=RequestTraffic(arrivals="poisson:40", num_requests=300),
        replicas=3,
    )
    alone = serve(serving)
    monkeypatch.setattr("sim.serve.serving.WORTH_PROCESSES", 1)
    spread = serve(serving)
    assert spread.requests.frame().equals(alone.requests.frame())
    assert spread.outcomes == alone.outcomes


def test_a_run_without_host_time_says_what_an_engine_would_add() -> None:
    words = ["serve", "gpt2", "--on", "h100-sxm", "--arrivals", "poisson:20", "--num-requests", "9"]
    for more, told in (
        ([], True),
        (["--engine", "vllm-0.12"], False),
        (["--host-time-us", "9"], False),
    ):
        shown = " ".join(CliRunner().invoke(app, [*words, *more]).output.split())
        assert ("host time: none; --engine vllm-0.12 would add about" in shown) == told
