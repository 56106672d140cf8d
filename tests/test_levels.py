"""The service level of a sweep: who meets it, by how much, and what the others miss."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from sim.cli.app import app
from sim.studies.sweep.fronts import Metric, pareto
from sim.studies.sweep.levels import exceeded, has_level, margin, meeting, missed
from sim.studies.sweep.registry import kind_of

BOUNDS = {"ttft_s": 0.5, "tpot_s": 0.02}
WORDS = (
    *("sweep", "gpt2", "--on", "h100-sxm", "--arrivals", "poisson:20", "--num-requests", "60"),
    *("--output", "fixed:16", "--slo-ttft", "0.001", "--grid", "rate=10,400"),
    *("--grid", "max_num_seqs=1,16", "--workers", "1"),
)


def point(ttft: float, tpot: float, share: float, least: float = 0.9) -> dict[str, Any]:
    return {"ttft_p90_s": ttft, "tpot_p90_s": tpot, "attainment": share, "slo_met": share >= least}


@pytest.mark.parametrize(
    ("one", "short", "long"),
    [
        (point(0.4, 0.01, 0.95), [], ""),
        (point(0.6, 0.01, 0.8), ["TTFT"], "80.0% meet the SLO: TTFT p90 600 ms > 500 ms"),
        (point(0.6, 0.03, 0.5), ["TTFT", "TPOT"], "50.0% meet the SLO: TTFT p90 600 ms > 500 ms, "),
        # Each bound is met by nine in ten, but not by the same ones.
        (point(0.5, 0.02, 0.85), ["share"], "85.0% meet the SLO"),
    ],
)
def test_what_a_point_misses(one: dict[str, Any], short: list[str], long: str) -> None:
    assert exceeded(one, BOUNDS) == short
    assert missed(one, BOUNDS).startswith(long)
    assert bool(missed(one, BOUNDS)) == bool(short)


def test_a_margin_is_the_share_of_the_bound_that_is_left() -> None:
    text = margin(point(0.4, 0.025, 0.95), BOUNDS)
    assert text == (
        "95.0% of the requests are good; TTFT p90 400 ms, 20% below its bound; "
        "TPOT p90 25 ms, 25% above its bound"
    )


def test_points_without_a_level_all_stay() -> None:
    records = [{"status": "ok", "slo_met": None}, {"status": "ok"}]
    assert not has_level(records)
    assert meeting(records) == records
    assert exceeded(records[0], BOUNDS) == []


def test_points_that_miss_come_last_and_are_on_no_front() -> None:
    ran = CliRunner().invoke(app, [*WORDS, "--json"])
    assert ran.exit_code == 0, ran.output
    document = json.loads(ran.stdout)
    points = document["points"]
    met = [p for p in points if p["slo_met"]]
    assert 0 < len(met) < len(points)
    kind = kind_of("serve")
    front = tuple(Metric(name, kind.columns, "") for name in kind.front)
    assert document["front"] == pareto(met, front[0], front[1])
    assert document["best"] in met
    shown = CliRunner().invoke(app, list(WORDS)).stdout
    assert f"{len(met)} of {len(points)} meet the service level (TTFT <= 1 ms)" in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith((" 10 ", " 400 "))]
    rates = [row[0] for row in rows[: len(points)]]
    assert rates[: len(met)] == [str(p["rate"]) for p in met]
    assert shown.count("goodput") == 1
