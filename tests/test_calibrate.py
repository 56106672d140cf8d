"""Fits find what made the data, say what they cannot tell, and shrug at outliers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from hw_models.efficiency import ExpertTerms
from sim.cli.app import app
from sim.cost.model import CostModel
from sim.fidelity.calibrate import search
from sim.fidelity.calibrate.device_file import save_device
from sim.fidelity.calibrate.frames import is_held
from sim.fidelity.validate.kernels import expert_ops
from sim.inputs.catalogue import catalogue, load_device
from workloads.precision import parse_precision


def _line(rows: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Bytes, and the time of a floor of 5 us and 2 MB/us."""
    size = 10 ** np.random.default_rng(seed).uniform(3, 9, rows)
    return size, 5.0 + size / 2e6


BOUNDS = {"floor": (0.0, 50.0), "rate": (0.1, 10.0), "unused": (0.0, 1.0)}


def test_search_finds_terms_names_the_untold_and_shrugs_at_outliers() -> None:
    size, time = _line(400)
    time[::10] *= 4.0  # one row in ten was disturbed
    found = search(
        lambda t: t["floor"] + size / (t["rate"] * 1e6),
        time,
        {"floor": 1.0, "rate": 1.0, "unused": 0.25},
        BOUNDS,
    )
    assert found.values["floor"] == pytest.approx(5.0, rel=0.03)
    assert found.values["rate"] == pytest.approx(2.0, rel=0.03)
    assert list(found.undetermined) == ["unused"]
    assert found.values["unused"] == 0.25


def test_a_pull_decides_what_rows_leave_open_and_no_more() -> None:
    """Two floors of which only the sum is told: by a pull they stay as far apart as they began."""
    size, time = _line(400)

    def found(pull: float) -> dict[str, float]:
        return search(
            lambda t: t["one"] + t["other"] + size / (t["rate"] * 1e6),
            time,
            {"one": 2.0, "other": 1.0, "rate": 1.0},
            {"one": (0.0, 50.0), "other": (0.0, 50.0), "rate": (0.1, 10.0)},
            pull=pull,
        ).values

    for pull in (0.0, 0.01):
        made = found(pull)
        assert made["one"] + made["other"] == pytest.approx(5.0, rel=0.03)
        assert made["rate"] == pytest.approx(2.0, rel=0.03)
    assert found(0.01)["one"] - found(0.01)["other"] == pytest.approx(1.0, rel=0.05)


def test_search_is_deterministic() -> None:
    size, time = _line(100)
    start = {"floor": 1.0, "rate": 1.0}

    def once() -> dict[str, float]:
        return search(lambda t: t["floor"] + size / (t["rate"] * 1e6), time, start, BOUNDS).values

    assert once() == once()


TRUE_TERMS = ExpertTerms(floor_us=12.0, hbm=0.8, matrix=0.5, combine=0.4, depth=4)


def _measured(path: Path) -> None:
    """Mixtures on a device whose terms are known, and rows of another device."""
    device = load_device("h100-sxm")
    efficiency = msgspec.structs.replace(device.efficiency, experts={"bf16": TRUE_TERMS})
    costs = CostModel(msgspec.structs.replace(device, efficiency=efficiency), "bf16")
    rows = []
    for hidden in (1024, 2048, 3072, 4096, 5120, 6144, 7168, 8192):
        for tokens in (1, 4, 16, 64, 256, 1024, 4096):
            for top_k in (1, 2, 4, 8):
                row = {"device": "h100_sxm", "dtype": "bfloat16", "num_tokens": tokens}
                row |= {"hidden": hidden, "inter": hidden // 2, "topk": top_k, "num_experts": 64}
                row |= {"moe_tp": 1, "moe_ep": 1, "routing": "balanced"}
                ops = expert_ops(row, parse_precision("bf16"))
                time = sum(costs(op).duration for op in ops) / 1e6
                rows.append({**row, "latency_us": time * (1.0 + 0.02 * (len(rows) % 3 - 1))})
    rows.append({**rows[0], "device": "a100_sxm"})
    pl.DataFrame(rows).write_csv(path)


def test_a_calibrated_device_is_a_file_that_predicts_rows_it_has_not_seen(tmp_path: Path) -> None:
    _measured(tmp_path / "moe.csv")
    texts = []
    for name in ("a.toml", "b.toml"):
        out = tmp_path / name
        args = ["calibrate", str(tmp_path / "moe.csv"), "--device", "h100-sxm"]
        ran = CliRunner().invoke(app, [*args, "--out", str(out), "--date", "2026-01-02"])
        assert ran.exit_code == 0, ran.output
        assert "1 rows left out: of another device (a100_sxm)" in ran.output
        texts.append(out.read_text())
    assert texts[0] == texts[1]
    terms = load_device(str(tmp_path / "a.toml")).efficiency.experts["bf16"]
    # The round trip: terms -> times with 2 % of noise -> the same terms.
    for name in ("floor_us", "hbm", "matrix", "combine"):
        true = getattr(TRUE_TERMS, name)
        assert getattr(terms, name) == pytest.approx(true, rel=0.06), name
    assert terms.depth == TRUE_TERMS.depth
    assert "2026-01-02" in terms.source
    assert "held out" in terms.source
    assert 0.97 < terms.residuals["all"].p10 < 1.0 < terms.residuals["all"].p90 < 1.03
    # What is written prices what validate prices.
    args = ["validate", str(tmp_path / "moe.csv"), "--device", str(tmp_path / "a.toml")]
    assert CliRunner().invoke(app, [*args, "--max-median", "3"]).exit_code == 0


def test_held_out_shapes_stay_held_out() -> None:
    assert [is_held(f"{n}x64", 0.25) for n in range(8)] == [
        is_held(f"{n}x64", 0.25) for n in range(8)
    ]
    share = np.mean([is_held(f"{n}x64", 0.25) for n in range(4000)])
    assert 0.2 < share < 0.3
    assert not any(is_held(str(n), 0.0) for n in range(100))


def test_every_device_of_the_catalogue_survives_the_file(tmp_path: Path) -> None:
    for name in catalogue("device"):
        save_device(load_device(name), tmp_path / f"{name}.toml", "a heading")
