"""The loop as a picture: times over tokens, and predicted against measured."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from sim.output.plots.style import FAINT, INK, SERIES, figure, look, plain, save

OFF = 15  # per cent, dashed


def draw(table: pl.DataFrame, stem: Path) -> None:
    """`table` as `close_loop` gives it; writes PNG and SVG."""
    lengths = [int(n) for n in sorted(set(table["tokens"].to_list()))]
    with look():
        fig = figure("paper", 3.0)
        left, right = fig.subplots(1, 2)
        series = table.group_by("model", "phase", maintain_order=True)
        for number, (key, part) in enumerate(series):
            colour = SERIES[number % len(SERIES)]
            name, x = plain(", ".join(map(str, key))), part["tokens"].to_numpy()
            y, ours = (part[c].to_numpy() / 1e3 for c in ("latency_us", "predicted_us"))
            left.errorbar(x, y, part["spread_us"].to_numpy() / 1e3, fmt="o", ms=4, color=colour)
            left.plot(x, ours, color=colour, lw=1.2)
            right.plot(y, ours, "o", ms=4, color=colour, label=name)
        for ax in (left, right):
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.grid(True, which="major")
        left.set_xticks(lengths, [f"{n:d}" for n in lengths])
        left.minorticks_off()
        left.set_xlabel("tokens (of decode: in the cache)")
        left.set_ylabel("time of a pass (ms)")
        left.set_title("measured (points) and predicted (lines)")
        times = pl.concat([table["latency_us"], table["predicted_us"]]).to_numpy() / 1e3
        ends = [times.min() / 1.5, times.max() * 1.5]
        right.plot(ends, ends, color=INK, lw=0.8, zorder=0)
        for off in (1 - OFF / 100, 1 + OFF / 100):
            right.plot(ends, [e * off for e in ends], color=FAINT, lw=0.6, ls="--", zorder=0)
        right.set_xlabel("measured (ms)")
        right.set_ylabel("predicted (ms)")
        median = float(table["error_pct"].abs().to_frame().median().item())
        right.set_title(f"median error {median:.1f} %; dashed: {OFF} % off")
        fig.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save(fig, stem)
