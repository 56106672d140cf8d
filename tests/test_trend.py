"""A device carried forward: equal growth changes the scale alone; a wall is where it is."""

from __future__ import annotations

import pytest

from sim import InputError
from sim.studies.whatif.trend import Course, Horizon, Moment, Trend, TrendRates, crossing, trend
from sim.studies.whatif.trend_report import table_of, wall

READS = ["batch=8", "seq=128"]


def of(model: str, changes: list[str], rates: TrendRates, years: float = 4) -> Course:
    found = trend([model], "l4", changes, None, Horizon(rates, years, 2))
    return found.courses[0]


def test_equal_growth_scales_time_and_nothing_else() -> None:
    course = of("bert-base", READS, TrendRates(flops=2, hbm=2, link=2, fixed=2))
    first, *_, last = course.moments
    assert float(first.time / last.time) == pytest.approx(4, rel=1e-4)
    for state, share in first.shares.items():
        assert last.shares[state] == pytest.approx(share, abs=1e-3)
    assert last.bandwidth == pytest.approx(4 * first.bandwidth)
    assert last.needed == pytest.approx(4 * first.needed, rel=1e-3)


def test_decoding_follows_the_bandwidth() -> None:
    course = of("gpt2-xl", ["prompt=64", "output=2"], TrendRates())
    assert course.behind
    faster = float(course.moments[0].time / course.moments[-1].time)
    assert faster == pytest.approx(1.6**2, rel=0.25)
    assert all(m.needed > m.bandwidth for m in course.moments)


def test_an_encoder_meets_the_wall_later() -> None:
    course = of("bert-large", ["batch=32", "seq=512"], TrendRates(), years=12)
    assert not course.behind
    assert course.wall is not None
    before = [m for m in course.moments if m.year <= course.wall]
    after = [m for m in course.moments if m.year > course.wall]
    assert not any(m.waits for m in before)
    assert all(m.waits for m in after)
    assert wall(course).startswith("in ")
    assert course.met_at is not None
    assert course.met_at == pytest.approx(course.balance * (3.0 / 1.6) ** (course.wall / 2))


def test_the_crossing_is_found() -> None:
    from fractions import Fraction

    def at(year: float) -> Moment:
        return Moment(year, Fraction(1), {"hbm": year, "compute": 3.3}, 1.0, 1.0)

    assert crossing(at, 0, 10) == pytest.approx(3.3, abs=0.02)


def test_a_row_a_workload_and_year() -> None:
    rates = TrendRates()
    course = of("bert-base", READS, rates)
    table = table_of(Trend("l4", rates, (course,)))
    assert [row[2] for row in table.rows] == [0, 2, 4]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_bad_spans_are_told() -> None:
    with pytest.raises(InputError, match="0 < step <= years"):
        trend(["gpt2"], "l4", [], None, Horizon(TrendRates(), 1, 2))
