"""Elasticities: 0 where a resource idles, -1 where it alone binds, and together they sum to 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.inputs.catalogue import catalogue
from sim.output.plots.style import Kind, look
from sim.studies.whatif.sensitivity import Sensitivity, SensitivityRow, sensitivity
from sim.studies.whatif.subjects import RunSubject, document_of, subject
from sim.studies.whatif.tornado import draw_tornado

TIMES = {"link latency", "launch overhead", "kernels' fixed times", "host time"}
PEAKS = ["matrix.TFLOPS.bf16", "vector.TFLOPS.fp32", "vector.TFLOPS.bf16"]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of devices and a system without terms of kernels: datasheets as they are."""
    for name in ("l4", "mi300x"):
        text = catalogue("device")[name].read_text(encoding="utf-8").partition("[efficiency]")[0]
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    system = catalogue("system")["mi300x-8x"].read_text(encoding="utf-8")
    (tmp_path / "mi300x-8x.toml").write_text(system, encoding="utf-8")
    return tmp_path


def l4(bare: Path) -> str:
    return str(bare / "l4.toml")


def of(model: str, on: str, *changes: str, metric: str | None = None) -> Sensitivity:
    return sensitivity(*document_of(model, on, changes), metric)


def rows(found: Sensitivity) -> dict[str, SensitivityRow]:
    return {row.resource.name: row for row in found.rows}


def test_hbm_alone_binds(bare: Path) -> None:
    free = [f"{peak}=1e9" for peak in PEAKS]
    found = of("gpt2", l4(bare), "prompt=64", "output=3", "launch.overhead_us=0", *free)
    slopes = rows(found)
    # The clock has picoseconds, and a few of arithmetic are left.
    assert slopes["HBM bandwidth"].elasticity == pytest.approx(-1, abs=1e-4)
    assert "the memory wall" in found.sentence()


def test_arithmetic_alone_binds(bare: Path) -> None:
    more = ["hbm.bandwidth_GBps=1e9", "launch.overhead_us=0", "seq=512", "batch=8"]
    found = of("bert-base", l4(bare), *more)
    assert rows(found)["FLOP/s"].elasticity == pytest.approx(-1, abs=1e-3)
    assert "the compute wall" in found.sentence()


def test_launches_alone_bind(bare: Path) -> None:
    free = [f"{peak}=1e9" for peak in PEAKS]
    more = ["prompt=64", "output=3", "hbm.bandwidth_GBps=1e9", "launch.overhead_us=100"]
    slopes = rows(of("gpt2", l4(bare), *more, *free))
    assert slopes["launch overhead"].elasticity == pytest.approx(1, abs=1e-3)
    assert slopes["launch overhead"].free is not None
    assert slopes["launch overhead"].free < 1e-3 * slopes["launch overhead"].half  # type: ignore[operator]


def test_idle_resources_have_no_sensitivity() -> None:
    slopes = rows(of("gpt2", "l4", "prompt=64", "output=3"))
    capacity = slopes["HBM capacity"]
    assert capacity.elasticity == 0
    assert capacity.free == capacity.half == capacity.double


def test_what_a_device_does_not_state_has_no_elasticity() -> None:
    """A lone L4 has no links, and its data sheet no bandwidth of the on-chip memory."""
    slopes = rows(of("gpt2", "l4", "prompt=64", "output=3"))
    for name in ("SRAM bandwidth", "link bandwidth", "link latency"):
        row = slopes[name]
        assert (row.elasticity, row.half, row.double, row.free) == (None, None, None, None)
        assert row.note == "not stated"


@pytest.mark.parametrize(
    ("model", "on", "changes"),
    [
        ("gpt2", "l4", ["prompt=64", "output=3"]),
        ("bert-base", "survey-accelerator", ["dtype=int8"]),
        ("gpt2", "h100-sxm", ["batch=64", "prompt=64", "output=3"]),
        ("llama-3.1-8b", "hgx-h100", ["tp=4", "batch=8", "prompt=64", "output=3"]),
        ("gpt2", "mi300x-8x", ["tp=4", "batch=4", "prompt=64", "output=3"]),
    ],
)
def test_times_less_rates_sum_to_one(model: str, on: str, changes: list[str], bare: Path) -> None:
    """Scaling all rates and all times alike scales the answer; sizes stay as they are."""
    file = bare / f"{on}.toml"
    found = of(model, str(file) if file.exists() else on, *changes, metric="makespan")
    slopes = {name: row.elasticity or 0.0 for name, row in rows(found).items()}
    sizes = {"HBM capacity", "SRAM capacity"}
    told = sum(e if n in TIMES else -e for n, e in slopes.items() if n not in sizes)
    assert told == pytest.approx(1, abs=2e-3)


def test_free_is_what_run_says() -> None:
    found = of("gpt2", "l4", "prompt=64", "output=3", metric="makespan")
    one = subject("gpt2", "l4", ["prompt=64", "output=3"])
    assert isinstance(one, RunSubject)
    for name, free in (
        ("FLOP/s", "compute"),
        ("HBM bandwidth", "hbm"),
        ("launch overhead", "launch"),
    ):
        assert rows(found)[name].free == one.result.counterfactual[free]


def test_serving_follows_host_time_and_kv_memory(bare: Path) -> None:
    more = ["arrivals=closed:16", "num_requests=48", "prompt=fixed:64", "output=fixed:16"]
    found = of("gpt2", l4(bare), *more, "host_time_us=5000")
    slopes = rows(found)
    assert found.strongest.resource.name == "host time"
    assert slopes["host time"].elasticity == pytest.approx(1, abs=0.25)
    tight = rows(
        of(
            "llama-3.1-8b",
            l4(bare),
            *more,
            "hbm.capacity_GB=20.3",
            "gpu_memory_utilization=0.8",
        )
    )
    assert tight["HBM capacity"].note  # at half of it the weights do not fit
    assert tight["HBM capacity"].half is None


def test_what_has_no_effect_is_named_inside_the_picture() -> None:
    found = of("bert-base", "l4")
    kinds: tuple[Kind, ...] = ("column", "paper", "slide")
    for kind in kinds:
        with look():
            fig = draw_tornado(found, kind)
            fig.draw_without_rendering()
            label = fig.axes[0].xaxis.label
            assert "link latency" in label.get_text().replace("\n", " ")
            box = label.get_window_extent()
        assert fig.bbox.x0 <= box.x0
        assert box.x1 <= fig.bbox.x1
