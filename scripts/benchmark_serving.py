"""The speed bounds of serving: run as `.venv/bin/python scripts/benchmark_serving.py`.

Needs ../shared/data/traces (the Azure conversation trace); says so where it is absent. `--day` adds
the million requests over 64 replicas, which takes a minute or two. `--many` adds five million
requests, drawn and from a trace, and the memory that they take: about ten minutes.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from sim.engine.processes import Engine
from sim.serve.config import RequestTraffic, Serving
from sim.serve.live import Finished
from sim.serve.pricing import Pricer
from sim.serve.replica import Recorder
from sim.serve.serving import serve
from sim.serve.setup import Setup
from sim.serve.shard import arrivals_of

COMMAND = Path(sys.executable).with_name("memorywall")
TRACE = Path(__file__).resolve().parents[2] / "shared/data/traces/AzureLLMInferenceTrace_conv.csv"


def azure(limit: int | None = None, shortcuts: bool = True) -> Serving:
    """Llama-2-7B on one A100, the trace's lengths at 6 requests/s, chunked prefill."""
    return Serving(
        model="llama-2-7b",
        on="a100-sxm-80gb",
        traffic=RequestTraffic(trace=str(TRACE), arrivals="poisson:6", limit=limit),
        shortcuts=shortcuts,
    )


def loop(serving: Serving, pricer: Pricer) -> tuple[float, int]:
    """(CPU seconds of the loop with its full account, requests), the stream read before."""
    setup = Setup(serving)
    requests = list(setup.source)
    rows: list[Finished] = []
    replica = setup.replica(0, pricer, Recorder(on_finish=rows.append))
    engine = Engine()
    start = time.process_time()
    arrivals_of(setup, [replica], lambda _: None).start(engine, requests)
    engine.run()
    return time.process_time() - start, len(rows)


def rates() -> None:
    """Requests per CPU second, tables ready and from nothing, and against the long way."""
    serving = azure()
    setup = Setup(serving)
    pricer = Pricer(setup.resolved)
    cold, count = loop(serving, pricer)
    warm = statistics.median(loop(serving, pricer)[0] for _ in range(3))
    print(
        f"Azure conversation trace, {count:,} requests at 6/s: {count / warm:,.0f} requests a CPU "
        f"second in the loop (bound 8,000), {count / cold:,.0f} with the tables to be made"
    )
    few = azure(limit=100, shortcuts=False)
    long = loop(few, Pricer(setup.resolved, exact_graph=True))[0]
    short = statistics.median(
        loop(msgspec.structs.replace(few, shortcuts=True), pricer)[0] for _ in range(5)
    )
    print(f"  the first 100 with --no-shortcuts: {long / short:,.0f} times as long (bound 20)")


def command_line() -> None:
    """2,000 requests from typing the command to the result."""
    args = ["serve", "llama-2-7b", "--on", "a100-sxm-80gb", "--trace", str(TRACE)]
    walls = []
    for _ in range(4):
        start = time.perf_counter()
        subprocess.run(
            [COMMAND, *args, "--limit", "2000", "--arrivals", "poisson:6"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        walls.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"memorywall serve, 2,000 requests: median wall {statistics.median(walls[1:]):.2f} s "
        f"(bound 2 s), {peak:.0f} MiB (bound 300 MB)"
    )


def day() -> None:
    """A million requests over 64 replicas, and a fifth of it for the growth."""
    walls = {}
    for count in (200_000, 1_000_000):
        serving = Serving(
            model="llama-2-7b",
            on="a100-sxm-80gb",
            traffic=RequestTraffic(
                arrivals="poisson:256",
                prompt="lognormal:mean=1000,cv=1,max=4000",
                output="lognormal:mean=200,cv=1,max=1000",
                num_requests=count,
            ),
            replicas=64,
            keep_steps=False,
        )
        start = time.perf_counter()
        served = serve(serving)
        walls[count] = time.perf_counter() - start
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(
            f"{len(served.requests):,} requests over 64 replicas: {walls[count]:.0f} s of wall "
            f"(a million: bound 120 s), {(own + 2 * workers) / 2**20:.2f} GiB at most (bound 1 GB)"
        )
    print(f"  five times the requests take {walls[1_000_000] / walls[200_000]:.2f} times as long")


def peak(words: list[str]) -> tuple[float, int]:
    """(wall seconds, bytes of the largest process) of a command that serves on one H100."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    serving = [str(COMMAND), "serve", "gpt2", "--on", "h100-sxm", "--no-steps", "--no-pictures"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *serving, *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - start, int(done.stdout)


def many() -> None:
    """Memory does not grow with the number of requests, drawn or read from a trace."""
    draws = ["--arrivals", "poisson:400", "--prompt", "uniform:16-200", "--output", "uniform:1-8"]
    with tempfile.TemporaryDirectory() as scratch:
        for source in ("drawn", "of a trace"):
            peaks = {}
            for count in (500_000, 5_000_000):
                out = ["--out", f"{scratch}/out"]
                if source == "drawn":
                    words = [*draws, "--num-requests", str(count)]
                else:
                    trace = Path(scratch) / "trace.csv"
                    with trace.open("w") as file:
                        file.write("arrival_s,prompt_tokens,output_tokens\n")
                        file.writelines(
                            f"{i / 400:.4f},{16 + i * 7 % 185},{1 + i % 8}\n" for i in range(count)
                        )
                    words = ["--trace", str(trace)]
                wall, peaks[count] = peak([*words, *out])
                print(
                    f"{count:,} requests {source}: {wall:.0f} s of wall, "
                    f"{peaks[count] / 1e6:.0f} MB at most"
                )
            print(f"  ten times the requests take {peaks[5_000_000] / peaks[500_000]:.2f} as much")


if __name__ == "__main__":
    if TRACE.exists():
        rates()
        command_line()
    else:
        print(f"{TRACE} is not there: the Azure benchmarks are left out")
    if "--day" in sys.argv:
        day()
    if "--many" in sys.argv:
        many()
