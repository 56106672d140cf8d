"""Laws of the trace: strict events, flows that join slices, and no picosecond or FLOP lost."""

from __future__ import annotations

import gzip
import json
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sim import Parallelism, Result, Scenario, Workload, run
from sim.account.lanes import folded
from sim.account.stalls import WAIT
from sim.account.timeline import spans
from sim.cost.model import matrix_rate
from sim.mapping.streams import Streams
from sim.output.perfetto import choose_passes, events, write_trace
from sim.output.plots.style import STATE_NAMES
from sim.states import NOTHING, STATES
from tests.trace_format import NANO, check_trace, slices, tick

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
    "apart": Scenario(
        model="gpt2-large",
        on="hgx-h100",
        workload=Workload(batch=2, prompt=64, output=2),
        parallelism=Parallelism(tp=2, pp=2),
        shortcuts=False,
    ),
    "streams": Scenario(
        model="gpt2-large",
        on="hgx-h100",
        workload=Workload(batch=4, prompt=64, output=2),
        parallelism=Parallelism(tp=2),
        streams=Streams(count=2, rule="collectives"),
    ),
}


@pytest.fixture(scope="module", params=SCENARIOS)
def result(request: pytest.FixtureRequest) -> Result:
    return run(SCENARIOS[request.param])


def parsed(result: Result) -> list[dict[str, Any]]:
    # Decimals keep every digit: a microsecond with six of them is a whole number of ticks.
    return [json.loads(line, parse_float=Decimal) for line in events(result.record)]


def names(found: list[dict[str, Any]], what: str) -> dict[tuple[int, int], str]:
    return {(e["pid"], e["tid"]): e["args"]["name"] for e in found if e["name"] == what}


def devices(found: list[dict[str, Any]]) -> dict[int, int]:
    """How many devices each process stands for, by its name."""
    stands = {}
    for (pid, _), name in names(found, "process_name").items():
        match = re.match(r"gpu(\d+)(?:-(\d+))? \(", name)
        if match:
            assert int(match[1]) == pid
            stands[pid] = int(match[2] or match[1]) - pid + 1
            assert stands[pid] == 1 or f"{stands[pid]} equal ranks" in name
    return stands


def test_a_trace_keeps_the_rules_of_its_format(result: Result) -> None:
    check_trace(parsed(result))


def test_slices_of_a_thread_follow_one_another_to_the_picosecond(result: Result) -> None:
    found = parsed(result)
    titles = names(found, "thread_name")
    for thread, mine in slices(found).items():
        inner = [s[:2] for s in mine if titles[thread] != "operators" or "bound" in s[2]["args"]]
        assert all(a[1] <= b[0] for a, b in pairwise(sorted(inner)))


def test_equal_ranks_are_shown_once(result: Result) -> None:
    stands = devices(parsed(result))
    assert sum(stands.values()) == result.account.devices
    alike = result.record.compiled.ranks == (0,)
    split = result.resolved.scenario.parallelism
    assert set(stands.values()) == {split.tp if alike else 1}


def test_the_state_lane_of_every_device_is_the_account(result: Result) -> None:
    found = parsed(result)
    titles, threads = names(found, "thread_name"), slices(found)
    total = dict.fromkeys(STATES, 0)
    for pid, count in devices(found).items():
        (thread,) = [t for t, name in titles.items() if t[0] == pid and name == "state"]
        clock = 0
        for begin, end, e in sorted(threads[thread], key=lambda s: s[:2]):
            assert begin == clock
            clock = end
            (state,) = [s for s, name in STATE_NAMES.items() if name == e["name"]]
            total[state] += (end - begin) * count
        assert clock == result.makespan
    assert tuple(total.values()) == result.account.total


def test_a_state_says_whose_it_is(result: Result) -> None:
    found = parsed(result)
    titles, threads = names(found, "thread_name"), slices(found)
    for pid in devices(found):
        work = {e["name"]: e["args"] for e in found if e["pid"] == pid and "bound" in e["args"]}
        (thread,) = [t for t, name in titles.items() if t[0] == pid and name == "state"]
        for *_, e in threads[thread]:
            args = e["args"]
            if "operator" in args:
                assert args["bound"] in {"compute", "memory", "sram", "launch", "collective"}
                assert args["operator"] in work
                assert {"layer", "operator_flops"} < args.keys()
            else:
                assert e["name"] in {"bubble", "idle", "link wait", "launch"}
                assert "pass" in args


def test_an_operator_lies_in_its_layer(result: Result) -> None:
    found = parsed(result)
    titles = names(found, "thread_name")
    seen = set()
    for thread, mine in slices(found).items():
        layers = sorted((b, end, e["name"]) for b, end, e in mine if " layer " in e["name"])
        for begin, end, e in mine:
            if "flops" not in e["args"] or e["args"]["layer"] < 0:
                continue
            seen.add(e["args"]["layer"])
            if titles[thread] == "operators":
                outer = layers[bisect_right(layers, (begin, 2**63)) - 1]
                assert outer[0] <= begin < end < outer[1] + NANO
                assert outer[2] == f"{e['args']['stack']} layer {e['args']['layer']}"
    assert seen == set(range(result.resolved.model.num_layers))


