"""Three users ask their questions in a fresh clone, at 80 columns, without other data.

Each walk is a row of commands as such a user would type them, with what the answer must say.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Walk = list[tuple[str, str]]  # commands, and a pattern that their output matches

ARCHITECT: Walk = [
    ("devices list", r"h100-sxm +989\.4"),
    ("devices show h100-sxm", r"bandwidth_GBps = 3350"),
    ("run bert-large --on a100-sxm-80gb --batch 8", r"all +[\d.]+ ms .*%"),
    (
        "compare bert-large --on a100-sxm-80gb --with batch=8 --set hbm.bandwidth_GBps=*2",
        r"makespan [-+][\d.]+ \w+ =",
    ),
    (
        "compare bert-large --on a100-sxm-80gb --with batch=8 --set on_chip.L2.capacity_KiB=*4",
        r"after +the same with on_chip\.L2\.capacity_KiB=\*4",
    ),
    ("sensitivity bert-large --on a100-sxm-80gb --batch 8", r"HBM bandwidth"),
    ("run llama-3.1-8b --on 8xa100-sxm-80gb --tp 8 --output 8", r"gpu0-7"),
]
ENGINEER: Walk = [
    ("traces list", r"azure-conv-2023-sample"),
    ("traces show azure-conv-2023-sample", r"requests/s, burstiness [\d.]+"),
    (
        "serve llama-3.1-8b --on h100-sxm --trace azure-conv-2023-sample --limit 100 --rate 4 "
        "--slo-ttft 1 --slo-tpot 0.05 --engine vllm-0.12 --out served",
        r"goodput [\d.]+ requests/s",
    ),
    (
        "sweep llama-3.1-8b --on hgx-h100 --arrivals poisson:8 --num-requests 60 "
        "--slo-ttft 0.5 --slo-tpot 0.02 --grid tp=1,2 --grid rate=8,32 --out swept",
        r"\d of 4 meet the service level .*\n?.*the best, tp \d",
    ),
    (
        "recommend llama-3.1-8b --on hgx-h100 --devices 2 --batch 4 --output 4 --slo-ttft 0.5",
        r"take ",
    ),
    ("report served", r"written to served/report\.html"),
    ("serve llama-3.1-8b --on h100-sxm --arrivals poisson:4 --num-requests 9 --json", r'"goodput"'),
]
TEACHER: Walk = [
    ("paper --no-pictures", r"Fig 4"),
    ("models show bert-base", r"hidden_size = 768"),
    ("what-if list", r"quantised-weights"),
    ("what-if run quantised-weights --set output=4", r"w4a16"),
    ("trend bert-large gpt2 --on h100-sxm --years 4", r"year"),
    ("timeline gpt2 --on h100-sxm --output 2 --layer 0 --out layer.png", r"written to layer\.png"),
]
WALKS = {"architect": ARCHITECT, "engineer": ENGINEER, "teacher": TEACHER}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the repository as a clone has them, in an empty folder."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-zco", "--exclude-standard", "sim", "workloads", "hw_models"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return folder


def answer(clone: Path, folder: Path, words: str) -> str:
    """What a command prints; it must succeed without a word on the error stream."""
    done = subprocess.run(
        [sys.executable, "-m", "sim.cli.main", *shlex.split(words)],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(clone),
            "COLUMNS": "80",
            "HOME": str(folder),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), words
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("user", WALKS)
def test_a_user_finds_the_answers(user: str, clone: Path, tmp_path: Path) -> None:
    for words, pattern in WALKS[user]:
        text = answer(clone, tmp_path, words)
        assert re.search(pattern, text), f"{words}\n{text}"
        assert "…" not in text
        if not words.startswith(("devices show", "models show")) and "--json" not in words:
            assert max(map(len, text.splitlines())) <= 80, words


@pytest.mark.slow
def test_a_clone_runs_its_own_files(clone: Path, tmp_path: Path) -> None:
    code = "import sim, workloads, hw_models; print(sim.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(clone)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(clone))
