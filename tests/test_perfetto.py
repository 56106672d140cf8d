"""Laws of the trace: complete events, lanes without overlap, and no picosecond lost."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sim import Parallelism, Result, Scenario, Workload, run
from sim.account.stalls import WAIT
from sim.output.perfetto import choose_passes, events, write_trace
from sim.states import NOTHING, STATES

SCENARIOS = {
    "encoder": Scenario(model="bert-base", on="h100-sxm", workload=Workload(batch=2, seq=128)),
    "decoder": Scenario(
        model="gpt2", on="h100-sxm", workload=Workload(batch=2, prompt=64, output=3)
    ),
    "split": Scenario(
        model="gpt2-large",
        on="hgx-h100",
        workload=Workload(batch=8, prompt=64, output=3),
        parallelism=Parallelism(tp=2, pp=2, dp=2, microbatches=2),
    ),
    "tensor": Scenario(
        model="gpt2-large",
        on="hgx-h100",
        workload=Workload(batch=2, prompt=64, output=2),
        parallelism=Parallelism(tp=4),
    ),
    "tiles": Scenario(
        model="gpt2",
        on="hgx-h100",
        workload=Workload(batch=2, prompt=256, output=2),
        parallelism=Parallelism(tp=2, pp=2),
        detail="tile",
    ),
    "prefetch": Scenario(
        model="gpt2",
        on="h100-sxm",
        workload=Workload(batch=2, prompt=256, output=2),
        set={"prefetch": True},
    ),
}


@pytest.fixture(scope="module", params=SCENARIOS)
def result(request: pytest.FixtureRequest) -> Result:
    return run(SCENARIOS[request.param])


def parsed(result: Result) -> list[dict[str, Any]]:
    # Decimals keep every digit: a microsecond with six of them is a whole number of ticks.
    return [json.loads(line, parse_float=Decimal) for line in events(result.record)]


def tick(value: Decimal) -> int:
    assert value * 10**6 == int(value * 10**6)
    return int(value * 10**6)


def slices(found: list[dict[str, Any]]) -> dict[tuple[int, int], list[tuple[int, int, str]]]:
    threads = defaultdict(list)
    for e in found:
        if e["ph"] == "X":
            begin = tick(e["ts"])
            threads[e["pid"], e["tid"]].append((begin, begin + tick(e["dur"]), e["name"]))
    return threads


def names(found: list[dict[str, Any]], what: str) -> dict[tuple[int, int], str]:
    return {(e["pid"], e["tid"]): e["args"]["name"] for e in found if e["name"] == what}


def test_every_event_has_what_the_format_asks_for(result: Result) -> None:
    for e in parsed(result):
        assert {"name", "ph", "ts", "pid", "tid", "args"} <= e.keys()
        assert e["ph"] in "XCM"
        assert e["ts"] >= 0
        if e["ph"] == "X":
            assert e["dur"] > 0


def test_slices_of_a_thread_nest_or_follow_one_another(result: Result) -> None:
    found = parsed(result)
    titles = names(found, "thread_name")
    for thread, mine in slices(found).items():
        assert thread in titles
        nested = titles[thread] == "operators"
        stack: list[int] = []
        for begin, end, _ in sorted(mine, key=lambda s: (s[0], -s[1])):
            while stack and stack[-1] <= begin:
                stack.pop()
            assert not stack or (nested and end <= stack[-1])
            stack.append(end)


def test_the_state_lane_of_every_device_is_the_account(result: Result) -> None:
    found = parsed(result)
    titles, threads = names(found, "thread_name"), slices(found)
    devices = result.account.devices
    total = dict.fromkeys(STATES, 0)
    for pid in range(devices):
        (thread,) = [t for t, name in titles.items() if t[0] == pid and name == "state"]
        clock = 0
        for begin, end, name in sorted(threads[thread]):
            assert begin == clock
            clock = end
            total[name] += end - begin
        assert clock == result.makespan
    assert tuple(total.values()) == result.account.total


def test_operators_bytes_and_flops_are_those_of_the_run(result: Result) -> None:
    found = [e for e in parsed(result) if e["ph"] == "X" and "flops" in e["args"]]
    assert sum(e["args"]["flops"] for e in found) == result.metrics.flops
    assert sum(e["args"].get("hbm_bytes", 0) for e in found) == result.metrics.hbm_bytes


def test_the_hbm_counter_integrates_to_the_bytes(result: Result) -> None:
    moved = 0.0
    counters = [e for e in parsed(result) if e["ph"] == "C" and e["name"] == "HBM bytes/s"]
    for pid in range(result.account.devices):
        mine = sorted((e["ts"], e["args"]["bytes/s"]) for e in counters if e["pid"] == pid)
        assert mine[-1][1] == 0
        for (begin, rate), (end, _) in pairwise(mine):
            moved += float(end - begin) * 1e-6 * rate
    assert moved == pytest.approx(result.metrics.hbm_bytes, rel=1e-6)


def test_lanes_work_as_long_as_the_steps_say(result: Result) -> None:
    found = parsed(result)
    titles = names(found, "thread_name")
    worked = defaultdict(int)
    for e in found:
        if "work_us" in e["args"]:
            worked[titles[e["pid"], e["tid"]]] += tick(e["args"]["work_us"])
    account = dict(zip(STATES, result.account.total, strict=True))
    # Waits hold the launches of sends, which belong to no operator.
    waits = dict(zip(STATES, result.account.by("kind").get((WAIT,), NOTHING), strict=True))
    launched = account["launch"] - waits["launch"]
    assert worked["host"] >= launched
    if not result.resolved.machine.device.prefetch:
        assert worked["host"] == launched
        assert worked["compute"] == account["compute"]


def test_links_carry_the_bytes_of_the_metrics() -> None:
    found = parsed(run(SCENARIOS["tensor"]))
    links = max(e["pid"] for e in found)
    assert links == 4
    # Every byte crosses two cables: to the switch, and from it.
    carried = sum(e["args"]["bytes"] for e in found if e["pid"] == links and e["ph"] == "X")
    expected = 2 * run(SCENARIOS["tensor"]).metrics.link_bytes
    assert carried == pytest.approx(expected, rel=1e-4)
    sent = [e for e in found if e["name"] == "link bytes/s, sent"]
    assert {e["pid"] for e in sent} == {0, 1, 2, 3}
    assert sent[-1]["args"]["bytes/s"] == 0


def test_files_are_json_and_the_same_each_time(result: Result, tmp_path: Path) -> None:
    plain = write_trace(result, tmp_path / "trace.json")
    packed = write_trace(result, tmp_path / "trace.json.gz")
    document = json.loads(plain.read_bytes())
    assert document["traceEvents"]
    assert document["otherData"]["passes_left_out"] == "none"
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    again = write_trace(result, tmp_path / "again.json.gz")
    assert again.read_bytes() == packed.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "again.json.gz",
        "trace.json",
        "trace.json.gz",
    ]


def test_a_long_run_is_cut_to_its_first_and_last_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = run(SCENARIOS["decoder"])
    assert choose_passes(long.record) is None
    monkeypatch.setattr("sim.output.perfetto.MOST_SPANS", 10)
    assert choose_passes(long.record) == {0, 2}
    document = json.loads(write_trace(long, tmp_path / "t.json").read_bytes())
    assert document["otherData"]["passes_left_out"] == "1"
    assert {e["args"].get("pass") for e in document["traceEvents"]} == {None, 0, 2}
