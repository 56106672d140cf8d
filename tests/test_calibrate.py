"""Fits find what made the data, say what they cannot tell, and shrug at outliers."""

from __future__ import annotations

import numpy as np
import pytest

from sim.calibrate import search


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


def test_search_is_deterministic() -> None:
    size, time = _line(100)
    start = {"floor": 1.0, "rate": 1.0}

    def once() -> dict[str, float]:
        return search(lambda t: t["floor"] + size / (t["rate"] * 1e6), time, start, BOUNDS).values

    assert once() == once()
