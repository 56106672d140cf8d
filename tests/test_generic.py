"""Generic terms: what a GPU is taken to be that nobody has measured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

import hw_models
from hw_models.carry import CORE_GHZ, MOST, carried, stated
from hw_models.efficiency import Efficiency, KernelTerms
from sim.cost.kernels.rates import rates_of
from sim.errors import InputError
from sim.fidelity.calibrate.gemm import START, GemmSamples
from sim.fidelity.calibrate.generic import FAMILIES, MEASURED, generally, generic, generic_on, plain
from sim.inputs.catalogue import catalogue, load_device, own_terms
from sim.inputs.documents import convert, read_document

FILE = Path(hw_models.__file__).parent / "generic.toml"
MEASURED_GEMM = Path(__file__).resolve().parents[2] / "shared/data/kernels/gemm.parquet"


def without_residuals(efficiency: Efficiency) -> Efficiency:
    changes = {
        name: {k: plain(t, "") for k, t in getattr(efficiency, name).items()}
        for name in (*FAMILIES, "collectives")
    }
    return msgspec.structs.replace(efficiency, source="", **changes)


def test_what_ships_is_what_the_rule_gives() -> None:
    shipped = convert(read_document(FILE), Efficiency, str(FILE))
    made = generic({n: generally(load_device(n), own_terms(n)) for n in MEASURED}, "")
    assert without_residuals(shipped) == without_residuals(made)


@pytest.mark.parametrize("name", [n for n in catalogue("device") if load_device(n).kind == "gpu"])
def test_every_gpu_has_terms_of_every_family(name: str) -> None:
    efficiency = load_device(name).efficiency
    for family in FAMILIES:
        assert getattr(efficiency, family), family


def test_terms_of_alike_devices_are_their_own() -> None:
    """A rule of means keeps what all agree on."""
    one = own_terms("h100-sxm")
    made = generic({"a": one, "b": one}, "")
    kept = {"gemm": "fp8", "prefill": "bf16", "decode": "bf16", "experts": "bf16"}
    for family, key in kept.items():
        terms: KernelTerms = plain(getattr(one, family)[key], "")
        assert getattr(made, family)[key] == terms


def test_where_fits_start_counts_as_one_device_of_16_bit_products() -> None:
    one = own_terms("h100-sxm")
    three = {name: msgspec.structs.replace(one) for name in ("a", "b", "c")}
    made = generic(three, "").gemm["bf16"]
    known = one.gemm["bf16"]
    assert made.matrix == pytest.approx((known.matrix**3 * START["matrix"]) ** 0.25, rel=1e-3)
    assert made.sag == pytest.approx((known.sag**3 * START["sag"]) ** 0.25, rel=1e-3)
    assert (made.tiles, made.splits, made.depth) == (known.tiles, known.splits, known.depth)


def test_own_terms_stand_before_those_of_another(tmp_path: Path) -> None:
    text = catalogue("device")["h200"].read_text(encoding="utf-8")
    text += '[efficiency.gemm.bf16]\nfloor_us = 9.0\nsource = "made up for a test"\n'
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    mine, like = load_device(str(tmp_path / "mine.toml")).efficiency, own_terms("h100-sxm")
    assert mine.gemm["bf16"].floor_us == 9.0
    assert mine.gemm["fp8"] == like.gemm["fp8"]
    assert mine.decode == like.decode


@pytest.mark.parametrize(
    ("ref", "said"), [("h100", "no device is called 'h100'.*did you mean"), ("", "no device")]
)
def test_a_like_that_is_not_there_is_refused(tmp_path: Path, ref: str, said: str) -> None:
    text = catalogue("device")["h200"].read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text.replace('"h100-sxm"', f'"{ref}"'), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        load_device(str(tmp_path / "mine.toml"))


def test_terms_carried_there_and_back_are_as_they_were() -> None:
    terms = {"floor_us": 3.0, "wave_us": 0.5, "ramp_MB": 2.0, "sag_us": 100.0, "hbm": 0.9}
    back = carried({**terms, **stated(terms, 132, 1.98, 3350)}, 132, 1.98, 3350)
    assert back == pytest.approx({k: terms[k] for k in ("floor_us", "wave_us", "ramp_MB")}, 1e-3)


def test_times_go_with_the_work_that_cores_do_within_bounds() -> None:
    terms = {"floor_us": 4.0, "ramp_MB": 1.0}
    half = carried(terms, 100, 2 * CORE_GHZ / 100, 2000.0)
    assert half == {"floor_us": 2.0, "ramp_MB": 0.5}
    assert carried(terms, 100, 2 * CORE_GHZ / 100, 4000.0)["ramp_MB"] == 1.0  # the same time
    assert carried(terms, 1, 1.0, 2000.0)["floor_us"] == 4.0 * MOST


def test_a_gpu_that_takes_generic_terms_has_them_by_its_own_datasheet() -> None:
    device, made = load_device("b200"), convert(read_document(FILE), Efficiency, str(FILE))
    time = CORE_GHZ / (device.cores * device.clock_GHz)
    generic_floor = made.gemm["bf16"].floor_us
    assert generic_floor is not None
    assert device.efficiency.gemm["bf16"].floor_us == pytest.approx(generic_floor * time, rel=1e-3)
    assert device.efficiency.decode == made.decode


@pytest.mark.skipif(not MEASURED_GEMM.exists(), reason="needs ../shared/data/kernels")
@pytest.mark.parametrize(
    ("there", "here", "rows"),
    [
        ("a100-sxm-80gb", "h100-sxm", "h100_sxm"),
        ("h100-sxm", "a100-sxm-80gb", "a100_sxm"),
    ],
)
def test_products_of_a_device_that_was_not_fitted(there: str, here: str, rows: str) -> None:
    """Terms of one device alone, and of all others, predict another's products."""
    q = pl.col
    table = pl.read_parquet(MEASURED_GEMM).filter(
        q("device") == rows, q("dtype") == "bfloat16", q("n") >= 1024, q("k") >= 1024
    )
    table = table.filter(q("n") * q("k") >= 4_000_000).sort("m", "n", "k").gather_every(10)
    device = load_device(here)
    points = GemmSamples(table, "bf16", rates_of(device, "bf16"))
    for known in ((there,), tuple(n for n in MEASURED if n != here)):
        terms = {n: generally(load_device(n), own_terms(n)) for n in known}
        seconds = points.seconds(generic_on(device, terms, "one left out").gemm["bf16"])
        error = np.abs(seconds * 1e6 / table["latency_us"].to_numpy() - 1)
        assert np.median(error) < 0.15, known
