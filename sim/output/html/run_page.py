"""The report of a run, from the files of its result folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.account.stalls import WAIT
from sim.inputs.documents import read_document
from sim.inputs.tables import read_table
from sim.output.html.charts import Bars, Chart, Stacked, bar_look, colour_of, micro, name_of
from sim.output.html.page import Fact, Page, Section
from sim.output.html.tables import Column, DataTable, rounded_rows
from sim.output.html.timeline import timeline_section
from sim.output.plots.style import unit_of
from sim.output.reading import table_path
from sim.output.report import counted, duration, quantity
from sim.states import STATES

if TYPE_CHECKING:
    import polars as pl

MOST_BARS, MOST_ROWS = 200, 3000  # of a chart; of the table of operators
METRICS = {
    "makespan_s": "makespan",
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "e2e_s": "E2E",
    "tokens_per_s": "throughput, tokens/s",
    "tokens_per_s_per_device": "tokens/s per device",
    "tokens_per_s_per_user": "tokens/s per user",
    "tokens_in": "tokens in",
    "tokens_out": "tokens out",
    "flops": "arithmetic",
    "hbm_bytes": "HBM traffic",
    "link_bytes": "link traffic",
    "mfu": "MFU",
    "mbu": "MBU",
}
RESOURCES = {
    "compute": "arithmetic",
    "hbm": "HBM",
    "sram": "on-chip memory",
    "link": "links",
    "launch": "launches",
}
BETWEEN = "between operators"
LAYERS = {-1: "embedding", -2: "head", -3: BETWEEN}


def run_page(folder: Path) -> Page:
    """The page of a run: summary, account of time, timeline, operators."""
    summary, resolved = (read_document(folder / f"{n}.json") for n in ("summary", "resolved"))
    scenario = resolved["scenario"]
    device, system = resolved["device"]["name"], resolved["system"]["name"]
    devices = summary["devices"]
    title = f"{resolved['model']['name']} on {system if devices > 1 else device}"
    account, operators = (_table(folder, name) for name in ("account", "ops"))
    sections = [
        Section(
            "Summary",
            [what_was_run(scenario, resolved, devices)],
            list(facts(summary)),
            tables=[memory_table(resolved["memory_bytes"])],
        ),
        Section(
            "Where the time goes",
            ["In each bar the states of a device add up to its time: the mean over its devices."],
            charts=list(account_charts(summary, account)),
        ),
        timeline_section(folder),
        Section("Operators", tables=[operator_table(operators)]),
    ]
    return Page(f"{title}: run", f"memorywall {resolved['memorywall']}", sections)


def _table(folder: Path, name: str) -> pl.DataFrame:
    path = table_path(folder, name)
    if path is None:
        raise KeyError(f"{name}.csv")
    return read_table(path)


def what_was_run(scenario: Mapping[str, Any], resolved: Mapping[str, Any], devices: int) -> str:
    """The workload, the split and the precision in one sentence."""
    given = {**scenario["workload"], **scenario["parallelism"]}
    cut = [f"{k} {v}" for k, v in given.items() if v not in (None, [], 1, "auto") or k == "batch"]
    changed = [f"{key} = {value}" for key, value in scenario["set"].items()]
    p = resolved["precision"]
    return (
        f"{counted(devices, 'device')} ({resolved['device']['name']}); {', '.join(map(str, cut))}; "
        f"weights {p['weights']}, activations {p['activations']}, KV {p['kv']}; "
        f"detail {scenario['detail']}; seed {resolved['seed']}"
        + (f"; changed: {', '.join(changed)}" if changed else "")
    )


def facts(summary: Mapping[str, Any]) -> Iterator[Fact]:
    """The metrics with their 80 % intervals."""
    sure = summary.get("interval_80") or {}
    for key, label in METRICS.items():
        value = summary.get(key)
        if value is None:
            continue
        ends = sure.get(key)
        more = f"80 % interval: {measure(key, ends[0])} to {measure(key, ends[1])}" if ends else ""
        yield Fact(label, measure(key, value), more)


def measure(key: str, value: float) -> str:
    """A metric with its unit, which its key tells."""
    if key in ("mfu", "mbu"):
        return f"{value:.1%}"
    if "_per_s" in key:
        return f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"
    if key.endswith("_s"):
        return micro(duration(value))
    if key == "flops":
        return quantity(value, "FLOP")
    return quantity(value, "B") if key.endswith("bytes") else f"{value:,}"


def memory_table(prints: list[dict[str, Any]]) -> DataTable:
    """Bytes of a device of each stage."""
    keys = ("weights", "kv", "activations", "total", "capacity")
    heads = ("weights (GB)", "KV (GB)", "activations (GB)", "total (GB)", "capacity (GB)")
    rows = [[p["stage"], *(p[k] / 1e9 for k in keys), "yes" if p["fits"] else "no"] for p in prints]
    return DataTable(
        "memory",
        [*map(Column, ("stage", *heads, "fits"))],
        rounded_rows(rows),
        "Memory of a device of each stage.",
        plain=True,
    )


def account_charts(summary: Mapping[str, Any], account: pl.DataFrame) -> Iterator[Chart]:
    """The account by phase, class, stage, device and layer, and what a free resource saves."""
    unit, size = unit_of(summary["makespan_ps"])
    devices = summary["devices"]
    views: dict[str, Bars] = {
        "by phase": _bars(account, "phase", devices, size),
        "by operator class": _largest(_bars(account, "class", devices, size)),
        "by layer": _bars(account, "layer", devices, size),
    }
    if devices > 1:
        views["by stage"] = _bars(account, "stage", devices // account["stage"].n_unique(), size)
        views["by device"] = _bars(account, "device", 1, size)
    cut = [label for label, bars in views.items() if len(bars) > MOST_BARS]
    views = {label: bars[:MOST_BARS] for label, bars in views.items()}
    note = f"Of the bars {' and '.join(cut)} the first {MOST_BARS} are shown." if cut else ""
    yield Stacked(
        name="account",
        title="Account of time",
        views=views,
        unit=unit,
        axis="time of a device, mean",
        note=note,
    ).chart()
    if free := summary.get("makespan_ps_if_free"):
        bars = [("as it is", summary["makespan_ps"]), *free.items()]
        yield _free_chart(bars, unit, size)


def _bars(account: pl.DataFrame, key: str, devices: int, size: float) -> Bars:
    """Time of a device by state, for each value of a column."""
    import polars as pl

    states = [s for s in STATES if f"{s}_ps" in account.columns]
    summed = account.group_by(key, maintain_order=True).agg(
        pl.col(f"{s}_ps").cast(pl.Float64).sum() for s in states
    )
    if key in ("device", "stage", "layer"):
        summed = summed.sort(key)
    return [
        (_label(key, row[0]), {s: x / devices / size for s, x in zip(states, row[1:], strict=True)})
        for row in summed.iter_rows()
    ]


def _label(key: str, value: Any) -> str:
    if key == "layer":
        return LAYERS.get(value, f"layer {value}")
    if key == "device":
        return f"gpu{value}"
    if key == "stage":
        return f"stage {value}"
    names = {"end": "after the last pass", WAIT: BETWEEN}
    return names.get(value, str(value))


def _largest(bars: Bars) -> Bars:
    return sorted(bars, key=lambda bar: -sum(bar[1].values()))


def _free_chart(bars: list[tuple[str, float]], unit: str, size: float) -> Chart:
    return Chart(
        "free",
        "If one resource were free (found by running again)",
        [
            {
                "type": "bar",
                "orientation": "h",
                "y": [RESOURCES.get(name, name) for name, _ in bars],
                "x": [t / size for _, t in bars],
                "marker": {"color": [colour_of(name) for name, _ in bars]},
                "texttemplate": "%{x:.4~g}",
                "hovertemplate": f"%{{y}}: %{{x:.4~g}} {unit}<extra></extra>",
            }
        ],
        bar_look(f"makespan ({unit})", len(bars)),
    )


def operator_table(operators: pl.DataFrame) -> DataTable:
    """Operators, summed over passes, micro-batches and layers, the longest first."""
    import polars as pl

    keys = ["op", "class", "phase", "stage", "stack", "bound"]
    sums = ["count", "total_us", "flops", "hbm_bytes", "link_bytes"]
    states = [f"{s}_us" for s in STATES if f"{s}_us" in operators.columns]
    table = (
        operators.group_by(keys, maintain_order=True)
        .agg(pl.col(name).cast(pl.Float64).sum() for name in (*sums, *states))
        .sort("total_us", descending=True)
    )
    rows = [
        [
            r["op"] if r["class"] != WAIT else BETWEEN,
            r["class"] if r["class"] != WAIT else "",
            *(r[k] for k in keys[2:]),
            r["count"],
            r["total_us"] / 1e3,
            r["total_us"] / r["count"],
            r["flops"] / 1e9,
            r["hbm_bytes"] / 1e9,
            r["link_bytes"] / 1e9,
            r["flops"] / r["hbm_bytes"] if r["hbm_bytes"] else None,
            *(r[s] / 1e3 for s in states),
        ]
        for r in table.head(MOST_ROWS).iter_rows(named=True)
    ]
    heads = ["operator", *keys[1:], "count", "total (ms)", "mean (µs)", "GFLOP", "HBM (GB)"]
    heads += ["link (GB)", "FLOP/byte", *(f"{name_of(s[:-3])} (ms)" for s in states)]
    note = "Sums over all devices, passes and layers."
    if table.height > MOST_ROWS:
        note += f" Only the {MOST_ROWS:,} of {table.height:,} rows with the most time are shown."
    return DataTable("operators", [*map(Column, heads)], rounded_rows(rows), note)
