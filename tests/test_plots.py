"""Pictures: they are written, they come out the same, and their data adds up exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim import Parallelism, Result, Scenario, Workload, run
from sim.output.plots import STATE_COLOURS, plot_account, plot_roofline, plot_timeline
from sim.output.plots.account import class_bars, phase_bars, stage_bars
from sim.output.plots.headings import heading_lines
from sim.output.plots.labels import spread
from sim.output.plots.lane_data import Intervals, lay_out, pass_window, pixels
from sim.output.plots.roofline import points
from sim.states import STATES

SPLIT = Scenario(
    model="gpt2-large",
    on="hgx-h100",
    workload=Workload(batch=4, prompt=64, output=3),
    parallelism=Parallelism(tp=2, pp=2, microbatches=2),
)
TILES = Scenario(
    model="gpt2",
    on="h100-sxm",
    workload=Workload(batch=2, prompt=256, output=2),
    detail="tile",
)


@pytest.fixture(scope="module")
def split() -> Result:
    return run(SPLIT)


def test_every_state_has_a_colour_of_its_own() -> None:
    assert tuple(STATE_COLOURS) == STATES
    assert len(set(STATE_COLOURS.values())) == len(STATES)


@pytest.mark.slow
def test_pictures_are_written_and_come_out_the_same(split: Result, tmp_path: Path) -> None:
    for plot in (plot_timeline, plot_account, plot_roofline):
        files = plot(split, tmp_path / "a")
        assert [f.name for f in files] == ["a.png", "a.svg"]
        first = [f.read_bytes() for f in files]
        assert first[0].startswith(b"\x89PNG")
        assert b"</svg>" in first[1]
        assert all(len(data) > 10_000 for data in first)
        assert len(first[1]) < 1_000_000
        assert [f.read_bytes() for f in plot(run(SPLIT), tmp_path / "a")] == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg"]


def test_other_models_windows_and_choices_are_drawn(tmp_path: Path) -> None:
    encoder = run(Scenario(model="bert-base", on="h100-sxm", workload=Workload(seq=64)))
    assert plot_timeline(encoder, tmp_path / "encoder")
    assert plot_account(encoder, tmp_path / "account", counterfactual=True)
    tiles = run(TILES)
    assert plot_timeline(tiles, tmp_path / "passes", passes=[1])
    assert plot_timeline(tiles, tmp_path / "window", window=(0, tiles.makespan // 3))


@pytest.mark.parametrize("scenario", [SPLIT, TILES])
@pytest.mark.parametrize("count", [1, 7, 640])
def test_state_lanes_fill_every_pixel_exactly(scenario: Scenario, count: int) -> None:
    result = run(scenario)
    lanes = lay_out(result.record, [0])
    assert len(lanes) == scenario.parallelism.pp
    edges = pixels((0, result.makespan), count)
    for lane in lanes:
        binned = {s: lane.states[s].binned(edges) for s in STATES}
        assert (sum(binned.values()) == np.diff(edges)).all()
        total = tuple(int(t.sum()) for t in binned.values())
        assert total == result.account.by("stage", "rank")[lane.stage, 0] or (
            tuple(t * result.account.weight for t in total)
            == result.account.by("stage", "rank")[lane.stage, 0]
        )
        begin, end = pass_window(lanes, 0)
        assert 0 <= begin < end <= result.makespan


def test_bars_of_each_panel_add_up_to_all_device_time(split: Result) -> None:
    for bars in (phase_bars(split), class_bars(split), stage_bars(split)):
        assert sum(sum(t) for _, t in bars) == split.makespan * split.account.devices


def test_points_stay_under_the_roof(split: Result) -> None:
    device = split.resolved.machine.device
    peak = device.matrix.flops(split.resolved.precision.activations)
    assert peak is not None
    found, whole = points(split)
    assert 0 < sum(p.ticks for p in found) <= whole
    for p in found:
        roof = min(peak, p.intensity * device.hbm.bandwidth)
        assert 0 < p.rate <= roof * (1 + 1e-9)


def test_work_in_a_bin_is_a_share_of_the_interval() -> None:
    lane = Intervals.of([(10, 20, 5), (30, 40, 10)])
    assert lane.binned(np.array([0, 10, 20, 30, 35, 50])).tolist() == [0, 5, 0, 5, 5]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([1.0, 5.0], [1.0, 5.0]),
        ([4.0, 4.0], [3.5, 4.5]),
        ([0.0, 0.0, 0.0], [0.0, 1.0, 2.0]),
        ([10.0, 10.0], [9.0, 10.0]),
    ],
)
def test_names_are_spread_no_further_than_needed(
    wanted: list[float], expected: list[float]
) -> None:
    assert spread(wanted, 1.0, 0.0, 10.0) == pytest.approx(expected)


def test_no_line_of_a_heading_begins_with_a_dot() -> None:
    text = "llama-3.1-70b on hgx-h100 · bf16 · tp 2, pp 4 · batch 1 · prompt 512 · output 32"
    lines = heading_lines(text, "column")
    assert len(lines) > 1
    assert not any(line.startswith("·") for line in lines)
    assert " ".join(lines).replace("\u00a0", " ") == text