def test_operators_bytes_and_flops_are_those_of_the_run(result: Result) -> None:
    found = parsed(result)
    stands = devices(found)
    mine = [e for e in found if e["ph"] == "X" and "flops" in e["args"]]
    assert sum(e["args"]["flops"] * stands[e["pid"]] for e in mine) == result.metrics.flops
    moved = sum(e["args"].get("hbm_bytes", 0) * stands[e["pid"]] for e in mine)
    assert moved == result.metrics.hbm_bytes


def test_counters_integrate_to_the_work_of_the_run(result: Result) -> None:
    found = parsed(result)
    plan = result.record.compiled.plan
    peak = matrix_rate(plan.device, plan.precision.activations)
    total: dict[str, float] = defaultdict(float)
    for pid, count in devices(found).items():
        for name in ("FLOP/s", "MFU", "HBM bytes/s"):
            mine = [e for e in found if (e["ph"], e["pid"], e["name"]) == ("C", pid, name)]
            points = [(e["ts"], float(e["args"]["of one device"])) for e in mine]
            assert points[-1][1] == 0
            assert name != "MFU" or all(0 <= share <= 1 for _, share in points)
            for (begin, rate), (end, _) in pairwise(points):
                total[name] += float(end - begin) * 1e-6 * rate * count
    assert total["FLOP/s"] == pytest.approx(result.metrics.flops, rel=1e-6)
    assert total["MFU"] * peak == pytest.approx(result.metrics.flops, rel=1e-5)
    assert total["HBM bytes/s"] == pytest.approx(result.metrics.hbm_bytes, rel=1e-6)


def test_flows_are_the_collectives_on_each_rank_and_the_sends(result: Result) -> None:
    found = parsed(result)
    stands = devices(found)
    joined: Counter[str] = Counter()
    for e in found:
        if e["ph"] == "s":
            joined[e["name"]] += stands[e["pid"]]
    compiled = result.record.compiled
    tp = compiled.plan.split.tp
    steps = [span.step for span in spans(result.record) if span.rank == 0 and span.step]
    assert joined["collective"] == tp * sum(1 for step in steps if step.exchange)
    assert joined["hand-off"] == tp * sum(1 for job in compiled.plan.jobs if job.handover)
    assert sum(joined.values()) or tp * compiled.plan.split.pp == 1


def test_sends_meet_their_receives(result: Result) -> None:
    found = parsed(result)
    stands = devices(found)
    moved: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for thread, mine in slices(found).items():
        title = names(found, "thread_name")[thread].partition(" ")[0]
        for begin, end, e in mine if title in ("send", "receive") else ():
            moved[title].append((begin, end, e["args"]["bytes"] * stands[e["pid"]]))
    assert sorted(moved["send"]) == sorted(moved["receive"])
    sent = [job.handover.nbytes for job in result.record.compiled.plan.jobs if job.handover]
    assert sum(nbytes for *_, nbytes in moved["send"]) == sum(sent)


def test_lanes_work_as_long_as_the_steps_say(result: Result) -> None:
    found = parsed(result)
    titles = names(found, "thread_name")
    worked: dict[str, int] = defaultdict(int)
    stands = devices(found)
    for e in found:
        if "work_us" in e["args"]:
            done = tick(e["args"]["work_us"]) * stands[e["pid"]]
            worked[titles[e["pid"], e["tid"]]] += done
    account = dict(zip(STATES, result.account.total, strict=True))
    # Waits hold the launches of sends, which belong to no operator.
    waits = dict(zip(STATES, result.account.by("kind").get((WAIT,), NOTHING), strict=True))
    launched = account["launch"] - waits["launch"]
    assert worked["host"] >= launched
    if result.resolved.machine.device.prefetch or result.account.hidden:
        return  # there the host works under operators
    if folded(result.record) or result.resolved.scenario.detail == "tile":
        assert worked["host"] == launched
        assert worked["compute"] == account["compute"]


def test_links_carry_the_bytes_of_the_metrics() -> None:
    found = parsed(run(SCENARIOS["tensor"]))
    links = max(e["pid"] for e in found)
    assert links == 4
    # Every byte crosses two cables: to the switch, and from it.
    mine = [e["args"] for e in found if e["pid"] == links and e["ph"] == "X"]
    carried = sum(args["bytes"] * args.get("links", 1) for args in mine)
    expected = 2 * run(SCENARIOS["tensor"]).metrics.link_bytes
    assert carried == pytest.approx(expected, rel=1e-4)
    sent = [e for e in found if e["name"] == "link bytes/s, sent"]
    assert {e["pid"] for e in sent} == {0}
    assert sent[-1]["args"]["of one device"] == 0


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
    monkeypatch.setattr("sim.output.perfetto.trace.MOST_SPANS", 10)
    assert choose_passes(long.record) == {0, 2}
    document = json.loads(write_trace(long, tmp_path / "t.json").read_bytes())
    assert document["otherData"]["passes_left_out"] == "1"
    assert {e["args"].get("pass") for e in document["traceEvents"]} == {None, 0, 2}
