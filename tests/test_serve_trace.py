"""Laws of the trace of a serving run with several stages and ranks."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sim.inputs.documents import convert
from sim.output.plots.style import STATE_NAMES
from sim.serve.config import Serving
from sim.serve.serving import Served, serve
from sim.serve.session import record_of, summary
from sim.serve.trace import FIRST_DEVICE, write_window
from sim.serve.trace_devices import BOUNDS
from sim.states import STATES
from tests.trace_format import check_trace, slices, tick

CASES: dict[str, dict[str, int]] = {
    "one device": {},
    "ranks": {"tp": 2},
    "stages": {"tp": 2, "pp": 2},
}


class Made(NamedTuple):
    """A run with the events of its whole trace."""

    served: Served
    metrics: dict[str, Any]
    events: list[dict[str, Any]]
    about: dict[str, str]


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    case = CASES[request.param]
    serving = {
        "model": "gpt2",
        "on": "hgx-h100",
        "replicas": 2,
        "parallelism": case,
        "traffic": {
            "arrivals": "poisson:400",
            "num_requests": 40,
            "prompt": "fixed:64",
            "output": "fixed:6",
        },
    }
    served = serve(convert(serving, Serving, "test"))
    path = tmp_path_factory.mktemp("trace") / "trace.json.gz"
    write_window(path, record_of(served), (0, served.makespan + 1))
    document = json.loads(gzip.decompress(path.read_bytes()), parse_float=Decimal)
    return Made(served, summary(served), document["traceEvents"], document["otherData"])


def lanes(made: Made) -> dict[tuple[int, int], str]:
    """The names of the lanes of devices."""
    return {
        (e["pid"], e["tid"]): e["args"]["name"]
        for e in made.events
        if e["name"] == "thread_name" and e["args"]["name"].startswith("gpu")
    }


def test_a_trace_keeps_the_rules_of_its_format(made: Made) -> None:
    check_trace(made.events)


def test_equal_ranks_are_one_lane(made: Made) -> None:
    split = made.served.serving.parallelism
    found = lanes(made)
    assert len(found) == 2 * split.pp
    assert {tid for _, tid in found} == {FIRST_DEVICE + stage for stage in range(split.pp)}
    first = found[1, FIRST_DEVICE]
    device = split.tp * split.pp
    if split.tp == 1:
        assert first == f"gpu{device} (stage 0)"
    else:
        assert first == f"gpu{device}-{device + 1} (stage 0, 2 equal ranks)"


def test_the_states_of_the_lanes_are_the_account_but_for_waits(made: Made) -> None:
    total: Counter[str] = Counter()
    for thread, mine in slices(made.events).items():
        if thread in lanes(made):
            assert all(a[1] <= b[0] for a, b in pairwise(mine))
            for begin, end, e in mine:
                assert e["args"]["bound"] in BOUNDS
                assert {"step", "step_flops", "step_hbm_bytes"} < e["args"].keys()
                total[e["name"]] += (end - begin) * made.served.serving.parallelism.tp
    account = made.metrics["account_ps"]
    waits = {"bubble", "idle"}
    assert total == Counter({STATE_NAMES[s]: account[s] for s in STATES if s not in waits})
    assert sum(account.values()) == made.metrics["devices"] * made.metrics["makespan_ps"]


def test_counters_integrate_to_the_work_of_the_run(made: Made) -> None:
    split = made.served.serving.parallelism
    points: dict[tuple[int, str], list[tuple[int, float]]] = defaultdict(list)
    for e in made.events:
        if e["ph"] == "C" and "of one device" in e["args"]:
            points[e["pid"], e["name"]].append((tick(e["ts"]), float(e["args"]["of one device"])))
    total: dict[str, float] = defaultdict(float)
    for (_, name), mine in points.items():
        assert mine[-1][1] == 0
        what = name.partition(",")[0]
        for (begin, rate), (end, _) in pairwise(mine):
            total[what] += (end - begin) * 1e-12 * rate * split.tp
    peak = record_of(made.served).matrix_peak_flops
    assert peak
    assert total["FLOP/s"] == pytest.approx(made.metrics["flops"], rel=1e-6)
    assert total["MFU"] * peak == pytest.approx(made.metrics["flops"], rel=1e-5)
    assert total["HBM bytes/s"] == pytest.approx(made.metrics["hbm_bytes"], rel=1e-6)


def test_flows_follow_each_step_through_the_stages(made: Made) -> None:
    flows = Counter((e["name"], e["ph"]) for e in made.events if e["ph"] in "stf")
    hops = made.metrics["steps"] * (made.served.serving.parallelism.pp - 1)
    assert flows == (Counter({("hand-off", "s"): hops, ("hand-off", "f"): hops}) if hops else {})


def test_the_metadata_say_what_is_shown(made: Made, tmp_path: Path) -> None:
    assert made.about["requests"] == "40 of 40 in the window written, the earliest first"
    again = write_window(tmp_path / "a.json", record_of(made.served), (0, made.served.makespan + 1))
    assert json.loads(again.read_text(), parse_float=Decimal)["traceEvents"] == made.events
