"""Commands in processes of their own, and what they leave in a folder."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sim.output.folder import check_whole
from sim.output.manifest import Manifest, digest

COMMAND = str(Path(sys.executable).with_name("memorywall"))
RUN = ("run", "gpt2", "--on", "h100-sxm", "--output", "2", "--no-pictures", "--no-what-if")
SERVE = (
    *("serve", "gpt2", "--on", "h100-sxm", "--arrivals", "poisson:20", "--num-requests", "40"),
    *("--prompt", "fixed:64", "--output", "fixed:8", "--no-pictures"),
)
SWEEP = ("sweep", "gpt2", "--on", "h100-sxm", "--grid", "batch=1,2,4", "--no-pictures")
NEW = {"run": RUN, "serve": SERVE, "sweep": SWEEP}


def command(*args: str, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def refused(process: subprocess.Popen[str]) -> str:
    """The one sentence of a command that was refused."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, (out, err)
    assert "Traceback" not in err
    assert err.count("\n") == 1
    return err


def content(folder: Path) -> dict[str, bytes]:
    """Every visible file of a folder."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def check_whole_result(folder: Path) -> None:
    """A folder holds the files of finished commands and no others, each as it was written, once
    a reader has finished what a kill cut short."""
    check_whole(folder)
    manifest = Manifest.read(folder)
    for files in manifest.results.values():
        assert {name: digest(folder / name) for name in files} == files
    assert set(content(folder)) - {"points.jsonl"} == manifest.names


def in_process(*words: str) -> subprocess.CompletedProcess[str]:
    """A command in this process: as fast as a test can be, without the start of a program."""
    from sim.cli.app import answer

    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["memorywall", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = answer()
    finally:
        sys.argv = argv
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
