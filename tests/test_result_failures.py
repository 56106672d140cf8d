"""Commands that fail, are killed, or meet one another leave whole results."""

from __future__ import annotations

import random
import resource
import signal
import time
from pathlib import Path

import polars as pl
import pytest
from commands import NEW, RUN, check_whole_result, command, content, refused

from sim.cost.model import CostModel
from sim.inputs.catalogue import load_device
from sim.output.folder import STAGING
from sim.scenario import load_scenario
from workloads.ops import Matmul, linear
from workloads.precision import parse_precision

HARD = ("--set", "hbm.bandwidth_GBps=1000")  # another result of the same command
QUESTION = ("gpt2", "--on", "h100-sxm", "--set", "output=2", "--no-pictures")
COMMANDS = {
    **{name: (words, HARD) for name, words in NEW.items()},
    "map": (("map", *QUESTION[:3], "--grid", "batch=1,2", "--no-pictures"), HARD),
    "compare": (("compare", *QUESTION, "--with", "batch=2"), HARD),
    "sensitivity": (("sensitivity", *QUESTION), HARD),
    "validate": (("validate", "gemm.csv", "--no-pictures"), ("--device", "a100-sxm-80gb")),
}


def measured(path: Path) -> None:
    """A table of products at the times that the model predicts."""
    costs, form = CostModel(load_device("h100-sxm"), "bf16"), parse_precision("bf16")
    rows = []
    for m in (1, 64, 4096):
        operator = linear("x", "ffn", Matmul(m, 4096, 8192), form)
        shape = {"device": "h100_sxm", "dtype": "bfloat16", "m": m, "n": 8192, "k": 4096}
        rows.append({**shape, "latency_us": costs(operator).duration / 1e6})
    pl.DataFrame(rows).write_csv(path)


def words_of(name: str, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A command into `out` beside its table, and the options that change its result."""
    measured(folder / "gemm.csv")
    words, other = COMMANDS[name]
    words = tuple(str(folder / word) if word == "gemm.csv" else word for word in words)
    return (*words, "--out", str(folder / "out")), other


def done(words: tuple[str, ...]) -> None:
    process = command(*words)
    assert process.communicate(timeout=120)[1] == ""
    assert process.returncode == 0


def visible(folder: Path) -> dict[str, bytes]:
    """The files of a result; the log of a sweep may grow by what was finished."""
    return {name: data for name, data in content(folder).items() if name != "points.jsonl"}


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("run", 200),
        ("validate", 200),
        *(
            pytest.param(name, most, marks=pytest.mark.slow)
            for name in COMMANDS
            for most in (0, 20, 2000)
        ),
    ],
)
def test_a_file_size_limit_leaves_the_old_result(tmp_path: Path, name: str, most: int) -> None:
    words, other = words_of(name, tmp_path)
    done(words)
    before = visible(tmp_path / "out")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    process = command(*words, *other, before=limit)
    _, err = process.communicate(timeout=120)
    if process.returncode == 0:  # each of its files is below the limit
        assert most == 2000
        check_whole_result(tmp_path / "out")
        return
    assert "File too large" in err
    assert err.count("\n") == 1
    assert visible(tmp_path / "out") == before
    assert not list((tmp_path / "out").glob(f"{STAGING}*"))


@pytest.mark.slow
def test_a_file_size_limit_leaves_the_device_that_was_calibrated_before(tmp_path: Path) -> None:
    measured(tmp_path / "gemm.csv")
    out = tmp_path / "out.toml"
    out.write_text("precious")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    words = ("calibrate", str(tmp_path / "gemm.csv"), "--device", "h100-sxm", "--out", str(out))
    err = refused(command(*words, before=limit))
    assert out.read_text() == "precious", err


@pytest.mark.parametrize(
    ("name", "trials"),
    [
        ("run", 2),
        *(pytest.param(name, 9, marks=pytest.mark.slow) for name in COMMANDS),
    ],
)
def test_a_kill_at_any_moment_leaves_a_whole_result(tmp_path: Path, name: str, trials: int) -> None:
    draw = random.Random(name)
    words, other = words_of(name, tmp_path)
    folder = tmp_path / "out"
    begun = time.monotonic()
    done(words)
    length = time.monotonic() - begun
    for trial in range(trials):
        process = command(*words, *(() if trial % 2 else other))
        time.sleep(draw.uniform(0.3, 1.05) * length)  # the moment of the attack, not a wait
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        check_whole_result(folder)
        assert visible(folder)
    done(words)
    check_whole_result(folder)
    assert not list(folder.glob(f"{STAGING}*"))


@pytest.mark.parametrize(
    "trials", [1, pytest.param(20, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_two_runs_into_one_folder_never_mix(tmp_path: Path, trials: int) -> None:
    for trial in range(trials):
        folder = tmp_path / str(trial)
        both = [command(*RUN, "--batch", b, "--out", str(folder)) for b in ("3", "5")]
        texts = [process.communicate(timeout=120)[1] for process in both]
        codes = [process.returncode for process in both]
        assert set(codes) <= {0, 2}
        assert 0 in codes
        for code, text in zip(codes, texts, strict=True):
            assert ("another memorywall" in text) == (code == 2)
        winner = load_scenario(folder / "scenario.toml").workload.batch
        assert codes[(3, 5).index(winner)] == 0
        check_whole_result(folder)
