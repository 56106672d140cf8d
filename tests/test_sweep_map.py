"""Memory-wall maps and recommendations: what they say follows from the runs they name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sim import Infeasible, InputError, Scenario, Workload, run
from sim.mapping.parallelism import Parallelism
from sim.output.plots.style import STATE_COLOURS
from sim.states import COMPUTE, HBM, SRAM, STATES
from sim.studies.sweep.grid import sweep_of
from sim.studies.sweep.recommend import splits, verdicts
from sim.studies.sweep.session import RecommendOptions, recommend_scenario
from sim.studies.sweep.study import run_sweep
from sim.studies.sweep.wall import WallMap, map_wall
from sim.studies.sweep.wall_plot import draw_walls

COMMAND = Path(sys.executable).with_name("memorywall")


def decode_map(wall: str = "memory") -> WallMap:
    base = {"model": "gpt2", "on": "h100-sxm"}
    grids = ["batch=1:1024:x4", "prompt=16,256", "output=2"]
    return map_wall(sweep_of("run", base, grids), wall, "decode")


def test_a_crossing_is_the_first_batch_that_computes_more_than_it_waits() -> None:
    found = decode_map()
    crossing = next(c for c in found.crossings if c.y == 16)
    told = []
    for batch in (crossing.x - 1, crossing.x):
        work = Workload(batch=int(batch), prompt=16, output=2)
        states = run(Scenario(model="gpt2", on="h100-sxm", workload=work)).account.by("phase")
        decode = states[("decode",)]
        told.append(decode[COMPUTE] >= decode[HBM] + decode[SRAM])
    assert told == [False, True] == [not crossing.computes, crossing.computes]


def test_shares_are_those_of_the_account() -> None:
    found = decode_map("launch")
    work = Workload(batch=64, prompt=256, output=2)
    account = run(Scenario(model="gpt2", on="h100-sxm", workload=work)).account
    decode = account.by("phase")[("decode",)]
    assert found.share[1][3] == decode[STATES.index("launch")] / sum(decode)
    assert all(v is not None and 0 <= v <= 1 for row in found.share for v in row)


def test_cells_that_cannot_be_are_holes_not_crossings() -> None:
    base = {"model": "llama-3.1-8b", "on": "h100-sxm"}
    sweep = sweep_of("run", base, ["batch=1,4096", "prompt=2048", "output=1"])
    found = map_wall(sweep)
    assert found.share[0][1] is None
    assert found.status[0] == ["ok", "out of memory"]
    assert found.crossings == []


@pytest.mark.parametrize(
    ("grids", "wall", "said"),
    [
        (["batch=1,2", "prompt=1,2", "output=1,2"], "memory", "two axes"),
        (["batch=1"], "memory", "two axes"),
        (["batch=1,2"], "memery", "use one of"),
    ],
)
def test_what_is_no_map_is_refused(grids: list[str], wall: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        map_wall(sweep_of("run", {"model": "gpt2", "on": "h100-sxm"}, grids), wall)


def test_a_map_without_a_point_says_why() -> None:
    sweep = sweep_of("run", {"model": "gpt2", "on": "t4"}, ["batch=1,2", "prompt=8,16"])
    with pytest.raises(Infeasible, match="no bf16 matrix units"):
        map_wall(sweep)


def test_the_picture_shows_the_line_and_the_state_s_colour() -> None:
    found = decode_map()
    fig = draw_walls([found, found])
    first = found.crossings[0]
    for ax in fig.axes[:2]:
        legend = ax.get_legend()
        assert legend
        assert f"from batch {first.x}" in legend.get_texts()[0].get_text().replace("\n", " ")
    mesh = fig.axes[0].collections[0]
    assert mesh.get_cmap()(1.0)[:3] == pytest.approx(_rgb(STATE_COLOURS["hbm"]), abs=0.01)


def _rgb(text: str) -> tuple[float, ...]:
    return tuple(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))


BASE: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "on": "hgx-h100",
    "workload": {"batch": 8, "prompt": 256, "output": 4},
}


def test_the_choice_is_the_cheapest_that_meets_the_bound() -> None:
    swept = run_sweep(splits("run", BASE, (), 4))
    free = verdicts(swept, {"tpot_s": 10.0})
    assert free[0].meets
    tight = free[0].record["tpot_s"] * 0.95
    found = verdicts(swept, {"tpot_s": tight})
    good = [v for v in found if v.meets]
    assert good
    assert good[0].record["tpot_s"] <= tight
    for verdict in found:
        r = verdict.record
        if r["status"] != "ok":
            assert verdict.cost is None
            assert verdict.reason == r["reason"]
            continue
        again = run(
            Scenario(
                model="llama-3.1-8b",
                on="hgx-h100",
                workload=Workload(batch=8, prompt=256, output=4),
                parallelism=Parallelism(
                    tp=r["tp"], pp=r["pp"], dp=r["dp"], microbatches=r["microbatches"]
                ),
            )
        )
        assert r["makespan_ps"] == again.makespan
        tokens = 8 * 4
        assert verdict.cost == pytest.approx(r["devices"] * again.makespan * 1e-12 / tokens)
        assert verdict.meets == (again.metrics.tpot_s is not None and again.metrics.tpot_s <= tight)
        assert verdict.meets or "TPOT" in verdict.reason
    costs = [v.cost for v in good if v.cost is not None]
    assert costs == sorted(costs)
    assert all("more" in v.reason for v in good[1:])


def test_every_split_of_the_devices_is_tried() -> None:
    swept = run_sweep(splits("run", BASE, (), 4))
    tried = {(r["tp"], r["pp"], r["dp"]) for r in swept.records()}
    assert tried == {
        (t, p, d) for t in (1, 2, 4) for p in (1, 2, 4) for d in (1, 2, 4) if t * p * d <= 4
    }


def test_the_commands_print_what_they_found(tmp_path: Path) -> None:
    def memorywall(*args: str) -> str:
        done = subprocess.run([COMMAND, *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    grid = ["--grid", "batch=1:1024:x4", "--grid", "prompt=16,64", "--grid", "output=2"]
    out = str(tmp_path / "map")
    said = memorywall("map", "gpt2", "--on", "h100-sxm", *grid, "--phase", "decode", "--out", out)
    assert "from batch" in said
    assert (tmp_path / "map" / "map.svg").exists()
    slo = ["--slo-ttft", "1", "--devices", "2", "--slo-tpot", "0.05"]
    traffic = ["--grid", "arrivals=poisson:20", "--grid", "num_requests=40"]
    said = memorywall("recommend", "gpt2", "--on", "hgx-h100", *slo, *traffic)
    assert "the choice" in said
    assert "meet TTFT <= 1 s, TPOT <= 50 ms" in said
    done = subprocess.run(
        [COMMAND, "recommend", "gpt2", "--on", "hgx-h100", "--devices", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--slo-ttft" in done.stderr


@pytest.mark.parametrize("bound", [-1.0, 0.0, float("nan")])
def test_a_bound_that_is_no_time_is_refused(bound: float) -> None:
    with pytest.raises(InputError, match="seconds above 0"):
        recommend_scenario("gpt2", RecommendOptions(on="l4", devices=1, tpot_s=bound, workers=1))
