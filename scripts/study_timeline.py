"""Where a pipeline of four stages stalls: its critical path, and one layer close up.

    .venv/bin/python scripts/study_timeline.py [FOLDER]

Prints which stage has the critical path for how long, and draws the prompt's pass and a layer.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sim import Parallelism, Scenario, Workload, run
from sim.account.critical import critical_path
from sim.output.plots.timeline_view import View, plot_view

SCENARIO = Scenario(
    model="llama-3.1-70b",
    on="hgx-h100",
    workload=Workload(batch=8, prompt=1024, output=4),
    parallelism=Parallelism(tp=2, pp=4, microbatches=4),
)


def main(folder: Path) -> None:
    result = run(SCENARIO)
    path = critical_path(result.record)
    for stage in range(SCENARIO.parallelism.pp):
        mine = sum(leg.end - leg.begin for leg in path if leg.stage == stage and not leg.moves)
        print(f"stage {stage} is critical for {mine / 1e9:8.3f} ms")
    moved = sum(leg.end - leg.begin for leg in path if leg.moves)
    print(f"transfers are critical for {moved / 1e9:8.3f} ms of {result.makespan / 1e9:.3f} ms")
    print(f"bubbles take {result.account.share('bubble'):.1%} of all device time")
    folder.mkdir(parents=True, exist_ok=True)
    views = {"study-timeline": View(number=0), "study-timeline-layer": View(number=1, layer=0)}
    for name, view in views.items():
        for written in plot_view(result, folder / name, view):
            print(f"written to {written}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
