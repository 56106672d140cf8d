"""What looks like a value and is none is refused.

Doubled keys, infinities, digits of other scripts, numbers out of range, lines and streams without
end, and cells that a spreadsheet would run.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import InputError
from sim.errors import MOST_QUOTED, quoted
from sim.inputs.catalogue import load_model, parse_change
from sim.inputs.documents import convert, read_document
from sim.inputs.traces import Selection, read_trace
from sim.inputs.traces.files import Limits
from sim.output.cells import safe, safe_frame
from sim.output.export import write_table
from sim.output.tables import Table
from sim.serve.config import RequestTraffic, Serving
from sim.serve.serving import serve
from workloads.numbers import decimal_number, whole_number

HEADER = "arrival_s,prompt_tokens,output_tokens"


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Numbers -----------------------------------------------------------------------------------------


@given(st.integers(-(10**20), 10**20))
def test_whole_numbers_come_back(number: int) -> None:
    assert whole_number(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_finite_numbers_come_back(number: float) -> None:
    assert decimal_number(repr(number)) == number


@given(st.text(max_size=6))
def test_any_text_is_a_finite_number_in_ascii_or_refused(text: str) -> None:
    try:
        number = decimal_number(text)
    except ValueError:
        return
    assert math.isfinite(number)
    assert text.strip().isascii()
    assert number == float(text)


@pytest.mark.parametrize("text", ["nan", "-inf", "Infinity", "1e999", "٣", "1_0", "", "0x1", "--1"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        decimal_number(text)


@pytest.mark.parametrize("text", ["a=nan", "a=-inf", "a=Infinity", "a=1e999", f"a={'9' * 41}"])
def test_a_change_is_finite(text: str) -> None:
    with pytest.raises(InputError, match=r"finite|digits|too large"):
        parse_change(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("traffic.rate_scale", 1e-9),
        ("knobs.swap_bandwidth_GBps", 1e12),
        ("knobs.long_prefill_token_threshold", 2**40),
        ("slo.ttft_s", 1e8),
        ("traffic.max_blank_lines", -1),
    ],
)
def test_every_number_of_a_serving_run_has_a_range(key: str, value: float) -> None:
    document: dict[str, object] = {"model": "gpt2", "on": "h100-sxm"}
    table, _, name = key.rpartition(".")
    document |= {table: {name: value}} if table else {name: value}
    with pytest.raises(InputError, match=rf"f.toml: key `{key}` = .*: must be at (least|most) "):
        convert(document, Serving, "f.toml")


# Documents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice"),
        ("a.json", '{"a": {"b": [1, NaN]}}', r"key `a.b\[1\]` = nan: must be a finite number"),
        ("a.json", '{"a": 1e999}', "key `a` = inf: must be a finite number"),
        ("a.toml", "a = 1\n[b]\nc = -inf\n", "key `b.c` = -inf: must be a finite number"),
        ("a.toml", "a = 1\na = 2\n", "not valid TOML"),
        ("a.json", '{"a":' * 41 + "1" + "}" * 41, "nested too deeply"),
    ],
)
def test_documents_are_read_to_the_letter(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_document(put(tmp_path, name, text))


def test_an_infinity_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 1, "n_head": 2, "vocab_size": 9}
    text = json.dumps({**config, "n_positions": 64})
    load_model(str(put(tmp_path, "config.json", text)))
    with pytest.raises(InputError, match="key `unused` = inf"):
        load_model(str(put(tmp_path, "config.json", text[:-1] + ', "unused": Infinity}')))


# Traces ------------------------------------------------------------------------------------------


def said_of(path: Path, **limits: int) -> str:
    with pytest.raises(InputError) as error:
        list(read_trace(path, Selection(limits=Limits(**limits))))
    return str(error.value)


def test_a_stretch_of_empty_lines_has_an_end(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", f"{HEADER}\n0,1,1\n" + "\n" * 1001 + "1,1,1\n")
    assert "line 1003: more than 1,000 empty lines in a row" in said_of(path)
    assert len(list(read_trace(path, Selection(limits=Limits(blank_lines=2000))))) == 2


def test_a_line_has_a_longest_length(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", f"{HEADER}\n0,1,1{' ' * 200}\n")
    assert "line 2: a line is longer than 100 bytes" in said_of(path, line_bytes=100)


@pytest.mark.parametrize("line", [f"0,1,1,{'x' * 900}\n", "\0" * 64], ids=["rows", "zeros"])
def test_a_compressed_file_grows_no_further_than_its_limit(
    tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.inputs.traces.files.FREE_EXPANSION", 2**23)
    content = gzip.compress((f"{HEADER},note\n" + line * (2**25 // len(line))).encode(), 9)
    path = put(tmp_path, "t.csv.gz", content)
    skip = Selection(on_bad_row="skip")
    trace = read_trace(path, skip)
    rows = sum(1 for _ in trace)
    assert rows * 907 <= 2**23 + 2**22
    assert "grows to more than 100 times its size" in trace.reasons[-1]


def test_a_trace_tells_of_the_bytes_that_it_has_read(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", f"{HEADER}\n" + "0,1,1\n" * 200_000)
    trace = read_trace(path)
    seen: list[int] = []
    trace.file.watch = seen.append
    assert sum(1 for _ in trace) == 200_000
    assert seen == sorted(seen)
    assert seen[-1] == path.stat().st_size


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.csv", f"{HEADER},more\n0,1,1,nan\n", "column `more` = 'nan': must be a finite number"),
        ("t.csv", f"{HEADER},more\n0,1,1,-Infinity\n", "must be a finite number"),
        ("t.jsonl", '{"arrival_s":0,"prompt_tokens":1,"output_tokens":1,"x":NaN}', "not a JSON"),
        ("t.json", '[{"arrival_s":0,"prompt_tokens":1,"output_tokens":1,"x":NaN}]', "NaN is no"),
        (
            "t.jsonl",
            '{"arrival_s":0,"prompt_tokens":1,"prompt_tokens":2,"output_tokens":1}',
            "the key 'prompt_tokens' stands twice",
        ),
        (
            "t.json",
            '[{"arrival_s":0,"prompt_tokens":1,"prompt_tokens":2,"output_tokens":1}]',
            "the key 'prompt_tokens' stands twice",
        ),
    ],
)
def test_no_row_holds_an_infinity_or_a_key_twice(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    assert said in said_of(put(tmp_path, name, text))


def test_a_name_may_be_nan(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", f"{HEADER},session\n0,1,1,nan\n")
    assert [r.session for r in read_trace(path)] == ["nan"]


def test_parquet_holds_no_infinity_either(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    good = {"arrival_s": [0.0, 1.0], "prompt_tokens": [1, 1], "output_tokens": [1, 1]}
    pl.DataFrame({**good, "more": [1.0, math.nan]}).write_parquet(path)
    assert "row 2: column `more` = nan: must be a finite number" in said_of(path)


def test_a_bad_zstd_stream_is_told_like_a_bad_gzip_stream(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    text = f"{HEADER}\n".encode() + b"".join(b"%d,1,%d\n" % (i, i % 97 + 1) for i in range(50_000))
    packers = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}
    for kind, pack in packers.items():
        packed = pack(text)
        cut = put(tmp_path, f"cut.{kind}", packed[: len(packed) // 2])
        assert f"the file ends within its {kind} stream; it was cut short" in said_of(cut)
        middle = len(packed) // 2
        damaged = packed[:middle] + bytes(b ^ 0xA5 for b in packed[middle:])
        assert kind in said_of(put(tmp_path, f"damaged.{kind}", damaged))
        behind = put(tmp_path, f"behind.{kind}", packed + b"nonsense")
        assert f"the {kind} stream is damaged here" in said_of(behind)


def test_a_message_shows_no_more_than_the_offending_cell(tmp_path: Path) -> None:
    secret = "secret" * 50
    path = put(tmp_path, "t.csv", f"{HEADER},note\n0,{'7' * 300}x,1,{secret}\n")
    words = said_of(path)
    assert "secret" not in words
    assert "7" * (MOST_QUOTED - 4) + "..." in words
    passwd = "root:x:0:0:root:/root:/bin/bash\n" * 40
    words = said_of(put(tmp_path, "passwd", passwd.replace("\n", ",") + "\n"))
    assert words.count("root:x") <= 2
    assert "\x1b" not in said_of(put(tmp_path, "e.csv", f"{HEADER}\n0,\x1b[2J,1\n"))


@given(st.text(max_size=300))
def test_a_quoted_value_is_short_and_printable(text: str) -> None:
    assert len(quoted(text)) <= MOST_QUOTED
    assert quoted(text).isprintable()


# Cells of tables ---------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text(text: str) -> None:
    assert safe(text) == f"'{text}"


@pytest.mark.parametrize("cell", ["-1", "+1.5e3", "gpt2", "", "a=1", -1, 2.5, None])
def test_other_cells_stay(cell: object) -> None:
    assert safe(cell) == cell


@given(st.lists(st.one_of(st.sampled_from(FORMULAS), st.text(max_size=5)), min_size=1))
def test_frames_and_rows_have_one_rule(texts: list[str]) -> None:
    frame = pl.DataFrame({"=name": texts})
    assert safe_frame(frame)["'=name"].to_list() == [safe(text) for text in texts]


def test_tables_are_safe_and_numbers_untouched(tmp_path: Path) -> None:
    rows = [("=1+1", -1), ("gpt2", -2), (None, 3)]
    path = write_table(Table({"name": str, "=n": int}, rows), tmp_path / "t.csv")
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["name", "'=n"],
            ["'=1+1", "-1"],
            ["gpt2", "-2"],
            ["", "3"],
        ]


def test_ids_of_requests_are_safe(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", f"{HEADER},id\n0,16,2,=HYPERLINK(1)\n")
    serving = Serving(model="gpt2", on="h100-sxm", traffic=RequestTraffic(trace=str(path)))
    table = serve(serving).requests.collect(tmp_path / "requests.csv")
    with table.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["'=HYPERLINK(1)"]
