"""What no input may do: grow or run without end, open files, or speak in tracebacks."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import polars as pl
import pytest
from attacks.judge import outcome

from sim.cli.surroundings import shortage
from sim.errors import Infeasible, InputError, shortened
from sim.inputs.catalogue import catalogue, load_device
from sim.inputs.documents import MAX_TOML_BYTES, convert, read_document
from sim.inputs.traces import read_trace
from sim.output.plots.style import figure, look, plain, save
from sim.scenario import Scenario, Workload
from sim.serve.config import RequestTraffic, Serving
from sim.serve.live import MOST_REFUSED
from sim.serve.serving import serve
from sim.simulation import run
from sim.studies.sweep.fronts import check_having
from sim.studies.sweep.kinds import Column
from sim.studies.whatif.served import ServedTables, break_down
from workloads.routing import exponent

FULL_WIDTH = "\uff11"  # a digit of another script


def document(folder: Path, text: str, name: str = "a.toml") -> str:
    """What is said of a document."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    begin = time.process_time()
    with pytest.raises(InputError) as error:
        read_document(path)
    assert time.process_time() - begin < 2
    assert len(str(error.value)) < 400 + len(str(path))
    return str(error.value)


# Documents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a" + ".a" * 100_000 + " = 1\n", "keys end at 40 parts"),
        ("[" + "'a' . " * 60 + "b]\n", "keys end at 40 parts"),
        ("x = {" + '"a".' * 60 + "b = 1}\n", "keys end at 40 parts"),
        ("a = [" + "1," * MAX_TOML_BYTES + "]\n", "more than 524,288 bytes"),
        ("x" * 5000 + " = nan\n", "must be a finite number"),
    ],
    ids=["dots", "header", "inline", "long", "key"],
)
def test_a_document_of_toml_has_an_end(tmp_path: Path, text: str, said: str) -> None:
    assert said in document(tmp_path, text)


def test_dots_in_text_are_no_parts_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f"a.b = '{'x.' * 90}'\n'{'y.' * 90}' = 1\n")
    assert read_document(path)["a"]["b"].startswith("x.x.")


@pytest.mark.parametrize("text", ['{"a": ["\\ud800"]}', '{"\\udfff": 1}'])
def test_half_a_character_is_refused(tmp_path: Path, text: str) -> None:
    assert "UTF-8" in document(tmp_path, text, "a.json")


def test_a_wrong_entry_of_a_table_is_named() -> None:
    wrong = {"model": "gpt2", "on": "t4", "set": {"hbm.bandwidth_GBps": 1, "cores": [1]}}
    with pytest.raises(InputError, match=r'key `set\["cores"\]` = \[1\]: must be'):
        convert(wrong, Scenario, "f.toml")
    with pytest.raises(InputError, match=r"unknown key `x{60,77}\.\.\.`; known"):
        convert({"x" * 5000: 1}, Scenario, "f.toml")


def test_what_a_device_inherits_may_meet_a_table(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    text = catalogue("device")["t4"].read_text(encoding="utf-8").partition("[efficiency")[0]
    path.write_text(f'{text}\n[efficiency]\nlike = "generic"\n[efficiency.source]\nx = 1\n')
    with pytest.raises(InputError, match=r"efficiency\.source` = .*: must be text, not a table"):
        load_device(str(path))
    path.write_text(f'{text}\n[efficiency]\nlike = [["generic"]]\n')
    with pytest.raises(InputError, match=r"efficiency\.like` = .*: must be the name of a device"):
        load_device(str(path))


# Traces ------------------------------------------------------------------------------------------

GOOD = {"arrival_s": [0.0, 1.0], "prompt_tokens": [1, 1], "output_tokens": [1, 1]}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([[1.0], [float("nan")]], "row 2: column `more` = .nan.: must be a finite number"),
        ([{"a": [1.0]}, {"a": [float("inf")]}], "row 2: column `more` = .* must be a finite"),
        (["x", "y" * 3_000_000], "column `more`: a cell is longer than 1,048,576 bytes"),
    ],
    ids=["list", "record", "long"],
)
def test_columns_of_parquet_that_nobody_reads_are_held_to_the_rules(
    tmp_path: Path, more: list[object], said: str
) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({**GOOD, "more": more}).write_parquet(path)
    with pytest.raises(InputError, match=said):
        list(read_trace(path))


