"""The service level of a sweep of serving runs: which points meet it, and what the others miss.

A point meets its level if enough of its requests meet every bound (`slo_met`). Which bound the
others miss is told by the 90th percentile of each latency.
"""

from __future__ import annotations

from collections.abc import Mapping

from sim.studies.sweep.fronts import Record
from sim.studies.sweep.labels import cell

BOUNDS = ("ttft_s", "tpot_s", "e2e_s")


def has_level(records: list[Record]) -> bool:
    """Whether the points have a service level to meet."""
    return any(record.get("slo_met") is not None for record in records)


def meeting(records: list[Record]) -> list[Record]:
    """The points that meet their level; all of them where there is none."""
    return [r for r in records if r["slo_met"]] if has_level(records) else records


def missed(record: Record, bounds: Mapping[str, float]) -> str:
    """What a point misses: the share of good requests, and latencies above their bounds (seconds,
    by `ttft_s`, `tpot_s` or `e2e_s`); "" for a point that meets the level."""
    if record["slo_met"]:
        return ""
    over = [
        f"{_name(bound)} p90 {cell('_s', record[_p90(bound)])} > {cell('_s', bounds[bound])}"
        for bound in bounds
        if _late(record, bound, bounds)
    ]
    good = f"{record['attainment']:.1%} meet the SLO"
    return f"{good}: {', '.join(over)}" if over else good


def exceeded(record: Record, bounds: Mapping[str, float]) -> list[str]:
    """The names of the bounds that a point misses at the 90th percentile, and `share` where only
    the share of good requests is too low; none of a point that meets its level or has none."""
    if record.get("slo_met") is not False:
        return []
    return [_name(bound) for bound in bounds if _late(record, bound, bounds)] or ["share"]


def margin(record: Record, bounds: Mapping[str, float]) -> str:
    """How far each latency of a point lies below its bound."""
    parts = []
    for bound, most in bounds.items():
        value = record[_p90(bound)] or 0.0
        side = "below" if value <= most else "above"
        share = abs(1 - value / most)
        parts.append(f"{_name(bound)} p90 {cell('_s', value)}, {share:.0%} {side} its bound")
    return "; ".join([f"{record['attainment']:.1%} of the requests are good", *parts])


def _late(record: Record, bound: str, bounds: Mapping[str, float]) -> bool:
    return (record[_p90(bound)] or 0.0) > bounds[bound]


def _p90(bound: str) -> str:
    return f"{bound.removesuffix('_s')}_p90_s"


def _name(bound: str) -> str:
    return bound.removesuffix("_s").upper()
