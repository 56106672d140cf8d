"""The speed bounds of sweeps: run as `.venv/bin/python scripts/benchmark_sweep.py`."""

from __future__ import annotations

import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from joblib.externals.loky import get_reusable_executor

from sim.studies.sweep.grid import Sweep, document, sweep_of
from sim.studies.sweep.points import prepare
from sim.studies.sweep.pools import compute
from sim.studies.sweep.study import run_sweep

COMMAND = Path(sys.executable).with_name("memorywall")
SPLITS = ["tp=1,2,4,8", "pp=1,2,4,8"]  # ten of them on eight devices
LENGTHS = ["batch=1:25", "prompt=128:5120:+128"]
WHERE = "tp*pp <= 8"


def static(*lengths: str) -> Sweep:
    """Llama-3.1-70B on eight H100, 32 tokens of output: 10,000 points with LENGTHS."""
    base = {"model": "llama-3.1-70b", "on": "hgx-h100"}
    return sweep_of("run", base, [*SPLITS, *(lengths or LENGTHS)], WHERE)


def command_line() -> None:
    """10,000 points from typing the command to the table and the log on disk."""
    flags = [flag for text in (*SPLITS, *LENGTHS) for flag in ("--grid", text)]
    walls = []
    for _ in range(4):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            where = ["--where", WHERE, "--out", out, "--no-pictures"]
            subprocess.run(
                [COMMAND, "sweep", "llama-3.1-70b", "--on", "hgx-h100", *flags, *where],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            walls.append(time.perf_counter() - start)
            with (Path(out) / "sweep.csv").open() as file:
                points = sum(1 for _ in file) - 1
    print(
        f"memorywall sweep, {points:,} static points: median wall "
        f"{statistics.median(walls[1:]):.2f} s (bound 6 s, goal 2 s)"
    )


def rates() -> None:
    """Points a CPU second, growth with their number, and against `run` one by one."""
    took: dict[str, list[float]] = {"ten": [], "forty": []}
    count = {}
    for _ in range(3):  # the least of three: a machine with other work only ever adds
        for name, lengths in (("ten", LENGTHS), ("forty", ["batch=1:50", "prompt=64:5120:+64"])):
            sweep = static(*lengths)
            start = time.process_time()
            count[name] = len(run_sweep(sweep, workers=1).points)
            took[name].append(time.process_time() - start)
    ten, forty = min(took["ten"]), min(took["forty"])
    print(f"  {count['ten'] / ten:,.0f} points per CPU second, tables to be made")
    print(
        f"  {count['forty'] / count['ten']:.0f} times the points take "
        f"{forty / ten:.2f} times as long (linear: 4)"
    )
    swept = run_sweep(static(), workers=1)
    picked = random.Random(0).sample(range(len(swept.points)), 100)
    ready = [(n, prepare(document(swept.sweep, swept.points[n]))) for n in picked]
    start = time.process_time()
    found = compute("run", "", ready)
    each = (time.process_time() - start) / len(found)
    same = sum(swept.rows[n] == row for n, row in found)
    print(
        f"  {same} of {len(found)} random points equal `run` in every cell; one by one takes "
        f"{each * count['ten'] / ten:,.0f} times as long"
    )


def workers() -> None:
    """Serving points on one worker and on two, the workers started before."""
    base = {
        "model": "llama-3.1-8b",
        "on": "h100-sxm",
        "traffic": {
            "arrivals": "poisson:1",
            "prompt": "lognormal:mean=1000,cv=1,max=4000",
            "output": "lognormal:mean=200,cv=1,max=1000",
            "num_requests": 4000,
        },
        "keep_steps": False,
    }
    sweep = sweep_of("serve", base, ["rate=4:19"])
    run_sweep(sweep_of("serve", base, ["rate=1,2,3,4", "num_requests=100"]), workers=2)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    before = ended.ru_utime + ended.ru_stime
    start, busy = time.perf_counter(), time.process_time()
    alone = run_sweep(sweep, workers=1)
    one, busy = time.perf_counter() - start, time.process_time() - busy
    start = time.perf_counter()
    spread = run_sweep(sweep, workers=2)
    two = time.perf_counter() - start
    assert alone.rows == spread.rows
    get_reusable_executor().shutdown(wait=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    both = ended.ru_utime + ended.ru_stime - before
    print(
        f"{len(alone.points)} serving points of 4,000 requests: {one:.1f} s on one worker, "
        f"{one / two:.2f} times as fast on two (bound 1.7)\n"
        f"  two workers with their start take {both / busy:.2f} times the CPU seconds of one"
    )


if __name__ == "__main__":
    command_line()
    rates()
    workers()
