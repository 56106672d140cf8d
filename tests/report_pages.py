"""Small results of every kind with their reports, and what stands in a report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sim.cli.run import RunOutput, run_scenario
from sim.inputs.documents import convert
from sim.mapping.parallelism import Parallelism
from sim.scenario import Scenario, Workload
from sim.serve.config import Serving
from sim.serve.session import ServeOutput, serve_scenario
from sim.studies.sweep.session import SweepOptions, sweep_scenario
from sim.studies.whatif.session import CompareOptions, compare_scenarios

KINDS = ("run", "serve", "sweep", "compare")
_DATA = re.compile(r'<script type="application/json" id="([\w-]+)-data">(.*?)</script>', re.DOTALL)
SERVING = {
    "model": "gpt2",
    "on": "h100-sxm",
    "traffic": {
        "arrivals": "poisson:200",
        "num_requests": 60,
        "prompt": "fixed:64",
        "output": "fixed:8",
    },
    "slo": {"ttft_s": 0.002, "tpot_s": 0.01},
}


def write_results(folder: Path) -> dict[str, Path]:
    """A result folder of each kind, each with its report."""
    out = {kind: folder / kind for kind in KINDS}
    run_scenario(
        Scenario(
            model="gpt2",
            on="hgx-h100",
            workload=Workload(batch=2, prompt=32, output=3),
            parallelism=Parallelism(tp=2, pp=2),
        ),
        RunOutput(out=out["run"], pictures=False, report=True),
    )
    serving = convert(SERVING, Serving, "test")
    serve_scenario(serving, ServeOutput(out=out["serve"], pictures=False, report=True))
    grid = ("batch=1,4,16", "prompt=64,512,1000", "tp=1,5")
    sweep_scenario(
        "gpt2",
        SweepOptions(
            on="hgx-h100",
            grid=grid,
            having="ttft_s <= 0.003",
            workers=1,
            out=out["sweep"],
            pictures=False,
            report=True,
        ),
    )
    options = CompareOptions(
        on="h100-sxm",
        set=("hbm.bandwidth_GBps=*2",),
        out=out["compare"],
        pictures=False,
        report=True,
    )
    compare_scenarios("gpt2", None, options)
    return out


def data_of(html: str) -> dict[str, Any]:
    """The charts and tables of a page by their names."""
    return {name: json.loads(text) for name, text in _DATA.findall(html)}


def shown(chart: dict[str, Any], view: int = 0) -> list[dict[str, Any]]:
    """The traces of a view."""
    return [trace for trace in chart["data"] if trace.get("meta", view) == view]
