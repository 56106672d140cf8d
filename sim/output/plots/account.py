"""Where the time went: stacked bars of the account by phase, operator class and stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sim.account.stalls import WAIT
from sim.output.plots.headings import heading
from sim.output.plots.style import (
    FAINT,
    INK,
    STATE_COLOURS,
    figure,
    look,
    save,
    shown,
    state_handles,
    title,
    unit_of,
)
from sim.simulation import Result
from sim.states import NOTHING, STATES, Ticks, add

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bars = list[tuple[str, Ticks]]  # label, ticks summed over the bar's devices

MOST_CLASSES, MOST_STAGES = 10, 12
_PHASES = ("encode", "prefill", "mixed", "decode", "end")
_WHITE_ON = {"compute", "hbm", "link", "bubble"}


def plot_account(result: Result, stem: Path, counterfactual: bool = False) -> list[Path]:
    """Write the picture as PNG and SVG. `counterfactual` runs the scenario again, five times."""
    with look():
        fig = draw_account(result, counterfactual)
    return save(fig, stem)


def phase_bars(result: Result) -> Bars:
    """One bar a phase, in the order of the run."""
    by_phase = result.account.by("phase")
    names = sorted(by_phase, key=lambda k: _PHASES.index(str(k[0])) if k[0] in _PHASES else 9)
    return [("after the last pass" if k[0] == "end" else str(k[0]), by_phase[k]) for k in names]


def class_bars(result: Result) -> Bars:
    """One bar an operator class, the longest first, the smallest put together."""
    by_class = {str(k[0]): v for k, v in result.account.by("kind").items()}
    waiting = by_class.pop(WAIT, None)
    ranked = sorted(by_class.items(), key=lambda item: -sum(item[1]))
    bars = ranked[:MOST_CLASSES]
    if rest := ranked[MOST_CLASSES:]:
        rest_sum = NOTHING
        for _, states in rest:
            rest_sum = add(rest_sum, states)
        bars.append((f"{len(rest)} other classes", rest_sum))
    if waiting:
        bars.append(("between operators", waiting))
    return bars


def stage_bars(result: Result) -> Bars:
    """One bar a stage; with few replicas, one a stage of each replica."""
    split = result.record.compiled.plan.split
    if split.devices == 1:
        return []
    if split.dp > 1 and split.dp * split.pp <= MOST_STAGES:
        by_stage = result.account.by("replica", "stage")
        return [(f"replica {k[0]}, stage {k[1]}", by_stage[k]) for k in sorted(by_stage, key=str)]
    by_stage = result.account.by("stage")
    ordered = sorted(by_stage, key=lambda k: int(str(k[0])))
    bars = [(_stage_label(result, int(str(k[0]))), by_stage[k]) for k in ordered]
    return bars


def _stage_label(result: Result, stage: int) -> str:
    split = result.record.compiled.plan.split
    first, last = split.device(0, stage, 0), split.device(0, stage, split.tp - 1)
    devices = f"gpu{first}" if first == last else f"gpu{first}–{last}"  # noqa: RUF001
    return f"stage {stage} ({devices}{' and replicas' if split.dp > 1 else ''})"


def draw_account(result: Result, counterfactual: bool = False) -> Figure:
    """The figure; every bar is the mean time of a device."""
    split = result.record.compiled.plan.split
    stages = stage_bars(result)
    panels = [
        ("by phase", phase_bars(result), split.devices),
        ("by operator class", class_bars(result), split.devices),
    ]
    if stages:
        per_bar = split.tp if stages[0][0].startswith("replica") else split.tp * split.dp
        name, half = "by stage", MOST_STAGES // 2
        if len(stages) > MOST_STAGES:
            name += f": the first {half} and the last {half} of {len(stages)}"
            stages = [*stages[:half], *stages[-half:]]
        panels.append((name, stages, per_bar))
    free = result.counterfactual if counterfactual else {}
    heights = [len(bars) + 1.0 for _, bars, _ in panels] + ([len(free) + 2.0] if free else [])
    fig = figure("paper", 1.15 + 0.215 * sum(heights))
    axes = fig.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    unit, size = unit_of(result.makespan)
    longest = max(sum(t) / n for _, bars, n in panels for _, t in bars)
    reach = max([longest, *(free.values()), result.makespan if free or stages else 0])
    scale = Scale(result.makespan, unit, size, reach)
    for ax, (name, bars, devices) in zip(axes, panels, strict=False):
        _stack(ax, bars, devices, scale)
        ax.set_title(name)
    if free:
        _what_if(axes[-1], free, scale)
    for ax in axes:
        ax.set_xlim(0, reach / size * 1.19)  # room for the numbers behind the bars
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.label_outer()
    axes[-1].set_xlabel(f"time of a device, mean over {split.devices} devices ({unit})")
    if split.devices == 1:
        axes[-1].set_xlabel(f"time ({unit})")
    seen = {s for s, t in zip(STATES, result.account.total, strict=True) if t}
    heading(fig, title(result.resolved))
    fig.legend(*state_handles(seen), loc="outside lower center", ncols=7, handlelength=1.2)
    return fig


class Scale(NamedTuple):
    """What bars are drawn against: the makespan in ticks, the unit of the axis and its ticks, and
    the longest bar in ticks."""

    makespan: int
    unit: str
    size: float
    reach: float


def _stack(ax: Axes, bars: Bars, devices: int, scale: Scale) -> None:
    makespan, unit, size, reach = scale
    for row, (_, ticks) in enumerate(bars):
        left = 0.0
        for state, t in zip(STATES, ticks, strict=True):
            width = t / devices / size
            if not width:
                continue
            ax.barh(row, width, 0.72, left=left, color=STATE_COLOURS[state], linewidth=0)
            share = t / devices / makespan
            if width * size > 0.045 * reach:
                colour = "white" if state in _WHITE_ON else INK
                at = left + width / 2
                ax.text(
                    at, row, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=6.5
                )
            left += width
        label = f" {shown(sum(ticks) / devices, size)} {unit}, {_percent(ticks, devices, makespan)}"
        ax.text(left, row, label, va="center", fontsize=7, color=INK)
    ax.set_yticks(range(len(bars)), [label for label, _ in bars])
    ax.set_ylim(len(bars) - 0.4, -0.6)


def _percent(ticks: Ticks, devices: int, makespan: int) -> str:
    share = sum(ticks) / devices / makespan
    if share < 0.0005:
        return "<0.1%"
    return f"{share:.0%}" if share >= 0.0095 else f"{share:.1%}"


def _what_if(ax: Axes, free: dict[str, int], scale: Scale) -> None:
    makespan, unit, size, _ = scale
    names = {"compute": "arithmetic", "hbm": "HBM", "sram": "on-chip memory", "link": "links"}
    bars = [("as it is", makespan, FAINT)]
    for resource, t in free.items():
        label = f"{names.get(resource, 'launches')} free"
        bars.append((label, t, STATE_COLOURS[resource]))
    for row, (_, t, colour) in enumerate(bars):
        ax.barh(row, t / size, 0.72, color=colour, linewidth=0)
        gain = (t - makespan) / makespan if makespan else 0.0
        digits = 0 if abs(gain) >= 0.0095 else 1
        change = "" if row == 0 else f", {gain:+.{digits}%}"
        ax.text(t / size, row, f" {shown(t, size)} {unit}{change}", va="center", fontsize=7)
    ax.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.set_title("makespan, if one resource cost nothing")
