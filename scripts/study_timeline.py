"""Where a pipeline of four stages stalls: its critical path, and one layer close up.

    .venv/bin/python scripts/study_timeline.py [FOLDER]

Prints which stage has the critical path for how long, and draws the prompt's pass and a layer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sim import Parallelism, Result, Scenario, Workload, run
from sim.account.critical import critical_path
from sim.output.plots.timeline_view import View, plot_view
from sim.states import STATES

SCENARIO = Scenario(
    model="llama-3.1-70b",
    on="hgx-h100",
    workload=Workload(batch=8, prompt=1024, output=4),
    parallelism=Parallelism(tp=2, pp=4, microbatches=4),
)


def compute() -> Result:
    return run(SCENARIO)


def described(result: Result) -> dict[str, object]:
    """Milliseconds of the run, of each stage on the critical path and of the transfers on it, and
    the share of each state in the time of all devices."""
    path = critical_path(result.record)
    critical = [0] * SCENARIO.parallelism.pp
    for leg in path:
        if not leg.moves:
            critical[leg.stage] += leg.end - leg.begin
    return {
        "makespan_ms": result.makespan / 1e9,
        "critical_ms": [t / 1e9 for t in critical],
        "transfers_ms": sum(leg.end - leg.begin for leg in path if leg.moves) / 1e9,
        "shares": {state: result.account.share(state) for state in STATES},
    }


def draw(result: Result, folder: Path) -> list[Path]:
    """The pass of the prompt, and a layer of a token's pass."""
    folder.mkdir(parents=True, exist_ok=True)
    views = {"study-timeline": View(number=0), "study-timeline-layer": View(number=1, layer=0)}
    return [path for name, view in views.items() for path in plot_view(result, folder / name, view)]


def main(folder: Path) -> None:
    result = compute()
    found: dict[str, Any] = described(result)
    for stage, critical in enumerate(found["critical_ms"]):
        print(f"stage {stage} is critical for {critical:8.3f} ms")
    moved, whole = found["transfers_ms"], found["makespan_ms"]
    print(f"transfers are critical for {moved:8.3f} ms of {whole:.3f} ms")
    print(f"bubbles take {found['shares']['bubble']:.1%} of all device time")
    for path in draw(result, folder):
        print(f"written to {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
