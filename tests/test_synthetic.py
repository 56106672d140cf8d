"""Synthetic streams against theory; tolerances are four standard errors of the mean."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from itertools import islice, pairwise
from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.request import LONGEST, Request
from workloads.synthetic import (
    Arrivals,
    ClosedLoop,
    Constant,
    Empirical,
    Fixed,
    Gamma,
    LengthDistribution,
    Lognormal,
    Pairs,
    Piecewise,
    Poisson,
    Uniform,
    Zipf,
    generator,
    parse_arrivals,
    parse_lengths,
    synthetic,
)

N = 200_000
S = 10**12
PROCESSES: list[Arrivals] = [
    Poisson(6.0),
    Gamma(6.0, 2.0),
    Gamma(3.0, 0.5),
    Constant(7.0),
    Piecewise(((30.0, 2.0), (10.0, 0.0), (30.0, 8.0))),
    ClosedLoop(4),
]
LENGTHS: list[LengthDistribution] = [
    Fixed(512),
    Uniform(16, 1024),
    Lognormal(500.0, 1.2, 8192),
    Zipf(1.2, 4096),
    Empirical((3, 5, 5, 900)),
]


def gaps(process: Arrivals, n: int = N, seed: int = 1) -> np.ndarray:
    """Seconds between arrivals, the first one from 0."""
    times = np.array([0, *islice(process.ticks(seed), n)], dtype=np.int64)
    return np.diff(times) / S


def within(values: np.ndarray, mean: float, deviation: float) -> bool:
    return bool(abs(values.mean() - mean) < 4 * deviation / sqrt(len(values)))


# Arrivals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.5, 6.0, 5000.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poisson_moments(rate: float, seed: int) -> None:
    drawn = gaps(Poisson(rate), seed=seed) * rate
    assert within(drawn, 1, 1)
    # The fourth central moment of an exponential is 9, so (x - 1)**2 deviates by sqrt(8).
    assert within((drawn - 1) ** 2, 1, sqrt(8))
    # No memory: neighbours are uncorrelated.
    assert within((drawn[1:] - 1) * (drawn[:-1] - 1), 0, 1)
    # The whole law: Kolmogorov's distance stays below 2 / sqrt(n) but once in 1,500 times.
    law = 1 - np.exp(-np.sort(drawn))
    assert np.abs(law - (np.arange(N) + 0.5) / N).max() < 2 / sqrt(N)


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0])
def test_gamma_moments(cv: float) -> None:
    drawn = gaps(Gamma(6.0, cv)) * 6.0
    assert within(drawn, 1, cv)
    # Kurtosis of a gamma of shape k is 3 + 6/k, with k = 1/cv**2.
    assert within((drawn - 1) ** 2, cv**2, cv**2 * sqrt(2 + 6 * cv**2))


def test_constant_has_no_drift() -> None:
    times = list(islice(Constant(7.0).ticks(1), 1_000_001))
    assert times[0] == 0
    assert times[7_000:7_002] == [1000 * S, 1000 * S + 142_857_142_857]
    assert times[7 * 100_000] == 100_000 * S
    assert list(islice(Constant(0.1).ticks(1), 3)) == [0, 10 * S, 20 * S]


def test_piecewise_counts() -> None:
    pieces = ((1000.0, 2.0), (500.0, 0.0), (1000.0, 20.0), (0.5, 4.0))
    for seed in range(5):
        times = np.array(list(Piecewise(pieces).ticks(seed))) / S
        edges = np.cumsum([0.0, *(duration for duration, _ in pieces)])
        counts, _ = np.histogram(times, edges)
        for count, (duration, rate) in zip(counts, pieces, strict=True):
            assert abs(count - duration * rate) <= 4 * sqrt(duration * rate)
        assert times.max() < edges[-1]
        assert np.all(np.diff(times) >= 0)
        # Within a piece arrivals are spread evenly.
        third = times[(times >= 1500) & (times < 2500)]
        assert within(third, 2000, 1000 / sqrt(12))


def test_one_piece_is_poisson() -> None:
    """The same numbers, up to the rounding of a gap."""
    piece = list(islice(Piecewise(((1e5, 6.0),)).ticks(3), 50_000))
    plain = list(islice(Poisson(6.0).ticks(3), 50_000))
    assert max(abs(a - b) for a, b in zip(piece, plain, strict=True)) <= 50_000


def test_closed_loop_is_ready_at_once() -> None:
    assert {r.arrival for r in synthetic(100, ClosedLoop(8, 1.5), Fixed(1), Fixed(1))} == {0}


def test_too_far_into_the_future() -> None:
    assert 10**8 * S > LONGEST
    for process in (Poisson(1e-6), Gamma(1e-6, 1.0), Constant(1e-6)):
        with pytest.raises(ValueError, match="106 days"):
            list(islice(process.ticks(1), 100))


# Lengths -----------------------------------------------------------------------------------


def draw(lengths: LengthDistribution, n: int = N, seed: int = 1) -> np.ndarray:
    return lengths.draw(generator(seed, "test"), n)


def test_fixed() -> None:
    assert set(draw(Fixed(512)).tolist()) == {512}


def test_uniform_moments() -> None:
    drawn = draw(Uniform(16, 1024))
    count = 1024 - 16 + 1
    variance = (count**2 - 1) / 12
    assert within(drawn, 520, sqrt(variance))
    assert within((drawn - 520.0) ** 2, variance, variance * sqrt(0.8))
    assert (drawn.min(), drawn.max()) == (16, 1024)
    assert set(draw(Uniform(3, 5)).tolist()) == {3, 4, 5}


def test_lognormal_moments() -> None:
    drawn = draw(Lognormal(500.0, 1.2))
    assert within(drawn, 500, 600)
    spread = log(1 + 1.2**2)
    centre = log(500) - spread / 2
    logs = np.log(drawn)
    assert within(logs, centre, sqrt(spread) + 0.01)
    assert within((logs - centre) ** 2, spread, spread * sqrt(2) + 0.01)
    assert abs(np.median(drawn) - exp(centre)) < 4 * 1.2533 * 500 / sqrt(N)
    cut = draw(Lognormal(500.0, 1.2, 800))
    assert np.array_equal(cut, np.minimum(drawn, 800))
    assert set(draw(Lognormal(500.0, 0.0)).tolist()) == {500}


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2, 3.0])
def test_zipf_frequencies(alpha: float) -> None:
    drawn = draw(Zipf(alpha, 4096))
    share = np.arange(1, 4097) ** -alpha
    share /= share.sum()
    for k in (1, 2, 3, 10, 100):
        p = share[k - 1]
        # A count of a few is no normal, which four standard errors presume.
        assert p * N < 20 or within(drawn == k, p, sqrt(p * (1 - p)))
    mean = float(share @ np.arange(1, 4097))
    square = float(share @ np.arange(1, 4097) ** 2)
    assert within(drawn, mean, sqrt(square - mean**2))
    assert drawn.min() == 1
    assert drawn.max() <= 4096
    assert set(draw(Zipf(alpha, 1), 100).tolist()) == {1}


def test_empirical_and_pairs() -> None:
    drawn = draw(Empirical((3, 5, 5, 900)))
    assert within(drawn == 5, 0.5, 0.5)
    assert set(drawn.tolist()) == {3, 5, 900}
    pairs = Pairs((1, 2, 3), (10, 20, 0))
    found = {(r.prompt, r.output) for r in synthetic(1000, Poisson(1.0), pairs)}
    assert found == {(1, 10), (2, 20), (3, 0)}


# Streams -----------------------------------------------------------------------------------


@given(
    process=st.sampled_from(PROCESSES),
    prompt=st.sampled_from(LENGTHS),
    output=st.sampled_from(LENGTHS),
    chunk=st.integers(1, 70),
    seed=st.integers(0, 2**64 - 1),
)
def test_stream_does_not_depend_on_the_chunk(
    process: Arrivals, prompt: LengthDistribution, output: LengthDistribution, chunk: int, seed: int
) -> None:
    whole = list(synthetic(200, process, prompt, output, seed))
    assert whole == list(synthetic(200, process, prompt, output, seed, chunk=chunk))
    assert whole[:50] == list(synthetic(50, process, prompt, output, seed))
    assert all(a.arrival <= b.arrival for a, b in pairwise(whole))
    assert [r.index for r in whole] == list(range(len(whole)))


def test_streams_do_not_know_of_each_other() -> None:
    base = list(synthetic(500, Poisson(6.0), Uniform(1, 900), Uniform(1, 900), 5))
    other = list(synthetic(500, Gamma(6.0, 2.0), Uniform(1, 900), Zipf(1.2, 50), 5))
    assert [r.prompt for r in base] == [r.prompt for r in other]
    assert [r.prompt for r in base] != [r.output for r in base]
    seeded = list(synthetic(500, Poisson(6.0), Uniform(1, 900), Uniform(1, 900), 6))
    assert [r.arrival for r in base] != [r.arrival for r in seeded]
    assert [r.prompt for r in base] != [r.prompt for r in seeded]


def test_same_stream_in_another_process() -> None:
    code = (
        "from workloads.synthetic import *;"
        "print([(r.arrival, r.prompt, r.output) for r in"
        " synthetic(50, Gamma(6.0, 2.0), Lognormal(500.0, 1.2), Zipf(1.2, 99), 9)])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    here = synthetic(50, Gamma(6.0, 2.0), Lognormal(500.0, 1.2), Zipf(1.2, 99), 9)
    assert shown.strip() == str([(r.arrival, r.prompt, r.output) for r in here])


def test_encoder_requests_and_short_streams() -> None:
    assert {r.kind for r in synthetic(10, Poisson(1.0), Fixed(8))} == {"encode"}
    assert {r.kind for r in synthetic(10, Poisson(1.0), Fixed(8), Fixed(1))} == {"generate"}
    ended = list(synthetic(10**6, Piecewise(((2.0, 5.0),)), Fixed(8), Fixed(1)))
    assert 0 < len(ended) < 40
    assert list(synthetic(0, Poisson(1.0), Fixed(8))) == []


def test_a_million_requests_are_fast_and_small() -> None:
    prompt, output = Lognormal(500.0, 1.2, 8192), Zipf(1.2, 4096)
    before = time.process_time()
    assert sum(1 for _ in synthetic(1_000_000, Poisson(6.0), prompt, output)) == 1_000_000
    assert time.process_time() - before < 3
    tracemalloc.start()
    for _ in synthetic(100_000, Poisson(6.0), prompt, output):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


# Words of the command line -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("poisson:6", Poisson(6.0)),
        ("gamma:6:cv=2", Gamma(6.0, 2.0)),
        ("constant:4", Constant(4.0)),
        ("piecewise:60@2,60@8", Piecewise(((60.0, 2.0), (60.0, 8.0)))),
        ("closed:32", ClosedLoop(32)),
        ("closed:32:think=1.5", ClosedLoop(32, 1.5)),
    ],
)
def test_arrival_words(text: str, value: Arrivals) -> None:
    assert parse_arrivals(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("fixed:512", Fixed(512)),
        ("uniform:16-1024", Uniform(16, 1024)),
        ("lognormal:mean=500,cv=1.2,max=8192", Lognormal(500.0, 1.2, 8192)),
        ("lognormal:cv=1.2, mean=500", Lognormal(500.0, 1.2)),
        ("zipf:alpha=1.2,max=4096", Zipf(1.2, 4096)),
    ],
)
def test_length_words(text: str, value: LengthDistribution) -> None:
    assert parse_lengths(text) == value


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("poison:6", "did you mean 'poisson'"),
        ("weibull:6", "known: poisson, gamma"),
        (
            "poisson",
            "'' must be a finite number, written in the digits 0 to 9; an example is poisson:6",
        ),
        ("poisson:0", "must lie from"),
        ("poisson:nan", "must be a finite number"),
        ("poisson:-3", "must lie from"),
        ("gamma:6", "cv must be given"),
        ("gamma:6:cv=0", "constant"),
        ("gamma:6:vc=2", "unknown key 'vc', known: cv"),
        ("gamma:6:cv=2,cv=3", "given twice"),
        ("piecewise:60", "SECONDS@RATE"),
        ("piecewise:0@6", "longer than 0 s"),
        ("piecewise:inf@6", "must be a finite number"),
        ("piecewise:1e9@6", "106 days"),
        ("closed:0", "at least 1"),
        ("closed:2.5", "must be a whole number"),
    ],
)
def test_wrong_arrival_words(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^arrivals '{text}': .*{rule}") as caught:
        parse_arrivals(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("fixd:5", "did you mean 'fixed'"),
        ("fixed:", "must be a whole number"),
        ("fixed:-1", "must lie from 0"),
        ("uniform:5", "LOW-HIGH"),
        ("uniform:0-5", "needs 1 <= low"),
        ("uniform:9-5", "needs 1 <= low"),
        ("lognormal:mean=500", "cv must be given"),
        ("lognormal:500", "KEY=VALUE"),
        ("lognormal:mean=500,cv=1,max=100", "from the mean"),
        ("lognormal:mean=inf,cv=1", "must be a finite number"),
        ("zipf:alpha=0,max=10", "above 0"),
        ("zipf:alpha=1.2,max=1e3", "must be a whole number"),
        ("zipf:alpha=1.2,max=99999999", "must lie from 1"),
    ],
)
def test_wrong_length_words(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^lengths '{text}': .*{rule}"):
        parse_lengths(text)


def test_wrong_streams() -> None:
    with pytest.raises(ValueError, match="prompt of 0"):
        synthetic(5, Poisson(1.0), Fixed(0))
    with pytest.raises(ValueError, match="own outputs"):
        synthetic(5, Poisson(1.0), Pairs((1,), (1,)), Fixed(1))
    with pytest.raises(ValueError, match="num_requests"):
        synthetic(-1, Poisson(1.0), Fixed(1))
    with pytest.raises(ValueError, match="no pairs"):
        Pairs((1,), (1, 2))
    with pytest.raises(ValueError, match="at least one"):
        Empirical(())
    with pytest.raises(ValueError, match="seed"):
        generator(-1, "x")


# The record ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"arrival": -1}, "arrival"),
        ({"arrival": LONGEST}, "arrival"),
        ({"prompt": 0}, "prompt"),
        ({"output": -1}, "output"),
        ({"after": 5}, "earlier request"),
        ({"after": -2}, "earlier request"),
        ({"delay": -1}, "delay"),
        ({"hashes": (1,)}, "hash_tokens"),
        ({"index": -1}, "counts from 0"),
    ],
)
def test_request_rules(fields: dict[str, int], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Request(**{"index": 5, "arrival": 0, "prompt": 1, "output": 1} | fields)  # type: ignore[arg-type]