def test_refused_requests_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "".join(f"{i / 100},90000000,4\n" for i in range(3 * MOST_REFUSED))
    path.write_text(f"arrival_s,prompt_tokens,output_tokens\n{rows}")
    served = serve(Serving(model="gpt2", on="h100-sxm", traffic=RequestTraffic(trace=str(path))))
    assert [r.index for r in served.refused] == list(range(MOST_REFUSED))
    assert served.refusals == 3 * MOST_REFUSED


# Runs --------------------------------------------------------------------------------------------


def test_a_run_of_too_many_operators_is_refused_at_once() -> None:
    begin = time.process_time()
    with pytest.raises(Infeasible, match=r"operators or more in all; a run ends at 10,000,000"):
        run(Scenario(model="gpt2", on="h100-sxm", workload=Workload(output=131072)))
    assert time.process_time() - begin < 2


def test_times_beyond_all_use_are_refused() -> None:
    slow = Serving(
        model="gpt2",
        on="a40",
        traffic=RequestTraffic(
            arrivals="poisson:20", num_requests=3, prompt="fixed:32", output="fixed:4"
        ),
        set={"vector.TFLOPS.fp32": 1e-12},
    )
    with pytest.raises(InputError, match="a time of the run is beyond 106 days"):
        serve(slow)


# The command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "gpt2\udcff", "--on", "t4"), "argument 2 = 'gpt2\\udcff': not UTF-8 text"),
        (("sweep", "gpt2", "--on", "t4", "--grid", "batch=1,nan"), "--grid 'batch=1,nan': inf"),
        (("sweep", "gpt2", "--on", "t4", "--grid", "batch=1:300000:+1"), "a grid of 300,000"),
        (
            ("sweep", "gpt2", "--on", "t4", "--grid", "batch=1,2", "--having", "status<1"),
            "--having 'status<1': '<' not supported",
        ),
        (
            ("serve", "gpt2", "--on", "t4", "--arrivals", "poisson:1", "--trace-window", "0:1e300"),
            "outside 0 s to 106 days",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    words = (*words, "--out", str(tmp_path / "out")) if words[0] != "run" else words
    done = outcome(words)
    assert done.code == 2
    assert said in done.err
    assert done.seconds < 2


def test_a_condition_compares_what_can_be_compared() -> None:
    columns = {"status": Column(str), "ttft": Column(float)}
    check_having("status == 'ok' and 1 / (ttft - 1) > batch", {"batch": 1}, columns)
    with pytest.raises(InputError, match="not supported"):
        check_having("ttft < status", {"batch": 1}, columns)
    with pytest.raises(InputError, match="no column 'tfft'"):
        check_having("tfft < 1", {"batch": 1}, columns)


def test_digits_of_other_scripts_are_no_numbers() -> None:
    tables = ServedTables(pl.DataFrame(), None, {}, 1, 1)
    for metric in (f"e2e:request={FULL_WIDTH}", f"e2e:p{FULL_WIDTH}", "e2e:request=" + "9" * 5000):
        with pytest.raises(InputError, match="not a metric") as error:
            break_down(tables, metric)
        assert len(str(error.value)) < 300
    with pytest.raises(ValueError, match="is not known"):
        exponent(f"power-law:{FULL_WIDTH}.2")


@pytest.mark.parametrize("threads", ["0", "-1", "99999999", "many", FULL_WIDTH])
def test_threads_of_polars_have_a_range(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_MAX_THREADS", threads)
    assert "must be a whole number from 1 to 4,096" in shortage()


@pytest.mark.parametrize("text", ["$\\frac$", "a $ b", "$x$", "\\$", "a\udcffb", "$$"])
def test_a_dollar_sign_begins_no_formula(tmp_path: Path, text: str) -> None:
    with look():
        fig = figure()
        fig.suptitle(plain(text))
        fig.add_subplot().set_yticks([0], [plain(text)])
    assert all(path.stat().st_size for path in save(fig, tmp_path / "p"))


def test_a_name_is_cut_and_escaped() -> None:
    assert shortened("x" * 10**6) == "x" * 77 + "..."
    assert shortened("\x1b[2J") == "\\x1b[2J"
    assert msgspec.json.encode(shortened("\udcff"))
    assert sys.getsizeof(shortened("\x1b" * 10**6)) < 200
