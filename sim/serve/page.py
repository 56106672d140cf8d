"""The report of a serving run, from the files of its result folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.inputs.documents import read_document
from sim.inputs.tables import read_table
from sim.output.html.charts import Bars, Chart, Stacked, micro
from sim.output.html.page import Fact, Page, Section
from sim.output.html.tables import Cell, Column, DataTable
from sim.output.plots.style import unit_of
from sim.output.reading import table_path
from sim.output.report import counted, duration, quantity
from sim.serve.latency import LATENCIES, PERCENTILES
from sim.serve.output import NAMES
from sim.serve.page_charts import FrameRows, over_time, spreads_chart
from sim.serve.page_requests import request_table
from sim.serve.plots import PART_COLOURS, PART_NAMES, request_bars

if TYPE_CHECKING:
    import polars as pl


def serve_page(folder: Path) -> Page:
    """The page of a serving run: summary, latencies, account over time, requests."""
    summary, config = (read_document(folder / f"{n}.json") for n in ("summary", "config"))
    serving = config["serving"]
    found = table_path(folder, "requests")
    if found is None:
        raise KeyError("requests.csv")
    requests = read_table(found)
    steps = read_table(path) if (path := table_path(folder, "steps")) else None
    sections = [
        Section("Summary", list(notes(summary, config)), list(facts(summary))),
        Section(
            "Latencies",
            ["A token is ready at the end of its step; the network to the client is left out."],
            charts=[spreads_chart(requests, summary)] if requests.height else [],
            tables=[latency_table(summary)],
        ),
        Section(
            "Where the time goes",
            charts=list(_account(summary, requests, steps, serving["parallelism"]["pp"])),
        ),
        Section("Requests", tables=[request_table(requests)] if requests.height else []),
    ]
    title = f"{config['model']['name']} on {serving['on']}: serve"
    return Page(title, f"memorywall {config['memorywall']}", sections)


def notes(summary: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """What was served, and what is left out of it."""
    serving = config["serving"]
    traffic, split = serving["traffic"], serving["parallelism"]
    source = traffic["trace"] or f"arrivals {traffic['arrivals']}"
    cut = [f"{name} {split[name]}" for name in ("tp", "pp") if split[name] > 1]
    yield ", ".join(
        [
            f"{source}, scheduler {serving['scheduler']}",
            *cut,
            counted(serving["replicas"], "replica"),
            f"seed {config['seed']}",
        ]
    )
    if config.get("interrupted"):
        yield "The run was interrupted: the page shows the requests that had finished."
    if summary["refused"]:
        yield f"{counted(summary['refused'], 'request')} can never fit into the KV memory."
    if skipped := config.get("skipped_rows"):
        yield f"{counted(skipped, 'bad row')} of the trace skipped."


def facts(s: Mapping[str, Any]) -> Iterator[Fact]:
    """The numbers that people compare."""
    sure = s.get("interval_80") or {}

    def more(key: str, form: Any) -> str:
        return f"80 % interval: {form(sure[key][0])} to {form(sure[key][1])}" if key in sure else ""

    def rate(x: float) -> str:
        return f"{x:,.4g}" if x < 1e4 else f"{x:,.0f}"

    yield Fact("requests", f"{s['requests']:,}")
    yield Fact("makespan", micro(duration(s["makespan_s"])))
    yield Fact("devices", f"{s['devices']:,}")
    yield Fact("requests/s", rate(s["request_throughput"]))
    key = "generation_throughput"
    yield Fact("tokens/s out", rate(s[key]), more(key, rate))
    yield Fact("tokens/s in", rate(s["prompt_throughput"]))
    yield Fact("tokens/s per device", rate(s["tokens_per_s_per_device"]))
    if user := s["tokens_per_s_per_user"]:
        yield Fact("tokens/s per user", rate(user))
    yield Fact("steps", f"{s['steps']:,}")
    yield Fact("preemptions", f"{s['preemptions']:,}")
    if kv := s["kv_cache_usage"]:
        yield Fact("KV cache in use", f"{kv['mean']:.1%}", f"at most {kv['peak']:.1%}")
    yield Fact("arithmetic", quantity(s["flops"], "FLOP"))
    yield Fact("HBM traffic", quantity(s["hbm_bytes"], "B"))
    yield Fact("MFU", f"{s['mfu']:.1%}")
    yield Fact("MBU", f"{s['mbu']:.1%}")
    if goal := s["goodput"]:
        met = "met" if goal["met"] else "missed"
        wanted = f"{goal['slo']['attainment']:.1%} required: {met}"
        yield Fact("goodput, requests/s", rate(goal["goodput"]))
        yield Fact("within the SLO", f"{goal['attainment']:.1%}", wanted)


def latency_table(s: Mapping[str, Any]) -> DataTable:
    """Mean, percentiles and largest of each latency, with the interval of the mean."""
    sure = s.get("interval_80") or {}
    keys = ("mean", *(f"p{p}" for p in PERCENTILES), "max")
    rows: list[list[Cell]] = []
    for name in LATENCIES:
        row, ends = s["latency_s"][name], sure.get(f"{name}_s")
        cells = ["-" if row[k] is None else micro(duration(row[k])) for k in keys]
        interval = micro(" to ".join(map(duration, ends))) if ends else "-"
        rows.append([NAMES[name], *cells, interval])
    heads = ("latency", *keys, "80 % interval of the mean")
    return DataTable("latency", [*map(Column, heads)], rows, plain=True)


def _account(
    summary: Mapping[str, Any], requests: pl.DataFrame, steps: pl.DataFrame | None, stages: int
) -> Iterator[Chart]:
    """The account of the devices, over time where the steps were kept, and of the requests."""
    makespan = summary["makespan_ps"]
    unit, size = unit_of(makespan)
    devices = summary["devices"]
    mean = {state: t / devices / size for state, t in summary["account_ps"].items()}
    yield Stacked(
        name="account",
        title="Account of the devices",
        views={"": [("a device", mean)]},
        unit=unit,
        axis="time of a device, mean",
    ).chart()
    if steps is not None and steps.height:
        kv = summary["kv_cache_usage"]
        yield over_time(requests, steps, makespan, stages, kv["blocks"] if kv else None)
    if requests.height:
        yield _of_requests(requests)


def _of_requests(requests: pl.DataFrame) -> Chart:
    """Mean account of the requests in four groups by their end-to-end time."""
    groups = request_bars(FrameRows(requests))
    unit, size = unit_of(max(sum(parts.values()) for _, _, parts in groups))
    bars: Bars = [
        (f"{name} of E2E, {counted(count, 'request')}", {p: t / size for p, t in parts.items()})
        for name, count, parts in groups
    ]
    return Stacked(
        name="groups",
        title="Account of the requests, by percentiles of their end-to-end time",
        views={"": bars},
        unit=unit,
        axis="time of a request, mean",
        colours=PART_COLOURS,
        names=PART_NAMES,
    ).chart()
