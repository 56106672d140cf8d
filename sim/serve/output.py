"""A serving run as a folder of files, and as tables for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from sim.clock import seconds
from sim.output.export import TABLE_FORMATS
from sim.output.files import atomic_write
from sim.output.folder import REPORT, ResultKind, replacing
from sim.output.report import STATE_HEADS, counted, duration, plain_table, quantity, to_precision
from sim.serve.columns import collect_steps
from sim.serve.latency import LATENCIES, PERCENTILES
from sim.serve.live import PARTS
from sim.serve.record import ServeRecord
from sim.states import STATES

NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "queuing_delay": "queuing delay"}


SERVE_FILES = (
    "config.json",
    "summary.json",
    "trace.json.gz",
    REPORT,
    *(f"{name}.{kind}" for name in ("requests", "steps", "stages") for kind in TABLE_FORMATS),
    *(f"{name}.{kind}" for name in ("latencies", "requests", "time") for kind in ("png", "svg")),
)
SERVE_RESULT = ResultKind("serve", SERVE_FILES)


class ServeFiles(NamedTuple):
    """Which files a result gets: the format of its tables, pictures with a title, the part of
    the run (ticks from, until) that becomes a Perfetto trace, and the bounds of the service level
    (seconds, by `ttft`, `tpot` and `e2e`) that the pictures show."""

    table_format: str = "csv"
    pictures: bool = True
    title: str = ""
    trace_window: tuple[int, int] | None = None
    bounds: Mapping[str, float] = {}


DEFAULT_FILES = ServeFiles()


def write_serve(
    folder: Path,
    *,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    record: ServeRecord,
    files: ServeFiles = DEFAULT_FILES,
) -> list[Path]:
    """Write the result of a run into `folder`; returns the files in the order of writing.

    The new files replace an earlier result together, or not at all. The same input gives the same
    bytes. `config` is the resolved input with its seed. The Perfetto trace and the picture over
    time need the steps of the record. Raises ValueError for a format that is not known and for a
    trace without steps, OSError for a folder that cannot be written.
    """
    table_format, pictures, title, trace_window, bounds = files
    requests, steps = record.requests, record.steps
    if table_format not in TABLE_FORMATS:
        raise ValueError(f"table format {table_format!r} is not one of {', '.join(TABLE_FORMATS)}")
    if trace_window and steps is None:
        raise ValueError("a trace needs the steps of the run, which were not kept")
    with replacing(folder, SERVE_RESULT) as new:
        written = [
            _json(new / "config.json", {"memorywall": version("memorywall"), **config}),
            _json(new / "summary.json", summary),
            requests.collect(new / f"requests.{table_format}"),
        ]
        if steps is not None:
            written.append(collect_steps(steps, new / f"steps.{table_format}"))
        if record.stages:
            written.append(collect_steps(record.stages, new / f"stages.{table_format}"))
        if trace_window and steps is not None:
            from sim.serve.trace import write_window

            written.append(write_window(new / "trace.json.gz", record, trace_window))
        if pictures:
            from sim.serve.plots import plot_latencies, plot_requests, plot_time

            if len(requests):
                written += plot_latencies(requests, new / "latencies", title, bounds)
                written += plot_requests(requests, new / "requests", title)
            if steps and any(len(store) for store in steps):
                written += plot_time(record, summary["makespan_ps"], new / "time", title)
    return [folder / path.name for path in written]


def _json(path: Path, value: Mapping[str, Any]) -> Path:
    # Ticks of many devices go beyond 64 bits, which not every encoder takes.
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
    return path


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Everything about a run that fits on a screen."""
    s = summary
    lost = f", {s['refused']:,} refused" if s["refused"] else ""
    console.print(
        f"  {counted(s['requests'], 'request')}{lost} in {duration(s['makespan_s'])} "
        f"on {counted(s['devices'], 'device')}; {counted(s['steps'], 'step')}, "
        f"{counted(s['preemptions'], 'preemption')}"
    )
    user = s["tokens_per_s_per_user"]
    parts = [
        f"{s['request_throughput']:.4g} requests/s",
        f"{s['prompt_throughput']:,.0f} tokens/s in",
        f"{s['generation_throughput']:,.0f} tokens/s out",
        f"{s['tokens_per_s_per_device']:,.0f} /s/device",
        *([f"{user:,.1f} /s/user"] if user else []),
    ]
    console.print("  " + ", ".join(parts))
    if sure := s.get("interval_80"):
        console.print("  80 % intervals: " + ", ".join(_sure(sure)))
    utilisation = f"MFU {s['mfu']:.1%}, MBU {s['mbu']:.1%}"
    if kv := s["kv_cache_usage"]:
        utilisation += f"; KV cache {kv['mean']:.1%} on average, {kv['peak']:.1%} at most"
    console.print(
        f"  {quantity(s['flops'], 'FLOP')}, {quantity(s['hbm_bytes'], 'B')} of HBM traffic; "
        + utilisation
    )
    if goal := s["goodput"]:
        console.print("  " + _goal(goal))
    console.print(latency_table(s))
    console.print(account_table(s))
    console.print(request_table(s))


