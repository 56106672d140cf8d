"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sim.clock import seconds
from sim.output.terminal import FoldingTable
from sim.simulation import Result
from sim.states import STATES, Ticks

STATE_HEADS = {
    "compute": "compute",
    "hbm": "HBM",
    "sram": "SRAM",
    "link": "link",
    "launch": "launch",
    "bubble": "bubble",
    "idle": "idle",
}


def duration(t: float) -> str:
    """Seconds with a unit that leaves three figures."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if t >= size:
            return f"{t / size:.4g} {unit}"
    return "0 s" if t == 0 else f"{t / 1e-12:.4g} ps"


def to_precision(value: float, low: float, high: float) -> float:
    """A value as precisely as it is known: to a tenth of half the width of its interval, rounded
    down to a power of ten. A value without a width stays as it is."""
    half = (high - low) / 2
    if not half > 0:
        return value
    digits = -(math.floor(math.log10(half)) - 1)
    return round(value, digits)


def counted(count: int, what: str) -> str:
    """A count and its noun, which takes an s unless there is one of it."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def quantity(x: float, unit: str) -> str:
    """A count with a decimal prefix."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if x >= size:
            return f"{x / size:.4g} {prefix}{unit}"
    return f"{x:.4g} {unit}"


def print_result(result: Result, console: Console, *, counterfactual: bool = True) -> None:
    """Everything about a run that fits on a screen."""
    print_banner(result, console)
    console.print(account_table(result))
    console.print(class_table(result))
    if result.resolved.scenario.parallelism.devices > 1:
        console.print(stage_table(result))
    if counterfactual:
        console.print(counterfactual_table(result))


def print_banner(result: Result, console: Console) -> None:
    """What was run, whether it fits, and the numbers that people compare."""
    r, m = result.resolved, result.metrics
    split = r.scenario.parallelism
    p = r.precision
    console.print()
    console.print(title(result), style="bold")
    console.print(
        f"  weights {p.weights}, activations {p.activations}, KV {p.kv}; "
        f"{split.devices} of {len(r.machine.system.devices)} devices ({r.machine.device.name}); "
        f"detail {r.scenario.detail}, attention {r.scenario.lowering.attention}, fusion "
        f"{'on' if r.scenario.lowering.fusion else 'off'}"
    )
    fullest = max(result.memory, key=lambda f: f.total)
    console.print(f"  memory: {fullest.sentence()}")
    if not fullest.fits:
        console.print("  note: it does not fit; the run goes on because of --allow-oom")
    made_for = r.model.max_tokens
    if made_for and r.context > made_for:
        grown = f"the context grows to {r.context} tokens"
        console.print(f"  note: {grown}; {r.model.name} is designed for {made_for}")
    named = [("makespan", m.makespan_s), ("ttft", m.ttft_s), ("tpot", m.tpot_s)]
    parts = [f"{_shown(name)} {_time(result, name, t)}" for name, t in named if t]
    rates = (m.tokens_per_s, m.tokens_per_s_per_device)
    all_, each = (_rate(result, rate) for rate in rates)
    console.print("  " + ", ".join([*parts, f"{all_} tokens/s", f"{each} /s/device"]))
    if result.intervals:
        console.print("  80 % intervals: " + ", ".join(interval_parts(result)))
    console.print(
        f"  {quantity(m.flops, 'FLOP')}, {quantity(m.hbm_bytes, 'B')} of HBM traffic, "
        f"{quantity(m.link_bytes, 'B')} over links; MFU {m.mfu:.1%}, MBU {m.mbu:.1%}"
    )


def interval_parts(result: Result) -> list[str]:
    """The 80 % intervals of what the banner says."""
    m, intervals = result.metrics, result.intervals
    parts = []
    for name, value in (("makespan", m.makespan_s), ("ttft", m.ttft_s), ("tpot", m.tpot_s)):
        if value and name in intervals:
            low, high = intervals[name].of(value)
            ends = (duration(to_precision(end, low, high)) for end in (low, high))
            parts.append(f"{_shown(name)} {' to '.join(ends)}")
    low, high = intervals["makespan"].inverse.of(m.tokens_per_s)
    low, high = (to_precision(end, low, high) for end in (low, high))
    return [*parts, f"{low:,.0f} to {high:,.0f} tokens/s"]


def _shown(name: str) -> str:
    return "makespan" if name == "makespan" else name.upper()


def _time(result: Result, name: str, value: float) -> str:
    """A time to the precision of its interval, where it has one."""
    known = result.intervals.get(name)
    return duration(to_precision(value, *known.of(value)) if known else value)


def _rate(result: Result, value: float) -> str:
    """Tokens per second to the precision of the makespan's interval."""
    known = result.intervals.get("makespan")
    return f"{to_precision(value, *known.inverse.of(value)) if known else value:,.0f}"


