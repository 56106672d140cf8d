"""The command line: what it prints, how it refuses, and that a scenario file is the same run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import in_process

from sim import Scenario, Workload, run
from sim.mapping.parallelism import Parallelism
from sim.scenario import load_scenario, save_scenario

COMMAND = Path(sys.executable).with_name("memorywall")


def memorywall(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *args], capture_output=True, text=True, check=False)


def test_run_prints_the_account_and_the_what_ifs() -> None:
    done = memorywall("run", "gpt2", "--on", "h100-sxm", "--prompt", "32", "--output", "4")
    assert done.returncode == 0, done.stderr
    for word in ("TTFT", "MFU", "MBU", "prefill", "decode", "launch", "If one resource were free"):
        assert word in done.stdout
    assert done.stderr == ""


REFUSALS = {
    "unknown model": (["run", "gpt22", "--on", "t4"], "did you mean 'gpt2'"),
    "unknown device": (["run", "gpt2", "--on", "h100-sxn"], "did you mean 'h100-sxm'"),
    "no device": (["run", "gpt2"], "--on"),
    "key": (
        ["run", "gpt2", "--on", "t4", "--dtype", "fp16", "--set", "hbm.bandwith_GBps=1"],
        "did you mean 'bandwidth_GBps'",
    ),
    "value": (
        ["run", "gpt2", "--on", "t4", "--dtype", "fp16", "--set", "hbm.bandwidth_GBps=-1"],
        "= -1: must be above 0",
    ),
    "shape of --set": (["run", "gpt2", "--on", "t4", "--set", "hbm"], "KEY=VALUE"),
    "dtype": (["run", "gpt2", "--on", "h100-sxm", "--dtype", "fp7"], "w4a16"),
    "no such units": (["run", "gpt2", "--on", "v100-sxm", "--dtype", "bf16"], "fp16"),
    "tp": (["run", "gpt2", "--on", "hgx-h100", "--tp", "5"], "3072 mod 5 = 2"),
    "too many devices": (["run", "gpt2", "--on", "hgx-h100", "--dp", "9"], "9 devices"),
    "stages": (["run", "gpt2", "--on", "hgx-h100", "--pp", "2", "--stages", "3,3"], "12 layers"),
    "not a number": (["run", "gpt2", "--on", "t4", "--batch", "x"], "--batch"),
    "memory": (["run", "llama-3.1-70b", "--on", "h100-sxm"], "= 141."),
    "enum": (["run", "gpt2", "--on", "t4", "--detail", "tiles"], "not one of op, tile"),
    "batch": (["run", "gpt2", "--on", "t4", "--batch", "0"], "--batch '0': must be at least 1"),
    "encoder generates": (["run", "bert-base", "--on", "t4", "--output", "4"], "use --seq"),
    "file": (["run", "missing/config.json", "--on", "t4"], "no such file"),
    "scenario": (["sweep", "missing.toml", "--grid", "tp=1,2"], "missing.toml: no such file"),
    "format": (["run", "gpt2", "--on", "t4", "--format", "xlsx"], "not one of csv, parquet"),
    "system change": (["run", "gpt2", "--on", "t4", "--set", "system.x=1"], "one device"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_mistake_is_one_sentence_and_exit_code_2(case: str) -> None:
    args, expected = REFUSALS[case]
    done = in_process(*args)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "falcon", "hidden_size": 64}))
    done = memorywall("run", str(config), "--on", "h100-sxm")
    assert done.returncode == 2
    assert "'falcon'" in done.stderr
    assert "llama" in done.stderr


def test_saved_flags_and_the_scenario_file_are_the_same_run(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    flags = ["--prompt", "64", "--output", "3", "--tp", "2", "--set", "hbm.bandwidth_GBps=4000"]
    first = memorywall("run", "gpt2", "--on", "hgx-h100", *flags, "--save-scenario", str(file))
    again = memorywall("run", str(file))
    assert first.returncode == 0, first.stderr
    assert again.stdout == first.stdout


def test_flags_go_on_top_of_a_scenario_file(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    save_scenario(Scenario(model="gpt2", on="h100-sxm", workload=Workload(prompt=64)), file)
    done = memorywall("run", str(file), "--prompt", "96", "--output", "2")
    assert "prompt 96, output 2" in done.stdout


def test_a_scenario_survives_its_file(tmp_path: Path) -> None:
    scenario = Scenario(
        model="gpt2",
        on="hgx-h100",
        workload=Workload(batch=4, prompt=16, output=2),
        parallelism=Parallelism(pp=2, stages=(5, 7), microbatches=2),
        dtype="w4a16",
        set={"hbm.bandwidth_GBps": 4000.5, "prefetch": True, "model.n_layer": 12},
    )
    file = tmp_path / "scenario.toml"
    save_scenario(scenario, file)
    assert load_scenario(file) == scenario


@pytest.mark.parametrize("kind", ["models", "devices", "systems"])
def test_the_catalogue_is_listed_and_shown(kind: str) -> None:
    listed = in_process(kind, "list")
    assert listed.returncode == 0
    name = listed.stdout.splitlines()[3].split()[0]
    shown = in_process(kind, "show", name)
    assert shown.returncode == 0
    assert "source" in shown.stdout


def test_twice_the_bandwidth_halves_what_waits_for_it() -> None:
    def waits(bandwidth: float) -> float:
        scenario = Scenario(
            model="llama-3.1-8b",
            on="h100-sxm",
            workload=Workload(prompt=16, output=8),
            set={"hbm.bandwidth_GBps": bandwidth},
        )
        result = run(scenario)
        return result.makespan * result.account.share("hbm")

    # A little more than half goes: arithmetic that overlaps hides the same amount of both.
    assert 0.44 < waits(6700.0) / waits(3350.0) < 0.51