def _sure(intervals: Mapping[str, list[float]]) -> list[str]:
    parts = [
        f"mean {NAMES[name]} {' to '.join(duration(to_precision(end, *ends)) for end in ends)}"
        for name in ("ttft", "tpot")
        if (ends := intervals.get(f"{name}_s"))
    ]
    if ends := intervals.get("generation_throughput"):
        low, high = (to_precision(end, *ends) for end in ends)
        parts.append(f"{low:,.0f} to {high:,.0f} tokens/s out")
        if "ttft_s" not in intervals:
            parts.append("none for TTFT and TPOT, because queues amplify errors")
    return parts


def _goal(goal: Mapping[str, Any]) -> str:
    bounds = ", ".join(
        f"{NAMES[name]} <= {duration(goal['slo'][f'{name}_s'])} ({share:.1%})"
        for name, share in goal["attainment_by_bound"].items()
    )
    verdict = "met" if goal["met"] else "missed"
    return (
        f"goodput {goal['goodput']:.4g} requests/s: {goal['attainment']:.1%} are good, "
        f"{goal['slo']['attainment']:.1%} required: SLO {verdict}; {bounds}"
    )


def latency_table(summary: Mapping[str, Any]) -> Table:
    """Mean and percentiles of the latencies."""
    keys = ("mean", *(f"p{p}" for p in PERCENTILES), "max")
    table = plain_table("Latencies (a token is ready at the end of its step)", "", keys)
    for name in LATENCIES:
        row = summary["latency_s"][name]
        table.add_row(NAMES[name], *("-" if row[k] is None else duration(row[k]) for k in keys))
    return table


def account_table(summary: Mapping[str, Any]) -> Table:
    """Where the time of the devices goes."""
    ticks = summary["account_ps"]
    heads = ["device time", *(STATE_HEADS[s] for s in STATES)]
    table = plain_table("Where the device time goes", "", heads)
    devices = summary["devices"]
    label = f"all {devices} devices" if devices > 1 else "the device"
    shares = (summary["account_share"][s] if ticks[s] else None for s in STATES)
    table.add_row(label, duration(seconds(sum(ticks.values()))), *(_percent(x) for x in shares))
    return table


def request_table(summary: Mapping[str, Any]) -> Table:
    """Where the time of a request goes, from its arrival to its last token."""
    mean, share = summary["request_account_mean_s"], summary["request_account_share"]
    heads = ["end to end", *(STATE_HEADS.get(p, p) for p in PARTS)]
    table = plain_table("Where the time of a request goes", "", heads)
    end_to_end = sum(mean.values())
    table.add_row(
        "mean", duration(end_to_end), *(duration(mean[p]) if mean[p] else "-" for p in PARTS)
    )
    table.add_row("share", "", *(_percent(share[p] or None) for p in PARTS))
    return table


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"
