"""This tree against an earlier commit: `.venv/bin/python scripts/benchmark_against.py COMMIT`.

Each job is a whole command. Its CPU seconds (this process's children, start-up included) are taken
in turn, before and after, `ROUNDS` times; the ratio is of the smallest ones, which the load of the
machine disturbs least. The earlier tree is checked out into a temporary folder and runs in the same
environment.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRACE = ROOT.parent / "shared/data/traces/AzureLLMInferenceTrace_conv.csv"
ROUNDS = 5
ENTRY = """
import importlib, sys
try:
    main = importlib.import_module("sim.cli.main").main
except ImportError:
    main = importlib.import_module("sim.cli").main
main()
"""
LENGTHS = ["--prompt", "lognormal:mean=1000,cv=1,max=4000"]
LENGTHS += ["--output", "lognormal:mean=200,cv=1,max=1000"]
SERVE = ["serve", "llama-2-7b", "--on", "a100-sxm-80gb"]
SWEEP = ["sweep", "llama-3.1-8b", "--on", "h100-sxm", "--grid", "batch=1:50"]
SWEEP += ["--grid", "prompt=100:20000:+100", "--grid", "output=32", "--no-pictures"]
JOBS = {
    "run llama-3.1-8b": ["run", "llama-3.1-8b", "--on", "h100-sxm"],
    "run llama-3.1-70b --no-shortcuts": [
        *("run", "llama-3.1-70b", "--on", "hgx-h100", "--tp", "4", "--output", "4"),
        *("--no-shortcuts", "--no-what-if"),
    ],
    "sweep of 10,000 static points": SWEEP,
    "serve, Azure conversation trace": [*SERVE, "--trace", str(TRACE), "--arrivals", "poisson:6"],
    "serve, 2,000 requests, 4 stages": [
        *("serve", "llama-3.1-70b", "--on", "hgx-h100", "--tp", "2", "--pp", "4"),
        *("--arrivals", "poisson:4", "--num-requests", "2000", *LENGTHS),
    ],
    "serve, 50,000 requests, 64 replicas": [
        *(*SERVE, "--replicas", "64", "--no-steps", "--arrivals", "poisson:256"),
        *("--num-requests", "50000", *LENGTHS),
    ],
}


def cpu_seconds(tree: Path, args: list[str]) -> float:
    """CPU seconds of a command of the tree, its workers included."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = spent()
    subprocess.run(
        [sys.executable, "-c", ENTRY, *args],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return spent() - before


def compare(commit: str) -> None:
    """Print a line per job."""
    with tempfile.TemporaryDirectory(prefix="memorywall-before-") as folder:
        before = Path(folder)
        archive = subprocess.run(
            ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        for name, args in JOBS.items():
            if "--trace" in args and not TRACE.exists():
                print(f"{name}: left out, {TRACE} is not there")
                continue
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(ROUNDS):
                for tree, found in zip((before, ROOT), times, strict=True):
                    found.append(cpu_seconds(tree, args))
            old, new = map(min, times)
            print(f"{name}: {old:.2f} s before, {new:.2f} s now, rate x {old / new:.2f}")


if __name__ == "__main__":
    compare(sys.argv[1])
