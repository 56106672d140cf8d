"""Machines that are short of something: disk, memory, threads, a home folder, a terminal."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.cli.surroundings import LEAST_ADDRESSES, shortage
from sim.output.folder import STAGING
from sim.serve import serving as serving_module
from sim.serve.config import RequestTraffic, Serving
from sim.serve.serving import serve

COMMAND = str(Path(sys.executable).with_name("memorywall"))
RUN = ("run", "gpt2", "--on", "h100-sxm", "--output", "2", "--no-what-if")


def commands(folder: Path) -> dict[str, tuple[str, ...]]:
    """Commands that write results, each with a table of measurements where it needs one."""
    rows = [
        f"NVIDIA H100 80GB HBM3,bf16,{m},{n},{k},{10 + 2 * m * n * k / 6e8:.3f}"
        for m in (64, 128, 512, 1024, 4096)
        for n in (1024, 4096, 8192)
        for k in (1024, 2048, 4096)
    ]
    table = folder / "gemm.csv"
    table.write_text("\n".join(["device,dtype,m,n,k,latency_us", *rows]) + "\n")
    served = ("serve", "gpt2", "--on", "h100-sxm", "--arrivals", "poisson:20", "--prompt")
    return {
        "run": RUN,
        "serve": (*served, "fixed:64", "--output", "fixed:8", "--num-requests", "40"),
        "sweep": ("sweep", "gpt2", "--on", "h100-sxm", "--grid", "batch=1,2,4"),
        "validate": ("validate", str(table), "--device", "h100-sxm", "--no-detail"),
        "calibrate": ("calibrate", str(table), "--device", "h100-sxm"),
    }


NAMES = ("run", "serve", "sweep", "validate", "calibrate")
# In a file system of two megabytes of its own: a result, a full disk, and another result.
FULL = """
set -u
mount -t tmpfs -o size=6m none disk || exit 77
cd disk
"$@" --out {out} >first.log 2>&1 || {{ cat first.log; exit 78; }}
find . -path './*.log' -prune -o -name points.jsonl -prune -o -type f -print0 |
  sort -z | xargs -0 sha256sum >../before
cat /dev/zero >filler.log 2>/dev/null
"$@" --out {out} {change} >/dev/null 2>../error
echo $? >../code
find . -path './*.log' -prune -o -name points.jsonl -prune -o -type f -print0 |
  sort -z | xargs -0 sha256sum >../after
"""
CHANGE = {
    "run": "--batch 3",
    "serve": "--seed 7",
    "sweep": "--set hbm.bandwidth_GBps=1000",
    "validate": "--limit 9",
    "calibrate": "--holdout 0.5",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_leaves_the_old_result(tmp_path: Path, name: str) -> None:
    (tmp_path / "disk").mkdir()
    out = "new.toml" if name == "calibrate" else "out"
    script = FULL.format(out=out, change=CHANGE[name])
    words = ("unshare", "-rm", "bash", "-c", script, "bash", COMMAND, *commands(tmp_path)[name])
    try:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no command unshare: a full disk cannot be had")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no user namespaces here: a full disk cannot be had")
    assert done.returncode == 0, done.stdout
    error = (tmp_path / "error").read_text()
    assert (tmp_path / "code").read_text() == "2\n"
    assert "no space left on device" in error.lower()
    assert error.count("\n") == 1
    before = (tmp_path / "before").read_text()
    assert before == (tmp_path / "after").read_text() != ""
    assert STAGING not in before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["validate", "calibrate"])
def test_a_file_size_limit_leaves_the_old_table(tmp_path: Path, name: str) -> None:
    out = tmp_path / ("new.toml" if name == "calibrate" else "out")
    words = (*commands(tmp_path)[name], "--out", str(out))
    assert subprocess.run([COMMAND, *words], capture_output=True, check=False).returncode == 0
    files = [out] if out.is_file() else sorted(p for p in out.rglob("*") if p.is_file())
    before = [path.read_bytes() for path in files]
    done = limited(
        (*words, *CHANGE[name].split()), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))
    )
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.read_bytes() for path in files] == before


def limited(
    words: tuple[str, ...], limit: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command under a limit and with no more than the given environment."""
    return subprocess.run(
        [COMMAND, *words],
        preexec_fn=limit,
        env={"PATH": os.environ["PATH"], **environment} if environment else None,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_too_little_memory_is_one_sentence() -> None:
    most = LEAST_ADDRESSES // 2
    done = limited(RUN, lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)))
    assert done.returncode == 2
    assert done.stderr.startswith("memorywall: memory is limited to 1.0 GB")
    assert done.stderr.count("\n") == 1


def test_memory_that_runs_out_on_the_way_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sim.cli import app

    def grow(**_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(app, "app", grow)
    assert app.answer() == 2
    assert "memory is short: take fewer" in capsys.readouterr().err


def test_too_few_threads_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (99, 99) if what != 9 else (-1, -1))
    assert shortage() == ""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert shortage().startswith("processes and threads are limited to 99 (ulimit -u)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may start as many processes as it likes")
def test_a_user_without_processes_gets_one_sentence() -> None:
    done = limited(RUN, lambda: resource.setrlimit(resource.RLIMIT_NPROC, (0, 0)))
    assert done.returncode == 2
    assert "ulimit -u" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_home_that_cannot_be_written_and_no_terminal_do_no_harm(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file")
    done = limited((*RUN, "--out", str(tmp_path / "out")), HOME=str(home), TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "timeline.png").exists()
    assert "\x1b" not in done.stdout


MANY = Serving(
    model="gpt2",
    on="h100-sxm",
    traffic=RequestTraffic(arrivals="poisson:40", num_requests=300),
    replicas=2,
)


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("name", "stand_in"),
    [
        ("ProcessPoolExecutor", OSError),
        ("ProcessPoolExecutor", NotImplementedError),
        ("_work", die),
    ],
)
def test_serving_goes_on_without_the_processes_that_it_cannot_have(
    monkeypatch: pytest.MonkeyPatch, name: str, stand_in: Any
) -> None:
    alone = serve(MANY)
    monkeypatch.setattr(serving_module, "WORTH_PROCESSES", 100)

    def refuse(*_: Any, **__: Any) -> None:
        raise stand_in("none to be had")

    wrong = stand_in if stand_in is die else refuse
    monkeypatch.setattr(serving_module, name, wrong)
    assert serve(MANY).requests.frame().equals(alone.requests.frame())


def test_workers_get_the_standard_files_that_stand_in_for_closed_ones() -> None:
    code = (
        "import os, sys; os.close(2); sys.stderr = None; "
        "from sim.cli.surroundings import open_standard_files; open_standard_files(); "
        "sys.exit(not os.get_inheritable(2))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
