"""What if HBM were faster? TPOT and TTFT of one model over the bandwidth, and who gets the rest.

    .venv/bin/python scripts/study_bandwidth.py [FOLDER]

Prints one sentence per step and draws where a token's time goes at every bandwidth.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from sim import Scenario, Workload, run
from sim.output.plots.headings import heading
from sim.output.plots.style import STATE_COLOURS, figure, look, save, state_handles
from sim.states import STATES
from sim.studies.whatif import Breakdown, compare
from sim.studies.whatif.runs import break_down

MODEL, DEVICE = "llama-3.1-8b", "h100-sxm"
TODAY, TIMES = 3350.0, (0.5, 1, 2, 4, 8)


def compute() -> dict[float, dict[str, Breakdown]]:
    """TTFT and TPOT, taken apart, at each multiple of today's bandwidth."""
    found = {}
    for by in TIMES:
        scenario = Scenario(
            model=MODEL,
            on=DEVICE,
            workload=Workload(prompt=2048, output=16),
            set={"hbm.bandwidth_GBps": TODAY * by},
        )
        found[by] = {m: break_down(run(scenario), m) for m in ("ttft", "tpot")}
    return found


def described(found: dict[float, dict[str, Breakdown]]) -> dict[str, object]:
    """Milliseconds by metric, bandwidth in GB/s and state."""
    return {
        metric: {
            f"{TODAY * by:g}": {c.state: float(x) / 1e9 for c, x in one[metric].by("state").items()}
            for by, one in found.items()
        }
        for metric in ("ttft", "tpot")
    }


def draw(found: dict[float, dict[str, Breakdown]], folder: Path) -> list[Path]:
    """Where the time goes at each bandwidth."""
    with look():
        fig = figure("paper", 2.6)
        seen = set()
        for ax, metric in zip(fig.subplots(1, 2), ("ttft", "tpot"), strict=True):
            for place, by in enumerate(TIMES):
                at = 0.0
                states = {c.state: x for c, x in found[by][metric].by("state").items()}
                for state in (s for s in STATES if s in states):
                    height = float(states[state]) / 1e9
                    ax.bar(place, height, 0.7, bottom=at, color=STATE_COLOURS[state])
                    at += height
                    seen.add(state)
            ax.set_xticks(range(len(TIMES)), [f"{TODAY * by / 1000:.3g}" for by in TIMES])
            ax.set_xlabel("HBM bandwidth (TB/s)")
            ax.set_ylabel(f"{metric.upper()} (ms), less is better")
            ax.grid(axis="y")
        what = f"{MODEL} on {DEVICE} · batch 1 · prompt 2048"
        heading(fig, f"What if HBM were faster? {what}")
        fig.legend(*state_handles(seen), loc="outside lower center", ncols=7, handlelength=1.2)
    folder.mkdir(parents=True, exist_ok=True)
    return save(fig, folder / "study-bandwidth")


def main(folder: Path) -> None:
    found = compute()
    for metric in ("ttft", "tpot"):
        for before, after in itertools.pairwise(TIMES):
            told = compare(found[before][metric], found[after][metric]).sentence()
            print(f"{TODAY * before:6,.0f} -> {TODAY * after:6,.0f} GB/s: {told}")
    for path in draw(found, folder):
        print(f"written to {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
