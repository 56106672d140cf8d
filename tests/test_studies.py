"""The studies that people copy run as they stand, and draw what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.parametrize(
    ("name", "drawn", "said"),
    [
        pytest.param("bandwidth", ["study-bandwidth"], "HBM (weights)", marks=pytest.mark.slow),
        pytest.param(
            "timeline",
            ["study-timeline", "study-timeline-layer"],
            "bubbles take",
            marks=pytest.mark.slow,
        ),
        pytest.param("splits", ["study-splits", "study-front"], "/s/user", marks=pytest.mark.slow),
        ("wall", ["study-wall"], "compute-bound from batch"),
    ],
)
def test_a_study_runs(tmp_path: Path, name: str, drawn: list[str], said: str) -> None:
    call = [sys.executable, SCRIPTS / f"study_{name}.py", tmp_path]
    done = subprocess.run(call, capture_output=True, text=True, check=True, timeout=60)
    assert said in done.stdout
    kinds = ("png", "svg")
    assert {p.name for p in tmp_path.iterdir()} == {f"{d}.{k}" for d in drawn for k in kinds}
