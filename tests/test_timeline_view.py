"""A close look: the critical path has no gap, and what is asked for is what is drawn."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from strategies import cases

from sim import InputError
from sim.account.critical import critical_path
from sim.cli.timeline import span
from sim.output.plots.style import look
from sim.output.plots.timeline_view import View, draw_view
from sim.scenario import Resolved
from sim.simulation import Result, simulate
from sim.studies.whatif.subjects import RunSubject, subject

COMMAND = Path(sys.executable).with_name("memorywall")


@pytest.fixture(scope="module")
def pipelined() -> Result:
    more = ["pp=2", "batch=4", "microbatches=2", "prompt=64", "output=3"]
    one = subject("gpt2", "hgx-h100", more)
    assert isinstance(one, RunSubject)
    return one.result


@given(cases())
@settings(max_examples=25)
def test_the_path_covers_the_run(resolved: Resolved) -> None:
    record = simulate(resolved).record
    path = critical_path(record)
    assert path[0].begin == 0
    assert path[-1].end == record.makespan
    for earlier, later in itertools.pairwise(path):
        assert earlier.end == later.begin
    assert all(leg.begin <= leg.end for leg in path)


def test_the_path_changes_stages_over_transfers(pipelined: Result) -> None:
    path = critical_path(pipelined.record)
    stages = {leg.stage for leg in path}
    assert stages == {0, 1}
    moved = [leg for leg in path if leg.moves]
    assert all(leg.end > leg.begin for leg in moved)
    for earlier, later in itertools.pairwise(path):
        assert earlier.to == later.stage


@pytest.mark.parametrize(
    ("view", "title", "lanes"),
    [
        (View(), "pass 1", 2),
        (View(layer=7), "layer 7", 1),
        (View(layer=2, number=0), "pass 0, decoder layer 2", 1),
        (View(window=(0, 10**8)), "part of the run", 2),
        (View(devices=(1,)), "pass 1", 1),
    ],
)
def test_what_is_asked_is_drawn(pipelined: Result, view: View, title: str, lanes: int) -> None:
    with look():
        fig = draw_view(pipelined, view)
    (ax,) = fig.axes
    assert title in ax.get_title(loc="left")
    assert sum("gpu" in label.get_text() for label in ax.get_yticklabels()) == lanes


def test_a_window_is_the_axis(pipelined: Result) -> None:
    with look():
        fig = draw_view(pipelined, View(window=(10**8, 3 * 10**8)), "slide")
    low, high = fig.axes[0].get_xlim()
    assert high == pytest.approx(3 * low)


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (View(layer=12), "layers 0 to 11"),
        (View(number=9), "passes 0 to 2"),
        (View(devices=(2,)), "devices 0 to 1"),
        (View(window=(10**15, 2 * 10**15)), "outside the run"),
    ],
)
def test_what_is_not_there_is_told(pipelined: Result, view: View, said: str) -> None:
    with pytest.raises(InputError, match=said):
        draw_view(pipelined, view)


def test_times_of_a_window() -> None:
    assert span("1ms:2.5ms") == (10**9, 25 * 10**8)
    assert span(":3us") == (0, 3 * 10**6)
    for bad in ("1ms", "2ms:1ms", "x:y"):
        with pytest.raises(InputError, match="FROM:TO"):
            span(bad)


def test_the_command(tmp_path: Path) -> None:
    call = [COMMAND, "timeline", "gpt2", "--on", "l4", "--prompt", "32", "--output", "2"]
    subprocess.run(
        [*call, "--layer", "3", "--size", "column", "-o", tmp_path / "a.png"], check=True
    )
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "a.svg"}
