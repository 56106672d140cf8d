"""Terms of matrix products from one device to another, by datasheet numbers alone.

    times paid on top (us)   x (cores x clock there) / (cores x clock here), at most MOST either
                             way: prologues, hand-overs and partial sums are work of the cores
    bytes paid on top (MB)   the same times at either's bandwidth: also x (bandwidth here / there)
    fractions, tiles, steps  as they are, and how long power takes to sag (`sag_us`)

The generic set is stated for one device in the middle of those that were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CORE_GHZ = 250.0  # cores x clock of the device that the generic set is stated for
HBM_GBPS = 2000.0  # and its bandwidth
MOST = 2.0
TIMES = ("floor_us", "wave_us", "split_us", "quantise_us")


def carried(terms: Mapping[str, Any], cores: float, clock: float, bandwidth: float) -> Any:
    """Changes that bring generic terms to a device; clock in GHz, bandwidth in GB/s."""
    time = min(MOST, max(1 / MOST, CORE_GHZ / (cores * clock)))
    return _scaled(terms, time, time * bandwidth / HBM_GBPS)


def stated(terms: Mapping[str, Any], cores: float, clock: float, bandwidth: float) -> Any:
    """Changes that bring the terms of a measured device to how the generic set is stated."""
    time = cores * clock / CORE_GHZ
    return _scaled(terms, time, time * HBM_GBPS / bandwidth)


def _scaled(terms: Mapping[str, Any], time: float, size: float) -> dict[str, float]:
    by = {**dict.fromkeys(TIMES, time), "ramp_MB": size}
    return {key: float(f"{terms[key] * x:.4g}") for key, x in by.items() if terms.get(key)}
