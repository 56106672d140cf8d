"""The result folder: its tables add up to the account, and its bytes do not vary."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from commands import content

from sim import Parallelism, Result, Scenario, Workload, run
from sim.output.export import write_result, write_table
from sim.output.tables import Table, operators, passes, time_account
from sim.scenario import load_scenario
from sim.states import STATES

SCENARIOS = {
    "encoder": Scenario(model="bert-base", on="h100-sxm", workload=Workload(batch=2, seq=128)),
    "split": Scenario(
        model="gpt2-large",
        on="hgx-h100",
        workload=Workload(batch=8, prompt=64, output=3),
        parallelism=Parallelism(tp=2, pp=2, dp=2, microbatches=2),
    ),
    "all ranks": Scenario(
        model="gpt2",
        on="hgx-h100",
        workload=Workload(batch=2, prompt=64, output=2),
        parallelism=Parallelism(tp=2),
        shortcuts=False,
    ),
    "tiles": Scenario(
        model="t5-large",
        on="h100-sxm",
        workload=Workload(batch=2, seq=64, output=2),
        detail="tile",
    ),
}
FILES = ["account.csv", "ops.csv", "passes.csv", "resolved.json", "scenario.toml", "summary.json"]


@pytest.fixture(scope="module", params=SCENARIOS)
def result(request: pytest.FixtureRequest) -> Result:
    return run(SCENARIOS[request.param])


def columns(table: Table) -> dict[str, list]:
    return dict(zip(table.columns, map(list, zip(*table.rows, strict=True)), strict=True))


def test_the_account_of_every_device_sums_to_the_makespan(result: Result) -> None:
    table = columns(time_account(result))
    spent: dict[int, int] = {}
    for device, t in zip(table["device"], table["total_ps"], strict=True):
        spent[device] = spent.get(device, 0) + t
    assert spent == dict.fromkeys(range(result.account.devices), result.makespan)
    assert tuple(sum(table[f"{s}_ps"]) for s in STATES) == result.account.total
    for s in STATES:
        assert [round(us * 1e6) for us in table[f"{s}_us"]] == table[f"{s}_ps"]


def test_operators_add_up_to_the_account_and_the_metrics(result: Result) -> None:
    table = columns(operators(result))
    states = tuple(sum(round(us * 1e6) for us in table[f"{s}_us"]) for s in STATES)
    assert states == result.account.total
    assert sum(round(us * 1e6) for us in table["total_us"]) == sum(result.account.total)
    assert sum(table["flops"]) == result.metrics.flops
    assert sum(table["hbm_bytes"]) == result.metrics.hbm_bytes
    sent = sum(job.handover.nbytes for job in result.record.compiled.plan.jobs if job.handover)
    assert sum(table["link_bytes"]) + sent == result.metrics.link_bytes


def test_operators_by_class_are_those_of_the_account(result: Result) -> None:
    found: dict[tuple[object, ...], int] = {}
    names = list(operators(result).columns)
    for row in operators(result).rows:
        cell = dict(zip(names, row, strict=True))
        key = (cell["phase"], cell["stage"], cell["class"])
        found[key] = found.get(key, 0) + round(float(cell["total_us"]) * 1e6)
    expected = result.account.by("phase", "stage", "kind")
    assert found == {key: sum(states) for key, states in expected.items()}


def test_equal_layers_share_a_row(result: Result) -> None:
    table = columns(operators(result))
    model = result.resolved.model
    layers: dict[tuple[object, ...], int] = {}
    for i, op in enumerate(table["op"]):
        if op == "attn_norm" and table["micro_batch"][i] == 0 and table["replica"][i] == 0:
            key = (table["pass"][i], table["stack"][i])
            layers[key] = layers.get(key, 0) + table["layers"][i]
    for (_, stack), count in layers.items():
        assert count == len(dict(model.stacks)[stack].layers)


def test_passes_tell_when_each_ran(result: Result) -> None:
    table = columns(passes(result))
    assert table["pass"] == list(range(len(result.resolved.passes)))
    assert table["start_us"][0] == 0
    assert max(table["end_us"]) == result.makespan / 1e6
    assert table["start_us"] == sorted(table["start_us"])


def test_parquet_and_csv_say_the_same(result: Result, tmp_path: Path) -> None:
    for table in (operators(result), time_account(result), passes(result)):
        with write_table(table, tmp_path / "t.csv").open(newline="") as file:
            names, *plain = csv.reader(file)
        packed = pl.read_parquet(write_table(table, tmp_path / "t.parquet"))
        assert names == packed.columns == list(table.columns)
        assert packed.rows() == table.rows
        kinds = table.columns.values()
        read = [
            tuple(None if c == "" and k is not str else k(c) for c, k in zip(r, kinds, strict=True))
            for r in plain
        ]
        assert read == table.rows


def test_the_folder_is_complete_and_has_the_same_bytes_again(
    result: Result, tmp_path: Path
) -> None:
    written = write_result(result, tmp_path / "a", pictures=False, trace=False)
    assert sorted(p.name for p in written) == FILES
    assert sorted(content(tmp_path / "a")) == FILES
    again = run(load_scenario(tmp_path / "a" / "scenario.toml"))
    for path in write_result(again, tmp_path / "b", pictures=False, trace=False):
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()
    found = json.loads((tmp_path / "a" / "summary.json").read_bytes())
    assert (
        found["makespan_ps"]
        == result.makespan
        == sum(found["account_ps"].values()) / (found["devices"])
    )
    assert "makespan_ps_if_free" not in found


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sim import *; from sim.output.export import *\n"
        "s = Scenario(model='gpt2', on='h100-sxm', workload=Workload(prompt=32, output=2))\n"
        "write_result(run(s), Path(sys.argv[1]), counterfactual=True)"
    )
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    names = sorted(content(folders[0]))
    pictures = [f"{n}.{e}" for n in ("account", "roofline", "timeline") for e in ("png", "svg")]
    assert names == sorted([*FILES, "trace.json.gz", *pictures])
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    found = json.loads((folders[0] / "summary.json").read_bytes())
    assert found["makespan_ps_if_free"]["hbm"] <= found["makespan_ps"]


def test_an_interrupt_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_table(Table({"a": int}, [(1,)]), path)

    class Stop(Exception):
        pass

    class Rows(list):
        def __iter__(self):
            yield (2,)
            raise Stop

    with pytest.raises(Stop):
        write_table(Table({"a": int}, Rows()), path)
    assert path.read_text() == "a\n1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_an_unknown_table_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="csv, parquet"):
        write_result(run(SCENARIOS["encoder"]), tmp_path, table_format="xls")