def title(result: Result) -> str:
    """The scenario in one line."""
    r = result.resolved
    work, split = r.scenario.workload, r.scenario.parallelism
    first = r.passes[0]
    shape = [f"batch {work.batch}"]
    sequence = first.batch.groups[0].sequence
    if first.phase == "encode":
        shape.append(f"seq {sequence.new}")
    else:
        if sequence.source:
            shape.append(f"seq {sequence.source}")
        shape += [f"prompt {sequence.new}", f"output {len(r.passes)}"]
    degrees = [
        f"{name} {value}"
        for name, value in (("tp", split.tp), ("pp", split.pp), ("dp", split.dp))
        if value > 1
    ]
    if split.microbatches > 1:
        degrees.append(f"{split.microbatches} micro-batches")
    return f"{r.model.name} on {r.machine.name}: " + ", ".join(shape + degrees)


def plain_table(heading: str, first: str, columns: Sequence[str], keys: int = 1) -> Table:
    """A table for the terminal, whose first `keys` columns name its rows."""
    table = FoldingTable(title=heading, keys=keys)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _shares(states: Ticks, total: int) -> list[str]:
    return [_share(x, total) for x in states]


def _share(ticks: int, total: int) -> str:
    return f"{ticks / total:.1%}" if ticks else "-"


def account_table(result: Result) -> Table:
    """The account of time by phase, as shares of all device time."""
    account = result.account
    devices = account.devices
    table = plain_table(
        "Where the time goes (share of each row's device time)",
        "phase",
        ["device time", *(STATE_HEADS[s] for s in STATES)],
    )
    rows = account.by("phase")
    for (phase,), states in rows.items():
        all_ticks = sum(states)
        label = "after the last pass" if phase == "end" else str(phase)
        table.add_row(label, duration(seconds(all_ticks)), *_shares(states, all_ticks))
    total = account.total
    all_ticks = sum(total)
    table.add_section()
    label = "all" if devices == 1 else f"all {devices} devices"
    table.add_row(label, duration(seconds(all_ticks)), *_shares(total, max(1, all_ticks)))
    return table


def class_table(result: Result) -> Table:
    """The account by operator class, largest first, as shares of the whole."""
    account = result.account
    total = max(1, sum(account.total))
    streams = result.resolved.scenario.streams.count
    hidden = account.hidden_by("kind")
    table = plain_table(
        "By operator class (share of all device time)",
        "class",
        ["device time", "share", *(STATE_HEADS[s] for s in STATES[:6])]
        + ["hidden"] * (streams > 1),
    )
    rows = sorted(account.by("kind").items(), key=lambda row: -sum(row[1]))
    for (kind,), states in rows:
        mine = sum(states)
        table.add_row(
            str(kind),
            duration(seconds(mine)),
            f"{mine / total:.1%}",
            *_shares(states[:6], total),  # type: ignore[arg-type]
            *([_share(hidden.get((kind,), 0), total)] if streams > 1 else []),
        )
    return table


def stage_table(result: Result) -> Table:
    """The account by replica and stage; the ranks of a stage do the same."""
    account = result.account
    split = result.resolved.scenario.parallelism
    table = plain_table(
        "By stage (share of the makespan)", "devices", [STATE_HEADS[s] for s in STATES]
    )
    for (replica, stage), states in account.by("replica", "stage").items():
        assert isinstance(replica, int)
        assert isinstance(stage, int)
        group = split.group(replica, stage)
        name = f"gpu{group[0]}" + (f"-{group[-1]}" if len(group) > 1 else "")
        label = f"{name} (replica {replica}, stage {stage})"
        table.add_row(label, *_shares(states, max(1, sum(states))))
    return table


def counterfactual_table(result: Result) -> Table:
    """How much time a free resource would save: the run is repeated with it."""
    table = plain_table(
        "If one resource were free (found by running again)",
        "resource",
        ["makespan", "saved", "of the whole"],
    )
    names: dict[str, Any] = {"compute": "arithmetic", "hbm": "HBM", "sram": "on-chip memory"}
    names |= {"link": "links", "launch": "launches"}
    base = result.makespan
    for resource, makespan in result.counterfactual.items():
        saved = base - makespan
        share = f"{saved / base:.1%}" if base else "-"
        gain = f"-{duration(seconds(-saved))}" if saved < 0 else duration(seconds(saved))
        table.add_row(names[resource], duration(seconds(makespan)), gain, share)
    return table
