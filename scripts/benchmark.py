"""The speed bounds, measured: run as `.venv/bin/python scripts/benchmark.py`.

Prints CPU seconds, rates and ratios. Ratios within one run are what to compare: the speed of a
shared machine varies by half.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sim import Parallelism, Scenario, Workload, run
from sim.engine.des import Program, Task
from sim.engine.des import run as run_engine

COMMAND = Path(sys.executable).with_name("memorywall")


def cpu(work: Callable[[], object], repeats: int = 5) -> float:
    """Median CPU seconds of `work`, after one run that warms caches."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def command_line() -> None:
    """From typing to the table, the start of Python included."""
    args = ["run", "llama-3.1-8b", "--on", "h100-sxm", "--prompt", "2048", "--output", "128"]
    for label, extra in (("with the five what-ifs", []), ("--no-what-if", ["--no-what-if"])):
        walls = []
        for _ in range(6):
            start = time.perf_counter()
            subprocess.run([COMMAND, *args, *extra], check=True, stdout=subprocess.DEVNULL)
            walls.append(time.perf_counter() - start)
        print(
            f"memorywall run llama-3.1-8b, 2048 + 128, {label}: median wall "
            f"{statistics.median(walls[1:]):.2f} s (bound 1.5 s)"
        )


def timeline() -> None:
    """The op timeline of one forward pass of Llama-3.1-70B on eight devices."""

    def forward(shortcuts: bool) -> Callable[[], object]:
        scenario = Scenario(
            model="llama-3.1-70b",
            on="hgx-h100",
            workload=Workload(prompt=2048, output=1),
            parallelism=Parallelism(tp=8),
            shortcuts=shortcuts,
        )
        return lambda: run(scenario).account

    short, long = cpu(forward(True)), cpu(forward(False), repeats=3)
    print(f"llama-3.1-70b, tp 8, one forward pass: {short:.3f} CPU s (bound 0.5 s)")
    print(f"  without shortcuts {long:.3f} CPU s, {long / short:.0f} times as long")


def engine() -> None:
    """Tasks a CPU second, and growth with the number of tasks."""
    rates = {}
    for count in (10_000, 100_000, 1_000_000):
        tasks = [
            Task("", 10 + i % 7, (i % 8,), (i - 1,) if i and i % 3 == 0 else ())
            for i in range(count)
        ]
        program = Program(tasks, [f"lane{i}" for i in range(8)])
        start = time.process_time()
        run_engine(program)
        rates[count] = count / (time.process_time() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"engine, {count:>9,} tasks: {rates[count]:>9,.0f} tasks per CPU second "
            f"(bound 40,000), peak memory {peak:.2f} GiB (bound 2 GB)"
        )
    growth = rates[10_000] / rates[1_000_000]
    print(f"  time a task at 1,000,000 over 10,000: {growth:.2f} (linear: 1)")


def transfers() -> None:
    """Transfers that share one link: each that starts or ends changes the rate of all."""
    for flows in (2, 8, 32):
        tasks = [Task("", 1000 + i % 13, (i % flows,), (), 5, ((0, 1e9),)) for i in range(10_000)]
        program = Program(tasks, [f"lane{i}" for i in range(flows)], [("link", 1e9)])
        start = time.process_time()
        run_engine(program)
        rate = len(tasks) / (time.process_time() - start)
        print(f"engine, {flows} transfers at a time on one link: {rate:,.0f} a CPU second")


if __name__ == "__main__":
    command_line()
    timeline()
    engine()
    transfers()
