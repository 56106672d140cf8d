"""What is printed: tables that fold, one JSON document, or nothing."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from commands import command
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from sim.cli.app import app
from sim.cli.help import EXAMPLES
from sim.output.report import to_precision
from sim.output.terminal import FoldingTable, terminal

QUICK = {
    "run": "run gpt2 --on h100-sxm --output 2",
    "serve": "serve gpt2 --on h100-sxm --arrivals poisson:20 --num-requests 5 --output fixed:2",
    "sweep": "sweep gpt2 --on h100-sxm --output 2 --grid batch=1,2",
    "map": "map gpt2 --on h100-sxm --output 2 --grid batch=1,2 --grid prompt=8,16",
    "recommend": "recommend gpt2 --on hgx-h100 --devices 2 --slo-e2e 1 --output 2",
    "compare": "compare gpt2 --on h100-sxm --with output=2 --batch 2",
    "sensitivity": "sensitivity gpt2 --on h100-sxm --set output=2",
    "trend": "trend gpt2 --on h100-sxm --set output=2 --years 2",
    "what-ifs": "what-if list",
    "what-if-file": "what-if show quantised-weights",
    "models": "models list",
    "device": "devices show h100-sxm",
    "system": "systems show 4xl40s",
    "traces": "traces list",
    "trace": "traces show azure-conv-2023-sample",
    "paper": "paper --no-pictures",
}
SLOW = ("recommend", "trend", "paper", "sensitivity", "map")
RUNS = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else pytest.param(name)
    for name in QUICK
]


@pytest.mark.parametrize("name", RUNS)
def test_json_is_one_document_with_its_schema(name: str) -> None:
    ran = CliRunner().invoke(app, [*shlex.split(QUICK[name]), "--json"])
    assert ran.exit_code == 0, ran.output
    document = json.loads(ran.stdout)
    assert list(document)[:2] == ["memorywall", "schema"]
    assert document["schema"] == f"memorywall.{name}/1"
    assert len(document) > 2


@pytest.mark.parametrize("name", RUNS)
def test_quiet_prints_nothing(name: str) -> None:
    ran = CliRunner().invoke(app, [*shlex.split(QUICK[name]), "-q"])
    assert (ran.exit_code, ran.stdout) == (0, "")


def test_json_of_a_run_is_what_its_folder_says(tmp_path: Path) -> None:
    words = [*shlex.split(QUICK["run"]), "--json", "--out", str(tmp_path), "--no-pictures"]
    document = json.loads(CliRunner().invoke(app, words).stdout)
    assert document["summary"] == json.loads((tmp_path / "summary.json").read_bytes())
    totals = [sum(states.values()) for states in document["account_by_phase_ps"].values()]
    assert sum(totals) == document["summary"]["makespan_ps"]


def test_a_mistake_with_json_is_still_a_sentence_on_the_error_stream() -> None:
    process = command(*shlex.split(QUICK["run"]), "--json", "--batch", "0")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.count("\n") == 1


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_tables_keep_to_the_width_and_cut_nothing(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for name in ("run", "serve", "sweep", "models", "device", "traces", "trace", "what-ifs"):
        lines = CliRunner().invoke(app, shlex.split(QUICK[name])).stdout.split("\n")
        if name != "device":  # a file as it is
            assert max(map(len, lines)) <= width, name
        assert not any("…" in line or line != line.rstrip(" ") for line in lines)


cells = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


@settings(max_examples=60)
@given(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(
            st.lists(cells, min_size=n, max_size=n, unique=True),
            st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=4),
        )
    ),
    st.integers(30, 120),
)
def test_every_cell_of_a_folded_table_is_shown(
    table: tuple[list[str], list[list[str]]], width: int
) -> None:
    heads, rows = table
    folding = FoldingTable()
    for head in heads:
        folding.add_column(head, no_wrap=True)
    for row in rows:
        folding.add_row(*row)
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(folding)
    words = console.export_text().split()
    for row in rows:
        for cell in row:
            assert cell in words
    assert set(heads) <= set(words)


def test_columns_that_are_empty_are_left_out_first() -> None:
    folding = FoldingTable()
    for head in ("name", "first", "second", "third"):
        folding.add_column(head, no_wrap=True)
    folding.add_row("a", "1" * 12, "-", "2" * 12)
    console = Console(width=36, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(folding)
    text = console.export_text()
    assert text.count("name") == 1
    assert "empty in every row: second" in text


def test_the_width_of_a_pipe_is_that_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    for given_, width in (("80", 80), ("", 120), ("x", 120), ("0", 120)):
        monkeypatch.setenv("COLUMNS", given_)
        assert terminal().width == width


def test_the_examples_of_the_help_name_commands_that_have_documents() -> None:
    known = {words.split()[0] for words in QUICK.values()}
    assert {name.split()[0] for name in EXAMPLES} - known <= {
        *("timeline", "report", "validate", "calibrate", "measure", "tour"),
    }


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (852.6, 721.3, 964.4, 850.0),
        (42.16, 35.34, 47.92, 42.2),
        (6.382, 5.349, 7.261, 6.38),
        (1944.7, 1944.6, 1944.8, 1944.7),
        (150.0, 150.0, 150.0, 150.0),
        (123456.0, 1e5, 3e5, 120000.0),
    ],
)
def test_a_number_is_as_precise_as_its_interval(
    value: float, low: float, high: float, shown: float
) -> None:
    assert to_precision(value, low, high) == shown


def test_every_part_of_a_folded_table_names_its_rows() -> None:
    folding = FoldingTable(keys=2)
    for head in ("tp", "batch", "first", "second"):
        folding.add_column(head, no_wrap=True)
    for row in (("1", "8", "a" * 12, "b" * 12), ("2", "8", "c" * 12, "d" * 12)):
        folding.add_row(*row)
    console = Console(width=30, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(folding)
    lines = [line.split() for line in console.export_text().splitlines() if line.split()]
    assert [line[:2] for line in lines if line[0] in "12"] == [["1", "8"], ["2", "8"]] * 2
