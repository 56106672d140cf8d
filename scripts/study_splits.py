"""Tensor or pipeline parallelism? Every split of eight devices, and where a token's time goes.

    .venv/bin/python scripts/study_splits.py [FOLDER]

Draws the device time per token by state for every split at one batch, and the Pareto front of all
splits and batches: tokens per second per user against those per device.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sim.output.plots.headings import heading
from sim.output.plots.style import STATE_COLOURS, figure, look, save, state_handles
from sim.states import STATES
from sim.studies.sweep.fronts import Metric, Record, pareto, usable
from sim.studies.sweep.grid import sweep_of
from sim.studies.sweep.plots import plot_front
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.report import name_of
from sim.studies.sweep.study import run_sweep

MODEL, SYSTEM, BATCH, OUTPUT = "llama-3.1-70b", "hgx-h100", 64, 8
GRID = ["tp=1,2,4,8", "pp=1,2,4,8", "microbatches=1,2,4,8", "batch=1:256:x4"]
FIXED = ["prompt=1024", f"output={OUTPUT}"]
WHERE = "tp*pp <= 8 and (microbatches == 1 or microbatches == pp) and microbatches <= batch"
SPLIT = ("tp", "pp", "microbatches")
COLUMNS = kind_of("run").columns
METRICS = (
    Metric("tokens_per_s_per_user", COLUMNS, ""),
    Metric("tokens_per_s_per_device", COLUMNS, ""),
)


def compute() -> list[Record]:
    """Every point of the grid."""
    base = {"model": MODEL, "on": SYSTEM}
    return run_sweep(sweep_of("run", base, [*GRID, *FIXED], WHERE)).records()


def described(records: list[Record]) -> list[Record]:
    """What is drawn of each point that fits."""
    keys = (*SPLIT, "batch", *(m.name for m in METRICS), *(f"{state}_ps" for state in STATES))
    return [{key: record[key] for key in keys} for record in usable(records)]


def draw(records: list[Record], folder: Path) -> list[Path]:
    """The front of all points, and the bars of those with one batch."""
    good = usable(records)
    folder.mkdir(parents=True, exist_ok=True)
    what = f"{MODEL} on {SYSTEM} · prompt 1024 · output {OUTPUT}"
    written = plot_front(good, [*SPLIT, "batch"], METRICS, what, folder / "study-front")
    return written + plot_bars(
        [r for r in good if r["batch"] == BATCH], what, folder / "study-splits"
    )


def main(folder: Path) -> None:
    records = compute()
    good = usable(records)
    print(f"{len(records)} points, {len(good)} of them fit")
    user, device = METRICS
    for point in pareto(good, user, device):
        named = name_of({key: point[key] for key in (*SPLIT, "batch") if point[key] > 1})
        print(f"{point[user.name]:6.1f} /s/user, {point[device.name]:6.1f} /s/device: {named}")
    for path in draw(records, folder):
        print(f"written to {path}")


def plot_bars(records: list[Record], what: str, stem: Path) -> list[Path]:
    """Device time per token by state, one bar per split, the cheapest first."""
    ordered = sorted(records, key=lambda r: -r["tokens_per_s_per_device"])
    with look():
        fig = figure("paper", 0.9 + 0.21 * len(ordered))
        ax = fig.add_subplot()
        seen = set()
        for place, record in enumerate(ordered):
            at = 0.0
            tokens = BATCH * OUTPUT
            for state in STATES:
                width = record[f"{state}_ps"] / tokens / 1e9
                if width:
                    ax.barh(place, width, 0.72, left=at, color=STATE_COLOURS[state])
                    seen.add(state)
                    at += width
        names = [name_of({key: r[key] for key in SPLIT if r[key] > 1}) for r in ordered]
        ax.set_yticks(range(len(ordered)), [n.replace("microbatches", "micro") for n in names])
        ax.invert_yaxis()
        ax.set_xlabel("device time per token, all devices together (ms), less is better")
        ax.grid(axis="x")
        heading(fig, f"{what} · batch {BATCH}", bold=True)
        fig.legend(*state_handles(seen), loc="outside lower center", ncols=7, handlelength=1.2)
    return save(fig, stem)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
