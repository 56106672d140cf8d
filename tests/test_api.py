"""The functions for programs and notebooks: results equal those of the commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from hw_models.device import Device
from sim import InputError, Scenario, Workload, assemble, load_device, load_machine, load_model
from sim.api import (
    compare,
    recommend,
    run,
    sensitivity,
    serve,
    simulate,
    sweep,
)
from sim.api.shown import Shown
from sim.cli.app import app
from sim.scenario import load_scenario

RUN = {"on": "h100-sxm", "prompt": 64, "output": 3}
SERVE: dict[str, Any] = {"on": "h100-sxm", "arrivals": "poisson:40", "num_requests": 12}
RESULTS: dict[str, tuple[Callable[[], Shown], str, set[str]]] = {
    "run": (
        lambda: run("gpt2", **RUN),
        "run gpt2 --on h100-sxm --prompt 64 --output 3 --no-what-if",
        {"timeline", "account", "roofline"},
    ),
    "serve": (
        lambda: serve("gpt2", **SERVE),
        "serve gpt2 --on h100-sxm --arrivals poisson:40 --num-requests 12",
        {"latencies", "requests", "time"},
    ),
    "sweep": (
        lambda: sweep("gpt2", {"batch": [1, 2], "tp": "1:2:x2"}, on="hgx-h100", output=2),
        "sweep gpt2 --on hgx-h100 --output 2 --grid batch=1,2 --grid tp=1:2:x2",
        {"front"},
    ),
    "sensitivity": (
        lambda: sensitivity("gpt2", "tpot", **RUN),
        "sensitivity gpt2 --on h100-sxm --prompt 64 --output 3 --metric tpot",
        {"tornado"},
    ),
    "recommend": (
        lambda: recommend("gpt2", 2, on="hgx-h100", e2e_s=1.0, output=2),
        "recommend gpt2 --on hgx-h100 --devices 2 --slo-e2e 1 --output 2",
        set(),
    ),
    "compare": (
        lambda: compare(run("gpt2", **RUN), run("gpt2", **RUN, set={"hbm.bandwidth_GBps": "*2"})),
        "",
        {"waterfall"},
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself_and_becomes_data_and_pictures(name: str) -> None:
    make, words, pictures = RESULTS[name]
    result = make()
    assert repr(result).startswith("<")
    assert str(result).count("\n") > 2
    assert "<pre" in result._repr_html_()
    assert len(result.to_polars())
    document = result.to_dict()
    json.dumps(document, allow_nan=False)
    if words:
        printed = json.loads(CliRunner().invoke(app, [*shlex.split(words), "--json"]).stdout)
        assert json.loads(json.dumps(document)) == printed
    with pytest.raises(InputError, match="no table is called"):
        result.to_polars("nothing")
    drawn = getattr(result, "plot", None)
    for picture in pictures:
        assert getattr(drawn, picture)().axes
    if drawn is not None:
        assert pictures <= set(dir(drawn))
        with pytest.raises(AttributeError, match="no picture"):
            _ = drawn.nothing


def test_scenarios_names_and_changes_lead_to_the_same_result() -> None:
    scenario = Scenario(model="gpt2", on="h100-sxm", workload=Workload(prompt=64, output=3))
    expected = run(scenario).makespan
    assert run("gpt2", **RUN).makespan == expected
    assert run(scenario, batch=1).makespan == expected
    faster = run(scenario, set={"hbm.bandwidth_GBps": 6700.0}).makespan
    assert run(scenario, set={"hbm.bandwidth_GBps": "*2"}).makespan == faster < expected
    assert run(scenario, on="h100-sxm").makespan == expected


def test_a_run_from_parts_that_were_changed() -> None:
    """A device, a model and a system at hand, each changed in Python."""
    device = load_device("h100-sxm").with_(hbm__bandwidth_GBps=6700.0)
    machine = load_machine("h100-sxm")
    machine = msgspec.structs.replace(machine, device=device)
    model = load_model("gpt2")
    scenario = Scenario(model="gpt2", on="h100-sxm", workload=Workload(prompt=64, output=3))
    result = simulate(assemble(model, machine, scenario))
    assert result.makespan == run(scenario, set={"hbm.bandwidth_GBps": 6700.0}).makespan


def test_a_changed_device_is_a_copy_and_is_checked() -> None:
    device = load_device("h100-sxm")
    changed = device.with_(
        hbm__bandwidth_GBps=6700, matrix__TFLOPS__bf16=1200, on_chip__L2__capacity_KiB=102400
    )
    assert isinstance(changed, Device)
    assert (changed.hbm.bandwidth_GBps, device.hbm.bandwidth_GBps) == (6700, 3350)
    assert changed.matrix.TFLOPS["bf16"] == 1200
    assert changed.reuse_capacity == 2 * device.reuse_capacity
    for key, value, words in (
        ("hbm__bandwith_GBps", 1.0, "unknown field"),
        ("hmb__bandwidth_GBps", 1.0, "there is no 'hmb'"),
        ("speed", 1.0, "has no such key"),
        ("hbm__bandwidth_GBps", -1.0, "> 0"),
        ("cores__x", 1, "has no such key"),
    ):
        with pytest.raises(ValueError, match=words):
            device.with_(**{key: value})


def test_results_are_saved_as_the_commands_save_them(tmp_path: Path) -> None:
    result = run("gpt2", **RUN)
    result.save(tmp_path / "run", pictures=False)
    assert run(load_scenario(tmp_path / "run" / "scenario.toml")).makespan == result.makespan
    served = serve("gpt2", **SERVE)
    served.save(tmp_path / "serve", pictures=False, trace_window=(0.0, 0.1))
    written = json.loads((tmp_path / "serve" / "summary.json").read_bytes())
    assert written == json.loads(json.dumps(served.summary))
    assert (tmp_path / "serve" / "trace.json.gz").exists()
    points = sweep("gpt2", {"batch": [1, 2]}, on="h100-sxm", output=2)
    points.save(tmp_path / "sweep", pictures=False)
    assert (tmp_path / "sweep" / "sweep.csv").exists()


def test_a_sweep_of_serving_goes_on_in_its_folder(tmp_path: Path) -> None:
    options = {**SERVE, "arrivals": "poisson:1", "folder": tmp_path, "workers": 1}
    first = sweep("gpt2", {"rate": [10, 40]}, **options)
    assert first.swept.sweep.kind == "serve"
    again = sweep("gpt2", {"rate": [10, 40, 80]}, **options)
    assert again.swept.known == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: run("gpt2", on="h100-sxm", batchh=2), "did you mean 'batch'"),
        (lambda: run("gtp2", on="h100-sxm"), "no model is called"),
        (lambda: run("gpt2"), "say what it runs on"),
        (lambda: run("gpt2", on="h100-sxm", batch=0), "at least 1"),
        (lambda: run(3), "a scenario is"),  # type: ignore[arg-type]
        (lambda: serve("gpt2", on="h100-sxm"), "give a --trace"),
        (lambda: recommend("gpt2", 2, on="h100-sxm"), "give ttft_s"),
        (lambda: compare(run("gpt2", **RUN), serve("gpt2", **SERVE)), "one is a run"),
    ],
)
def test_a_mistake_is_one_sentence(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_pandas_is_an_extra() -> None:
    result = run("gpt2", **RUN)
    if find_spec("pandas") and find_spec("pyarrow"):
        assert len(result.to_pandas("passes")) == 3
    else:
        with pytest.raises(
            InputError, match=r"install the extra: pip install 'memorywall\[pandas\]'"
        ):
            result.to_pandas()
