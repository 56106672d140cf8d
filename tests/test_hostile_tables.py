"""Measurement tables of strangers: any cell, any column, any bytes give a result or a sentence."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_rows import ROWS, cells, judged, said
from typer.testing import CliRunner

from sim.cli.app import app
from sim.errors import InputError
from sim.fidelity.validate.formats import FORMATS, sources
from sim.inputs.tables import USUAL, read_table
from sim.inputs.traces.files import Limits


def test_a_row_of_each_format_is_predicted(tmp_path: Path) -> None:
    assert {form.name for form in FORMATS} == set(ROWS)
    for number, (name, row) in enumerate(ROWS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        pl.DataFrame([row]).write_csv(folder / "rows.csv")
        assert [form.name for _, _, form in sources([folder], USUAL) if form] == [name]
        points = judged(folder)
        assert points is not None
        assert points["predicted_s"].is_not_null().all(), points["reason"].to_list()


def column_of(name: str, rows: list[dict[str, Any]]) -> pl.Series:
    """The cells of a column, as text where they have no type in common."""
    values = [row[name] for row in rows]
    try:
        return pl.Series(name, values)
    except (TypeError, OverflowError):
        return pl.Series(name, [None if v is None else str(v) for v in values])


@pytest.mark.parametrize("name", sorted(ROWS))
@settings(max_examples=12)
@given(data=st.data())
def test_any_cell_gives_a_prediction_or_a_reason(name: str, data: st.DataObject) -> None:
    good = ROWS[name]
    rows = [dict(good) for _ in range(3)]
    for row in rows:
        for column in data.draw(st.lists(st.sampled_from(sorted(good)), min_size=1, max_size=2)):
            row[column] = data.draw(cells)
    if data.draw(st.integers(0, 9)) == 0:
        gone = data.draw(st.sampled_from(sorted(good)))
        rows = [{k: v for k, v in row.items() if k != gone} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        frame = pl.DataFrame([column_of(name, rows) for name in rows[0]])
        if data.draw(st.booleans()):
            frame.write_parquet(Path(folder) / "rows.parquet")
        else:
            frame.write_csv(Path(folder) / "rows.csv")
        points = judged(Path(folder))
        if points is not None:
            assert (points["predicted_s"].is_null() == points["reason"].is_not_null()).all()


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("moe", {"num_experts": 50_000_000}),
        ("moe", {"topk": 0}),
        ("attention", {"head_dim": 0}),
        ("encoder_attention", {"head_dim": 0}),
        ("vidur/network", {"num_workers": 1}),
        ("llmcompass", {"n": 0}),
        ("gemm", {"m": 0, "n": 0, "k": 0}),
        ("gemm", {"m": "many"}),
        ("e2e/silicon", {"batch_size": 1_000_000}),
        ("vidur/mlp", {"n_head": 0}),
        ("vidur/mlp", {"op": 5}),
    ],
)
def test_a_size_that_no_machine_measures_is_a_reason(
    tmp_path: Path, name: str, changed: dict[str, Any]
) -> None:
    pl.DataFrame([{**ROWS[name], **changed}]).write_csv(tmp_path / "rows.csv")
    points = judged(tmp_path)
    assert points is not None
    assert points["reason"].str.contains("column ").all(), points["reason"].to_list()


def test_a_cell_opens_no_file(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("secret = 1\n")
    rows = [{**ROWS["gemm"], "device": name} for name in ("/etc/passwd", str(own), "x" * 999)]
    pl.DataFrame(rows).write_csv(tmp_path / "rows.csv")
    points = judged(tmp_path)
    assert points is not None
    assert points["reason"].str.contains("is not in the catalogue").all()
    assert points["reason"].str.len_chars().max() < 450  # type: ignore[operator]


def test_columns_of_the_answer_may_stand_in_the_table(tmp_path: Path) -> None:
    more = {"row": 7, "quantity": "x", "source_quantity": "y", "error": 1, "set": "$\\frac$"}
    pl.DataFrame([{**ROWS["gemm"], **more}]).write_csv(tmp_path / "rows.csv")
    words = ["validate", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    found = pl.read_csv(next((tmp_path / "out").glob("*rows.csv")))
    assert found["source_row"].to_list() == [7]
    assert found["source_source_quantity"].to_list() == ["x"]


# Files -------------------------------------------------------------------------------------------


def said_of(path: Path, **limits: int) -> str:
    with pytest.raises(InputError) as error:
        read_table(path, Limits(**limits))
    return str(error.value)


def test_a_packed_table_grows_no_further_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.inputs.traces.files.FREE_EXPANSION", 2**20)
    line = b"1,2\n"
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(b"a,b\n" + line * 1000))
    assert read_table(path).height == 1000
    path.write_bytes(gzip.compress(b"a,b\n" + line * 2**19, 1))
    assert "the gzip stream grows to more than 100 times its size" in said_of(path)
    assert read_table(path, Limits(expansion=2000)).height == 2**19


def test_a_parquet_table_grows_no_further_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": pl.repeat(1, 10_000_000, eager=True)}).write_parquet(path)
    assert "the Parquet file grows to more than 100 times its size" in said_of(path)
    assert read_table(path, Limits(expansion=2**20)).height == 10_000_000


def test_a_cell_of_parquet_has_a_longest_length(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": ["x" * 2_000_000]}).write_parquet(path)
    assert "column `a`: a cell is longer than 1,048,576 bytes" in said_of(path)
    assert read_table(path, Limits(line_bytes=2**22)).height == 1


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_damaged_parquet_is_a_sentence(at: int, put: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        pl.DataFrame({"a": list(range(50)), "b": ["x"] * 50}).write_parquet(path)
        content = path.read_bytes()
        at %= len(content)
        path.write_bytes(content[:at] + put + content[at + len(put) :])
        try:
            read_table(path)
        except InputError as error:
            said(error)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,a\n1,2,3\n")
    assert "the header names column 'a' twice" in said_of(path)
