"""Rules of every picture: text inside the figure, nothing on top of text, points or cells."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from crowding import box_of, faults, overlap
from matplotlib.text import Annotation
from msgspec.structs import replace

from sim import Parallelism, Result, Scenario, Workload, run
from sim.api import serve
from sim.fidelity.validate.plots import draw_sets
from sim.output.plots import account, roofline, timeline, timeline_view
from sim.output.plots.headings import SIZE, lines_of
from sim.output.plots.style import Kind, look
from sim.serve.plots import draw_latencies, draw_requests
from sim.studies.sweep.axes import Axis
from sim.studies.sweep.fronts import Metric
from sim.studies.sweep.grid import sweep_of
from sim.studies.sweep.plots import draw_front
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.wall import Crossing, WallMap
from sim.studies.sweep.wall_plot import draw_walls
from sim.studies.whatif.sensitivity import sensitivity
from sim.studies.whatif.subjects import document_of
from sim.studies.whatif.tornado import draw_tornado
from sim.studies.whatif.trend import Horizon, TrendRates, trend
from sim.studies.whatif.trend_report import draw_trend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEDS = range(6)
LONG = (
    "llama-3.1-70b-instruct-with-a-long-name on a-cluster-of-hgx-h100-nodes · W fp8, A bf16, "
    "KV fp8 · tp 4, pp 2, dp 2, 4 micro-batches · batch 8 · prompt 1024 · output 16 · $WWW"
)
COLUMNS = kind_of("run").columns
KINDS: tuple[Kind, ...] = ("column", "paper", "slide")


def drawn(make: Callable[[], Figure]) -> Figure:
    """The figure, which must have no fault."""
    with look():
        fig = make()
    assert faults(fig) == []
    return fig


@pytest.fixture(scope="module")
def split() -> Result:
    parallelism = Parallelism(tp=2, pp=4, microbatches=4)
    work = Workload(batch=8, prompt=64, output=3)
    scenario = Scenario(model="gpt2-large", on="hgx-h100", workload=work, parallelism=parallelism)
    return run(scenario)


@pytest.mark.parametrize("name", ["short", LONG])
def test_pictures_of_a_run(split: Result, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (account, roofline, timeline):
        monkeypatch.setattr(module, "title", lambda _: name)
    monkeypatch.setattr(timeline_view, "scenario_title", lambda _: name)
    drawn(lambda: account.draw_account(split, counterfactual=True))
    drawn(lambda: timeline.draw_timeline(split))
    roof = drawn(lambda: roofline.draw_roofline(split))
    assert "--" in [line.get_linestyle() for line in roof.legends[0].get_lines()]
    for kind in KINDS:
        for view in (timeline_view.View(), timeline_view.View(layer=0, number=0)):
            drawn(lambda view=view, kind=kind: timeline_view.draw_view(split, view, kind))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [1, 2, 60])
def test_names_of_a_front_cover_no_point(seed: int, count: int) -> None:
    rng = random.Random(seed)
    decades, level = rng.choice([0.5, 2.0, 5.0]), rng.random() < 0.5
    records: list[dict[str, Any]] = []
    for number in range(count):
        fast = 10 ** rng.uniform(0, decades)
        records.append(
            {
                "tp": rng.choice([1, 2, 4, 8]),
                "a.key_with_a_long_name": number,
                "tokens_per_s_per_user": fast,
                "tokens_per_s_per_device": 100 / fast**0.5 * rng.random(),
                "makespan_ps": int(1e12 / fast),
                "slo_met": rng.random() < 0.5 if level else None,
            }
        )
    pair = rng.choice(["tokens_per_s_per_user", "makespan_ps"]), "tokens_per_s_per_device"
    x, y = (Metric(name, COLUMNS, "") for name in pair)
    axes, title, kind = (
        ["tp", "a.key_with_a_long_name"],
        rng.choice(["short", LONG]),
        rng.choice(KINDS),
    )
    fig = drawn(lambda: draw_front(records, axes, (x, y), title, kind))
    ax = fig.axes[0]
    assert all("is better" in label for label in (ax.get_xlabel(), ax.get_ylabel()))
    names = [box_of(text) for text in ax.texts if isinstance(text, Annotation)]
    for points in ax.collections:
        for at in ax.transData.transform(np.ma.filled(points.get_offsets())):
            assert not any(box.contains(*at) for box in names)


def random_map(rng: random.Random, across: int, up: int) -> WallMap:
    x = Axis("batch", (), tuple(2**i for i in range(across)))
    y = Axis("hbm.bandwidth_GBps", (), tuple(128 * 2**i for i in range(up)))
    status = [[rng.choice(["ok", "ok", "infeasible"]) for _ in x.values] for _ in y.values]
    share = [[rng.random() if s == "ok" else None for s in row] for row in status]
    crossings = [
        Crossing(
            value, rng.uniform(1, 2 ** (across - 1)), computes, rng.choice(["compute", "launch"])
        )
        for value in y.values
        for computes in (True, False)
        if rng.random() < 0.4
    ]
    base = {"model": "llama-3.1-70b", "on": "hgx-h100"}
    sweep = sweep_of("run", base, ["batch=1,2", "prompt=1,2", "output=2", "tp=4"])
    return WallMap(sweep, "memory", "decode", x, y, share, status, crossings)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_cell_of_a_map_shows_its_share(seed: int) -> None:
    rng = random.Random(seed)
    one = random_map(rng, rng.randint(2, 9), rng.randint(1, 8))
    count, kind = rng.choice([(1, "paper"), (1, "slide"), (2, "paper"), (1, "column")])
    fig = drawn(lambda: draw_walls([one] * count, rng.choice(["", LONG]), kind))
    known = sum(value is not None for row in one.share for value in row)
    for ax in fig.axes[:count]:
        assert len(ax.texts) == known
        if known < len(one.x.values) * len(one.y.values):
            legend = ax.get_legend()
            assert legend
            assert "not possible" in [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_service_level_is_a_line_with_its_value(seed: int) -> None:
    rng = random.Random(seed)
    served = serve(
        "gpt2", on="h100-sxm", arrivals="poisson:40", num_requests=rng.choice([1, 30]), seed=seed
    ).served
    bounds = {name: 10 ** rng.uniform(-4, 1) for name in ("ttft", "tpot", "e2e")}
    fig = drawn(lambda: draw_latencies(served.requests, rng.choice(["", LONG]), bounds))
    for ax in fig.axes:
        assert [line.get_linestyle() for line in ax.lines].count("--") == 1
        assert [text.get_text().startswith("SLO ") for text in ax.texts] == [True]
    drawn(lambda: draw_requests(served.requests, LONG))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_what_ifs(kind: Kind) -> None:
    found = sensitivity(*document_of("gpt2", "l4", ["output=3"]), "tpot")
    drawn(lambda: draw_tornado(replace(found, name=LONG), kind))
    course = trend(["gpt2"], "l4", ["output=3"], None, Horizon(TrendRates(), 4, 2))
    fig = drawn(lambda: draw_trend(replace(course, machine=LONG), kind))
    assert "bandwidth of the device" in [text.get_text() for text in fig.legends[0].get_texts()]


@pytest.mark.parametrize("sets", [1, 4])
def test_dashed_lines_of_a_validation_are_named(sets: int) -> None:
    rng = random.Random(sets)
    rows = [
        {
            "set": f"set {i} with a name that takes more than a line of its panel",
            "device": f"device-with-a-name-{i}",
            "dtype": "bf16",
            "measured_s": 10 ** rng.uniform(-6, 1),
            "predicted_s": 10 ** rng.uniform(-6, 1),
            "error": rng.uniform(-1, 1),
        }
        for i in range(sets)
        for _ in range(20)
    ]
    fig = drawn(lambda: draw_sets(pl.DataFrame(rows)))
    assert "20 % off" in [text.get_text() for text in fig.legends[0].get_texts()]


@pytest.mark.parametrize("seed", SEEDS)
def test_lines_are_no_wider_than_asked(seed: int) -> None:
    from matplotlib.figure import Figure

    rng = random.Random(seed)
    words = ["".join(rng.choices("ilmW·$ ", k=rng.randint(1, 60))) for _ in range(8)]
    inches = rng.uniform(1, 7)
    lines = lines_of(" ".join(words), inches, SIZE)
    with look():
        fig = Figure(dpi=200)
        widths = [
            fig.text(0, 0, line, fontsize=SIZE).get_window_extent().width / 200 for line in lines
        ]
    assert max(widths) <= inches
    assert "".join(lines).replace("\\$", "$").replace("\u00a0", " ").replace(" ", "") == (
        "".join(words).replace(" ", "")
    )


def test_boxes_that_share_an_edge_do_not_overlap() -> None:
    from matplotlib.transforms import Bbox

    box = Bbox.from_extents(0, 0, 10, 10)
    assert overlap(box, box)
    assert not overlap(box, box.translated(9, 0))
