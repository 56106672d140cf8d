"""Intervals: what is certain has none, what is not lies in them as often as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hw_models.efficiency import Efficiency, GemmTerms, Spread
from sim import Scenario, Workload, run
from sim.calibrate.calibrate import errors, spreads
from sim.calibrate.frames import is_held, pieces
from sim.catalogue import load_device
from sim.intervals import DRAWS, beats, interval, quantile, stretches
from sim.validate.session import read
from sim.whatif.chance import chance
from sim.whatif.subjects import subject

DATA = Path(__file__).parents[2] / "shared" / "data"
WIDE = Spread(rows=100, p10=0.8, p25=0.9, p50=1.0, p75=1.1, p90=1.2)


def terms(spread: Spread) -> Efficiency:
    return Efficiency(gemm={"bf16": GemmTerms(residuals={"all": spread})})


def test_one_class_has_the_interval_of_its_residuals() -> None:
    found = interval(stretches({("decode", "ffn"): 3.0}, terms(WIDE), "bf16"))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.8, 1.2), abs=0.02)
    assert found.inverse.of(1.0) == pytest.approx((1 / found.high, 1 / found.low))


def test_what_is_certain_narrows_it_and_nothing_known_is_no_interval() -> None:
    both = {("decode", "ffn"): 1.0, ("decode", "attention"): 3.0}
    found = interval(stretches(both, terms(WIDE), "bf16"))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.95, 1.05), abs=0.01)
    assert stretches(both, Efficiency(), "bf16") is None


def test_draws_share_their_luck() -> None:
    """A device compared with itself at twice the time loses every draw, and never by chance."""
    one = stretches({("decode", "ffn"): 1.0}, terms(WIDE), "bf16")
    assert beats(1.0, one, 1.05, one) == 1.0
    other = stretches({("decode", "ffn"): 1.0}, terms(WIDE), "bf16", seed=7)
    share = beats(1.0, one, 1.05, other)
    assert share is not None
    assert 0.5 < share < 0.75
    assert beats(1.0, one, 1.0, None) is None


def test_quantiles_are_met() -> None:
    ratios = quantile(WIDE, np.random.default_rng(1).random(DRAWS * 10))
    assert np.quantile(ratios, (0.1, 0.5, 0.9)) == pytest.approx((0.8, 1.0, 1.2), abs=0.01)


def test_a_run_says_how_sure_it_is() -> None:
    work = Workload(prompt=512, output=4)
    found = run(Scenario(model="gpt2", on="h100-sxm", workload=work))
    assert set(found.intervals) == {"makespan", "ttft", "tpot"}
    for one in found.intervals.values():
        assert 0.5 < one.low < 1.05
        assert 0.95 < one.high < 2.0
    assert not run(Scenario(model="gpt2", on="tpu-v5e", workload=work)).intervals


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not here")
@pytest.mark.parametrize("file", ["gemm.parquet", "attention_decode.parquet"])
def test_held_out_rows_lie_in_80_percent_intervals_of_other_rows(file: str) -> None:
    """Quantiles of one part of the rows that no fit has seen, coverage on the other part."""
    found, _ = pieces(list(read([DATA / "kernels" / file], None, 12_000, [])), "a100-sxm-80gb")
    parts = [piece for group in found.values() for piece in group]
    points = errors(load_device("a100-sxm-80gb"), parts, lambda shape: is_held(shape, 0.25))
    first = np.array([is_held(f"other {shape}", 0.5) for shape in points["shape"]])
    spread = spreads(points.filter(first))["all"]
    rest = points.filter(~first)
    ratio = rest["measured_s"].to_numpy() / rest["predicted_s"].to_numpy()
    covered = float(np.mean((ratio > spread.p10) & (ratio < spread.p90)))
    assert 0.68 < covered < 0.92, covered


def test_compare_says_in_how_many_draws_one_beats_the_other() -> None:
    def against(on: str, *changes: str) -> float | None:
        first = subject("gpt2", "h100-sxm", ["prompt=64", "output=3"])
        second = subject("gpt2", on, ["prompt=64", "output=3", *changes])
        was, now = (one.break_down("tpot") for one in (first, second))
        return chance(first, second, was, now)

    assert against("h100-sxm", "hbm.bandwidth_GBps=6700") == 1.0  # the same kernels, faster memory
    assert against("h100-sxm") == 0.0  # never shorter than itself
    share = against("a100-sxm-80gb")
    assert share is not None
    assert share < 0.5
    assert against("tpu-v5e") is None
