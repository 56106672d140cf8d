"""Result folders and what-ifs of strangers: any value in any file gives an answer or a sentence."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_rows import cells, said
from test_fuzz import damaged, document_bytes, mutated, no_none
from typer.testing import CliRunner

from sim.cli.app import app
from sim.errors import MemorywallError
from sim.studies.whatif.named import answer, load
from sim.studies.whatif.subjects import subject

RUN = ("run", "gpt2", "--on", "h100-sxm", "--output", "2", "--no-what-if")
SERVE = (
    *("serve", "gpt2", "--on", "h100-sxm", "--arrivals", "poisson:20", "--num-requests", "5"),
    *("--prompt", "fixed:32", "--output", "fixed:4"),
)
RESULTS: dict[str, Path] = {}


@pytest.fixture(scope="module", autouse=True)
def results() -> Iterator[None]:
    """A result of `run` and one of `serve`, which the tests copy."""
    with tempfile.TemporaryDirectory() as scratch:
        for words in (RUN, SERVE):
            RESULTS[words[0]] = Path(scratch) / words[0]
            words = (*words, "--no-pictures", "--out", str(RESULTS[words[0]]))
            assert CliRunner().invoke(app, words).exit_code == 0
        yield


def judged(kind: str, name: str, content: bytes) -> bool:
    """Whether a result with other content of a file is taken; else the error is a sentence."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "result"
        shutil.copytree(RESULTS[kind], folder)
        (folder / name).write_bytes(content)
        try:
            one = subject(str(folder))
            for metric in ("makespan", "ttft", "tpot", "e2e"):
                one.break_down(metric)
        except MemorywallError as error:
            said(error)
            return False
    return True


@pytest.mark.parametrize("kind", ["run", "serve"])
def test_a_result_as_it_was_written_is_taken(kind: str) -> None:
    assert judged(kind, "summary.json", (RESULTS[kind] / "summary.json").read_bytes())


DOCUMENTS = [("run", "resolved.json"), ("run", "summary.json")]
DOCUMENTS += [("serve", "config.json"), ("serve", "summary.json")]


@settings(max_examples=40)
@given(st.sampled_from(DOCUMENTS), st.data())
def test_any_value_of_a_result_gives_an_answer_or_a_sentence(
    which: tuple[str, str], data: st.DataObject
) -> None:
    kind, name = which
    document = json.loads((RESULTS[kind] / name).read_bytes())
    judged(kind, name, document_bytes(data.draw(mutated(document)), ".json"))


@settings(max_examples=20)
@given(st.sampled_from(DOCUMENTS), st.data())
def test_a_damaged_result_gives_an_answer_or_a_sentence(
    which: tuple[str, str], data: st.DataObject
) -> None:
    kind, name = which
    judged(kind, name, data.draw(damaged((RESULTS[kind] / name).read_bytes())))


@settings(max_examples=40)
@given(st.sampled_from(["requests.csv", "steps.csv"]), st.integers(0, 3), st.integers(0, 99), cells)
def test_any_cell_of_a_table_gives_an_answer_or_a_sentence(
    name: str, line: int, column: int, value: Any
) -> None:
    lines = [t.split(",") for t in (RESULTS["serve"] / name).read_text().splitlines()]
    lines[line][column % len(lines[line])] = str(value).replace("\n", " ")
    judged("serve", name, "\n".join(",".join(c) for c in lines).encode("utf-8", "replace"))


@pytest.mark.parametrize(("kind", "name"), [("run", "resolved.json"), ("serve", "config.json")])
def test_a_pipe_in_a_result_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    shutil.copytree(RESULTS[kind], tmp_path / "result")
    (tmp_path / "result" / name).unlink()
    os.mkfifo(tmp_path / "result" / name)
    with pytest.raises(MemorywallError, match="not a regular file"):
        subject(str(tmp_path / "result"))


WHAT_IF: dict[str, Any] = {
    "title": "t",
    "question": "q",
    "how": "h",
    "source": "s",
    "metric": "tpot",
    "scenario": {
        "model": "gpt2",
        "on": "h100-sxm",
        "workload": {"batch": 2, "output": 2},
        "set": {"hbm.bandwidth_GBps": 1000.0},
    },
    "variants": [
        {"name": "a"},
        {"name": "b", "changes": {"batch": 4, "hbm.bandwidth_GBps": "*2"}},
        {"name": "c", "against": "b", "changes": {"dtype": "fp8"}},
    ],
    "claims": [{"variant": "b", "of": "speed-up", "printed": "2x", "source": "s"}],
}


@settings(max_examples=40)
@given(st.data())
def test_any_what_if_gives_an_answer_or_a_sentence(data: st.DataObject) -> None:
    content = document_bytes(no_none(data.draw(mutated(WHAT_IF))), ".toml")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "what.toml"
        path.write_bytes(content)
        try:
            answer(load(str(path)))
        except MemorywallError as error:
            said(error)


@pytest.mark.parametrize("workload", [[[1]], [1], "x", 1, {"batch": "x"}, {"batch": [2]}])
def test_a_workload_that_is_no_table_is_a_sentence(tmp_path: Path, workload: Any) -> None:
    what = {**WHAT_IF, "scenario": {**WHAT_IF["scenario"], "workload": workload}}
    path = tmp_path / "what.toml"
    path.write_bytes(document_bytes(what, ".toml"))
    with pytest.raises(MemorywallError, match="workload"):
        answer(load(str(path)))
