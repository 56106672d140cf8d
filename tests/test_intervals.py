"""Intervals: what is certain has none, what is not lies in them as often as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_models.efficiency import DecodeTerms, Efficiency, GemmTerms, Spread
from sim import Scenario, Workload, run
from sim.account.intervals import (
    DRAWS,
    Interval,
    beats,
    chance_below,
    interval,
    intervals,
    quantile,
    stretches,
)
from sim.fidelity.calibrate.calibrate import errors, spreads
from sim.fidelity.calibrate.frames import is_held, pieces
from sim.fidelity.validate.session import read
from sim.inputs.catalogue import load_device
from sim.serve.config import RequestTraffic, Serving
from sim.serve.knobs import Knobs
from sim.serve.serving import serve
from sim.serve.session import summary
from sim.studies.whatif.chance import chance
from sim.studies.whatif.subjects import subject

DATA = Path(__file__).parents[2] / "shared" / "data"
WIDE = Spread(rows=100, p10=0.8, p25=0.9, p50=1.0, p75=1.1, p90=1.2)


def terms(gemm: Spread, decode: Spread | None = None) -> Efficiency:
    attention = {"bf16": DecodeTerms(residuals={"all": decode})} if decode else {}
    return Efficiency(gemm={"bf16": GemmTerms(residuals={"all": gemm})}, decode=attention)


def test_one_family_has_the_interval_of_its_residuals() -> None:
    for times in ({("decode", "ffn"): 3}, {("decode", "ffn"): 1, ("decode", "projection"): 2}):
        found = interval(times, terms(WIDE), "bf16")
        assert found is not None
        assert (found.low, found.high) == pytest.approx((0.8, 1.2))
        assert found.inverse.of(1.0) == pytest.approx((1 / found.high, 1 / found.low))


def test_what_is_certain_narrows_it_and_nothing_known_is_no_interval() -> None:
    both = {("decode", "ffn"): 1, ("decode", "attention"): 3}
    found = interval(both, terms(WIDE), "bf16")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.95, 1.05))
    assert interval(both, Efficiency(), "bf16") is None
    assert stretches(both, Efficiency(), "bf16") is None


def test_families_err_apart_and_engines_on_top() -> None:
    """3, 4 and 5: a fifth of 3/7 and of 4/7, and another fifth of the whole at right angles."""
    both = {("decode", "ffn"): 3, ("decode", "attention"): 4}
    found = interval(both, terms(WIDE, WIDE), "bf16")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((1 - 0.2 * 5 / 7, 1 + 0.2 * 5 / 7))
    found = interval(both, terms(WIDE, WIDE), "bf16", WIDE)
    assert found is not None
    most = 0.2 * (1 + 25 / 49) ** 0.5
    assert (found.low, found.high) == pytest.approx((1 - most, 1 + most))


@given(shares=st.tuples(*[st.integers(0, 10**6)] * 3), high=st.floats(1.0, 1.5))
def test_the_sum_in_closed_form_is_that_of_draws(shares: tuple[int, int, int], high: float) -> None:
    """Where spreads are near to normal; of skewed ones only the ends are used."""
    wide = Spread(rows=9, p10=2 - high, p25=1.5 - high / 2, p50=1.0, p75=0.5 + high / 2, p90=high)
    kinds = (("decode", "ffn"), ("decode", "attention"), ("decode", "norm"))
    times = dict(zip(kinds, shares, strict=True))
    found, drawn = (of(times, terms(wide, wide), "bf16") for of in (interval, stretches))
    if isinstance(found, Interval) and not isinstance(drawn, Interval | None):
        ends = np.quantile(drawn, (0.1, 0.9))
        assert (found.low, found.high) == pytest.approx(ends, abs=0.12 * (high - 1) + 1e-9)


@given(st.lists(st.tuples(*[st.integers(0, 2**60)] * 4), min_size=1, max_size=5))
def test_many_at_once_are_the_same_to_the_bit(rows: list[tuple[int, int, int, int]]) -> None:
    kinds = (("prefill", "gemm"), ("decode", "gemm"), ("decode", "attention"), ("decode", "x"))
    one_by_one = [
        interval(
            dict(zip([(p, "ffn" if k == "gemm" else k) for p, k in kinds], row, strict=True)),
            terms(WIDE, WIDE),
            "bf16",
        )
        for row in rows
    ]
    parts = {at: np.array([row[i] for row in rows]) for i, at in enumerate(kinds)}
    whole = np.array([sum(row) for row in rows])
    assert intervals(parts, whole, terms(WIDE, WIDE), "bf16") == one_by_one


def test_draws_share_their_luck() -> None:
    """A device compared with itself at twice the time loses every draw, and never by chance."""
    one = stretches({("decode", "ffn"): 1}, terms(WIDE), "bf16")
    assert beats(1.0, one, 1.05, one) == 1.0
    other = stretches({("decode", "ffn"): 1}, terms(WIDE), "bf16", seed=7)
    share = beats(1.0, one, 1.05, other)
    assert share is not None
    assert 0.5 < share < 0.75
    assert beats(1.0, one, 1.0, None) is None


def test_the_chance_to_stay_below_a_bound() -> None:
    of = (10.0, 9.0, 14.0)
    assert [chance_below(x, *of) for x in (9, 10, 14)] == pytest.approx([0.1, 0.5, 0.9])
    assert [chance_below(x, 10.0, 10.0, 10.0) for x in (9, 10, 11)] == [0.0, 1.0, 1.0]


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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("arrivals", "known"),
    [
        ("poisson:1", {"ttft_s", "tpot_s"}),
        ("poisson:200", {"generation_throughput"}),
        ("closed:8", {"ttft_s", "tpot_s", "generation_throughput"}),
    ],
)
def test_a_queue_of_an_open_loop_has_no_interval(arrivals: str, known: set[str]) -> None:
    """A queue grows by far more than the work; arrivals that never wait set the rate."""
    traffic = RequestTraffic(
        arrivals=arrivals, prompt="fixed:512", output="fixed:64", num_requests=60
    )
    knobs = Knobs(max_num_seqs=4)
    served = serve(Serving(model="llama-3.1-8b", on="h100-sxm", traffic=traffic, knobs=knobs))
    assert set(summary(served)["interval_80"]) == known
