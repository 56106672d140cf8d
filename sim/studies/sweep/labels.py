"""Columns, values and points of sweeps as a person reads them."""

from __future__ import annotations

from typing import Any

from sim.output.report import duration

HEADS = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "ttft_p90_s": "TTFT p90",
    "tpot_p90_s": "TPOT p90",
    "tokens_per_s": "tokens/s",
    "tokens_per_s_per_device": "/s/device",
    "tokens_per_s_per_user": "/s/user",
    "request_throughput": "requests/s",
    "max_rate": "max /s",
    "mfu": "MFU",
    "mbu": "MBU",
    "makespan_ps": "makespan",
    "goodput": "goodput /s",
    "attainment": "attained",
}
PERCENT = {"mfu", "mbu", "attainment"}


def cell(name: str, value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name in PERCENT:
        return f"{value:.1%}"
    if name.endswith("_ps"):
        return duration(value * 1e-12)
    if name.endswith("_s") and "_per_" not in name:
        return duration(value)
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:,.4g}"
        if value < 1e4
        else f"{value:,.0f}"
    )


def name_of(values: dict[str, Any]) -> str:
    """A point in a few words: `tp 4, pp 2, batch 64`."""
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in values.items())
