"""Generic terms: what a GPU is taken to be that nobody has measured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import hw_models
from hw_models.efficiency import Efficiency, KernelTerms
from sim.calibrate.generic import FAMILIES, MEASURED, generic, plain
from sim.catalogue import catalogue, load_device, own_terms
from sim.errors import InputError
from sim.inputs import convert, read_document

FILE = Path(hw_models.__file__).parent / "generic.toml"


def without_residuals(efficiency: Efficiency) -> Efficiency:
    changes = {
        name: {k: plain(t, "") for k, t in getattr(efficiency, name).items()}
        for name in (*FAMILIES, "collectives")
    }
    return msgspec.structs.replace(efficiency, source="", **changes)


def test_what_ships_is_what_the_rule_gives() -> None:
    shipped = convert(read_document(FILE), Efficiency, str(FILE))
    made = generic({name: own_terms(name) for name in MEASURED}, "")
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
    kept = {"gemm": "bf16", "prefill": "bf16", "decode": "bf16", "experts": "bf16"}
    for family, key in kept.items():
        terms: KernelTerms = plain(getattr(one, family)[key], "")
        assert getattr(made, family)[key] == terms


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
