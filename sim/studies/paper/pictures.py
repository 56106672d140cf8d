"""The figures, ours as lines and the papers' values as marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sim.output.plots.style import SERIES, figure, look, save
from sim.studies.paper.cells import Section
from sim.studies.paper.trends import Series, fit, load_points, without_experts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODELS = ("BERT-Base", "BERT-Large", "GPT-2")
COLOURS = dict(zip(MODELS, SERIES, strict=False))
MARKS = dict(zip(MODELS, "os^", strict=True))
X_LABEL = "sequence length, tokens"


def draw(sections: Sequence[Section], out: Path) -> list[Path]:
    """Draw all figures into a folder as PNG and SVG."""
    by_title = {section.title.partition(":")[0]: section for section in sections}
    with look():
        pictures = {
            "paper-figures-4-5-6": _end_to_end([by_title[f"Fig {n}"] for n in (4, 5, 6)]),
            "paper-figure-9": _latency(
                by_title["Fig 9"], "Fig 9: latency on a CPU, one bandwidth calibrated"
            ),
            "paper-figure-32": _latency(
                by_title["Fig 32"], "Fig 32: latency on the accelerator, nothing fitted to it"
            ),
            "paper-trends": _trends(load_points()),
        }
        written: list[Path] = []
        for stem, picture in pictures.items():
            written += save(picture, out / stem)
    return written


def _end_to_end(sections: list[Section]) -> Figure:
    fig = figure("paper", 2.9)
    axes = fig.subplots(1, 3)
    names = ("Fig 4: GFLOPs", "Fig 5: GMOPs", "Fig 6: FLOPs per MOP")
    for ax, section, name in zip(axes, sections, names, strict=True):
        _curves(ax, section, linear=section is sections[-1])
        ax.set_title(name)
        ax.set_xlabel(X_LABEL)
    _legend(fig, axes[0])
    return fig


def _latency(section: Section, title: str) -> Figure:
    fig = figure("paper", 3.4)
    ax = fig.subplots()
    _curves(ax, section)
    ax.set_title(title)
    ax.set_xlabel(X_LABEL)
    ax.set_ylabel("latency, BERT-Base at 128 = 1")
    _legend(fig, ax)
    return fig


def _curves(ax: Axes, section: Section, *, linear: bool = False) -> None:
    """Ours as lines, printed values as hollow marks; the lengths on a logarithmic axis."""
    lengths = [int(column) for column in section.columns]
    for name in MODELS:
        cells = [section.cell(name, column) for column in section.columns]
        colour = COLOURS[name]
        ax.plot(lengths, [c.ours for c in cells], color=colour, lw=1.3, label=f"{name}, ours")
        ax.plot(
            lengths,
            [c.value for c in cells],
            ls="",
            marker=MARKS[name],
            ms=5,
            mfc="none",
            mec=colour,
            clip_on=False,
            label=f"{name}, printed",
        )
    ax.set_xscale("log", base=2)
    if linear:
        ax.set_ylim(bottom=0)
    else:
        ax.set_yscale("log")
    ax.set_xticks(lengths, [str(n) for n in lengths])
    ax.minorticks_off()
    ax.tick_params(axis="x", labelsize=6.5)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.grid(axis="y")


def _legend(fig: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(MODELS))


def _trends(series: dict[str, Series]) -> Figure:
    fig = figure("paper", 3.8)
    left, middle, right = fig.subplots(1, 3)
    hardware = ("peak FLOPS", "DRAM bandwidth", "interconnect bandwidth")
    for name, colour, mark in zip(hardware, SERIES, "os^", strict=False):
        _trend(left, series[name], colour, mark, name)
    left.set_title("Hardware, first = 1")
    size = series["model size"]
    _trend(middle, size, SERIES[0], "o", "model size, 10⁹ parameters")
    dense = fit(without_experts(size))
    years = [size.points[0].year, size.points[-1].year]
    middle.plot(
        years,
        [dense.at(y) for y in years],
        color=SERIES[0],
        ls=":",
        label=f"without experts: {dense.two_years:.0f} x",
    )
    _trend(middle, series["accelerator memory"], SERIES[1], "s", "accelerator memory, GB")
    middle.set_title("Models and memory")
    _trend(right, series["training compute"], SERIES[2], "o", "training compute, PFLOP")
    right.set_title("Training compute")
    for ax in (left, middle, right):
        ax.set_yscale("log")
        ax.set_xlabel("year")
        ax.grid(axis="y")
        ax.minorticks_off()
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(
            handles,
            labels,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            title="growth in 2 years",
            alignment="left",
            title_fontsize=7.5,
        )
    middle.set_xticks(range(2017, 2023))
    right.set_xticks(range(2018, 2021))
    return fig


def _trend(ax: Axes, series: Series, colour: str, mark: str, label: str) -> None:
    line = fit(series.points)
    years = [p.year for p in series.points]
    ends = [min(years), max(years)]
    ax.plot(years, [p.value for p in series.points], mark, ms=3.5, mfc="none", mec=colour)
    digits = 0 if line.two_years >= 100 else 3
    growth = f"{label}: {line.two_years:.{digits}f} x"
    ax.plot(ends, [line.at(y) for y in ends], color=colour, lw=1.3, label=growth)
