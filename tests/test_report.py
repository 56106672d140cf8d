"""Reports: the numbers of a result in one file that needs nothing else."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import chain
from pathlib import Path

import polars as pl
import pytest

from sim.cli.report import report
from sim.cli.run import RunOutput, run_scenario
from sim.errors import InputError
from sim.output.folder import REPORT
from sim.output.html import page as pages
from sim.output.html.page import check_report
from sim.output.html.tables import rounded, spread_out
from sim.output.manifest import Manifest
from sim.output.plots.style import unit_of
from sim.scenario import Scenario, Workload
from sim.serve.page_requests import MOST_ROWS, SLOWEST
from sim.serve.summary import PARTS
from sim.states import STATES
from sim.studies.whatif.waterfall import axis_begin, comparison_of, steps_by_class, steps_by_state
from tests.commands import check_whole_result, command, refused
from tests.report_pages import KINDS, data_of, shown, write_results

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
go = pytest.importorskip("plotly.graph_objects", reason="the extra `report` is not installed")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def html(results: dict[str, Path]) -> dict[str, str]:
    return {kind: (results[kind] / REPORT).read_text(encoding="utf-8") for kind in KINDS}


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / folder.name))


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole_and_asks_for_nothing(html: dict[str, str], kind: str) -> None:
    text = html[kind]
    assert text.startswith("<!DOCTYPE html>")
    assert text.endswith("</html>\n")
    assert len(text.encode()) < 10e6
    assert "default-src 'none'" in text
    assert data_of(text)


@pytest.mark.parametrize("kind", KINDS)
def test_charts_are_what_plotly_takes(html: dict[str, str], kind: str) -> None:
    """Each trace and layout passes the checks of Plotly's own Python objects."""
    charts = [c for c in data_of(html[kind]).values() if "layout" in c]
    assert charts
    for chart in charts:
        go.Figure(data=chart["data"], layout=chart["layout"])
        for view in chart["views"]:
            go.Layout(**view["layout"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_belongs_to_its_result_and_is_the_same_each_time(
    results: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    folder = copied(results[kind], tmp_path)
    before = (folder / REPORT).read_bytes()
    check_whole_result(folder)
    assert Manifest.read(folder).owner_of(REPORT) == kind
    (folder / REPORT).unlink()
    report(folder)
    report(folder)
    check_whole_result(folder)
    assert (folder / REPORT).read_bytes() == before
    report(folder, tmp_path / "other.html")
    assert (tmp_path / "other.html").read_bytes() == before


def test_the_account_of_a_run_adds_up(results: dict[str, Path], html: dict[str, str]) -> None:
    """In every view: the bars of all phases, classes or layers sum to the makespan."""
    summary = json.loads((results["run"] / "summary.json").read_text())
    unit, size = unit_of(summary["makespan_ps"])
    chart = data_of(html["run"])["account"]
    assert chart["layout"]["xaxis"]["title"]["text"].endswith(f"({unit})")
    for number, view in enumerate(chart["views"]):
        traces = shown(chart, number)
        bars: dict[str, float] = defaultdict(float)
        for trace in traces:
            for label, x in zip(trace["y"], trace["x"], strict=True):
                bars[label] += x
        makespan = summary["makespan_ps"] / size
        if view["label"] in ("by device", "by stage"):
            assert all(x == pytest.approx(makespan) for x in bars.values())
        else:
            assert sum(bars.values()) == pytest.approx(makespan)
    labels = [view["label"] for view in chart["views"]]
    assert labels == ["by phase", "by operator class", "by layer", "by stage", "by device"]


def test_the_timeline_of_a_run_has_every_operator(
    results: dict[str, Path], html: dict[str, str]
) -> None:
    """Count and time of the bars are those of the table of operators, of each pass."""
    chart = data_of(html["run"])["timeline"]
    ops = pl.read_csv(results["run"] / "ops.csv", infer_schema_length=None)
    ranks = 2  # of a stage, which share a row
    for number in range(3):
        [bars] = [t for t in shown(chart, number) if t["type"] == "bar"]
        mine = ops.filter((pl.col("pass") == number) & (pl.col("class") != "(wait)"))
        found = [x for x, c in zip(bars["x"], bars["customdata"], strict=True) if "bound" in c[2]]
        assert len(found) * ranks == mine["count"].sum()
        assert sum(found) * ranks * 1e3 == pytest.approx(mine["total_us"].sum(), rel=1e-4)
        hover = next(c for c in bars["customdata"] if c[1] == "qkv_proj" or "layer 1" in c[2])
        assert "FLOP" in hover[2]
        assert "B of HBM" in hover[2]
    assert chart["layout"]["yaxis"]["ticktext"] == ["gpu0 to 1", "gpu2 to 3"]


def test_requests_of_a_page_are_those_of_the_result(
    results: dict[str, Path], html: dict[str, str]
) -> None:
    requests = pl.read_csv(results["serve"] / "requests.csv")
    data = data_of(html["serve"])
    table = data["requests"]
    heads = [column["title"] for column in table["columns"]]
    for row, r in zip(table["rows"], requests.iter_rows(named=True), strict=True):
        cells = dict(zip(heads, row, strict=True))
        assert cells["request"] == r["index"]
        assert cells["TTFT (ms)"] == rounded(r["ttft_s"] * 1000)
        assert cells["E2E (ms)"] == rounded(r["e2e_s"] * 1000)
        parts = [row[part["column"]] for part in table["panel"]["parts"]]
        assert len(parts) == len(PARTS)
        assert sum(parts) == pytest.approx(r["e2e_s"] * 1000, rel=1e-3)
    summary = json.loads((results["serve"] / "summary.json").read_text())
    marks = [t for t in data["latencies"]["data"] if t["mode"] == "markers+text"]
    unit, size = unit_of(summary["latency_s"]["ttft"]["p50"] * 1e12)
    wanted = [summary["latency_s"]["ttft"][f"p{p}"] * 1e12 / size for p in (50, 90, 95, 99)]
    assert marks[0]["x"] == pytest.approx(wanted)
    assert f"TTFT ({unit})" in data["latencies"]["layout"]["xaxis"]["title"]["text"]
    assert len(data["latencies"]["layout"]["shapes"]) == 2  # a line for each bound


def test_the_account_over_time_fills_every_span(html: dict[str, str]) -> None:
    chart = data_of(html["serve"])["time"]
    states = [t for t in chart["data"] if t.get("stackgroup")]
    assert 1 < len(states) <= len(STATES)
    for parts in zip(*(t["y"] for t in states), strict=True):
        assert sum(parts) == pytest.approx(1, abs=1e-3)


def test_points_that_cannot_be_or_miss_a_bound_are_grey(
    results: dict[str, Path], html: dict[str, str]
) -> None:
    rows = pl.read_csv(results["sweep"] / "sweep.csv", infer_schema_length=None).to_dicts()
    data = data_of(html["sweep"])
    met = [r["status"] == "ok" and r["ttft_s"] <= 0.003 for r in rows]
    assert True in met
    assert data["points"]["grey"] == [i for i, ok in enumerate(met) if not ok]
    missed = sum(r["status"] == "ok" for r in rows) - sum(met)
    groups = {t["name"]: len(t["x"]) for t in data["front"]["data"]}
    assert missed
    assert groups["misses the bounds"] == missed
    assert groups["points"] == sum(met)
    said = Counter(row[3] for row in data["points"]["rows"])
    assert said["front"] == groups["front"]
    assert said["misses the bounds"] == missed
    hovers = [h for t in data["front"]["data"] for h in t["customdata"]]
    assert all(h.startswith("<b>batch ") for h in hovers)


def test_a_map_has_a_cell_for_each_point(html: dict[str, str]) -> None:
    chart = data_of(html["sweep"])["map"]
    grey, fine = shown(chart)
    cells = [*zip(chain(*grey["z"]), chain(*fine["z"]), strict=True)]
    assert len(cells) == 9
    assert all((a is None) != (b is None) for a, b in cells)
    assert "tp 1" in chart["title"]


def test_a_waterfall_leads_from_before_to_after(
    results: dict[str, Path], html: dict[str, str]
) -> None:
    document = json.loads((results["compare"] / "compare.json").read_text())
    comparison, names = comparison_of(document)
    assert names[0] == document["before"]["name"]
    assert float(comparison.change.total) == document["change"]["ps"]
    assert comparison.sentence() == document["sentence"]
    for steps in (steps_by_state(comparison), steps_by_class(comparison)):
        told = sum(step.change for step in steps)
        assert abs(told - comparison.change.total) <= abs(comparison.change.total) / 100
    for name in ("by-state", "by-class"):
        chart = data_of(html["compare"])[name]
        bars = [t for t in chart["data"] if t["type"] == "bar"]
        totals: dict[str, float] = defaultdict(float)
        for trace in bars:
            for label, x in zip(trace["y"], trace["x"], strict=True):
                totals[label] += x
        before, after = totals.pop("before"), totals.pop("after")
        assert before + sum(totals.values()) == pytest.approx(after, rel=0.01)
    assert axis_begin(Fraction(90), Fraction(100)) == Fraction(165, 2)
    assert axis_begin(Fraction(50), Fraction(100)) == axis_begin(Fraction(7), Fraction(7)) == 0


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "file", "old", "new"),
    [
        ("run", "resolved.json", '"name": "gpt2"', f'"name": {json.dumps(EVIL)}'),
        ("run", "ops.csv", "qkv_proj", EVIL),
        ("run", "account.csv", "attention", EVIL),
        ("serve", "config.json", '"name": "gpt2"', f'"name": {json.dumps(EVIL)}'),
        ("serve", "config.json", "poisson:200", EVIL),
        ("sweep", "config.json", '"model": "gpt2"', f'"model": {json.dumps(EVIL)}'),
        ("sweep", "sweep.csv", "infeasible", EVIL),
        ("compare", "compare.json", '"the same with ', f'"{EVIL} '),
    ],
)
def test_text_from_outside_is_no_markup(
    results: dict[str, Path],
    html: dict[str, str],
    tmp_path: Path,
    kind: str,
    file: str,
    old: str,
    new: str,
) -> None:
    """The page holds the text, and not one more element."""
    folder = copied(results[kind], tmp_path)
    replace_in(folder / file, old, new)
    report(folder)
    text = (folder / REPORT).read_text(encoding="utf-8")
    for tag in ("<script", "<img", "</script"):
        assert text.count(tag) == html[kind].count(tag), tag
    assert "alert(1)" in text
    charts = [c for c in data_of(text).values() if "layout" in c]
    assert "<img" not in json.dumps(charts)


def test_ids_of_requests_are_no_markup(results: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(results["serve"], tmp_path)
    table = pl.read_csv(folder / "requests.csv")
    table.insert_column(1, pl.lit(EVIL).alias("id")).write_csv(folder / "requests.csv")
    report(folder)
    text = (folder / REPORT).read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert data_of(text)["requests"]["rows"][0][1] == EVIL  # and the table escapes its cells


@pytest.mark.parametrize("count", [10_000, 30_000])
def test_a_large_run_stays_small_and_says_so(
    results: dict[str, Path], tmp_path: Path, count: int
) -> None:
    folder = copied(results["serve"], tmp_path)
    table = pl.read_csv(folder / "requests.csv")
    many = pl.concat([table] * (count // table.height + 1))[:count]
    many.with_columns(index=pl.int_range(count)).write_csv(folder / "requests.csv")
    report(folder)
    assert (folder / REPORT).stat().st_size < 10e6
    shown_ = data_of((folder / REPORT).read_text(encoding="utf-8"))["requests"]
    assert len(shown_["rows"]) == min(count, MOST_ROWS)
    assert len({row[0] for row in shown_["rows"]}) == len(shown_["rows"])
    assert (f"10,000 of {count:,} requests" in shown_["note"]) is (count > MOST_ROWS)
    longest = many.top_k(SLOWEST, by="e2e_s")["e2e_s"].min()
    kept = sum(row[7] >= rounded(longest * 1000) for row in shown_["rows"])  # type: ignore[operator]
    assert kept >= SLOWEST


def test_bad_folders_are_refused_in_a_sentence(results: dict[str, Path], tmp_path: Path) -> None:
    assert "no such folder" in refused(command("report", str(tmp_path / "no")))
    (tmp_path / "file").write_text("x")
    assert "no such folder" in refused(command("report", str(tmp_path / "file")))
    assert "holds no result" in refused(command("report", str(tmp_path)))
    both = copied(results["run"], tmp_path)
    shutil.copy(results["compare"] / "compare.json", both)
    assert "run and compare" in refused(command("report", str(both)))
    unplaced = ("run", "gpt2", "--on", "h100-sxm", "--report")
    assert "--report needs --out" in refused(command(*unplaced))


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("run", "summary.json", b"{"),
        ("run", "resolved.json", b"{}"),
        ("run", "resolved.json", b"[]"),
        ("run", "account.csv", b"a,b\n1,2\n"),
        ("run", "ops.csv", b"\xff\xfe\x00"),
        ("run", "trace.json.gz", b"junk"),
        ("run", "trace.json.gz", b""),
        ("serve", "summary.json", b'{"requests": "x"}'),
        ("serve", "requests.csv", b""),
        ("serve", "steps.csv", b"replica,start_ps\n0,x\n"),
        ("sweep", "config.json", b'{"kind": "run"}'),
        ("sweep", "sweep.csv", b"status\nok\n"),
        ("compare", "compare.json", b'{"parts": [{}]}'),
        ("compare", "compare.json", b'{"metric": "tpot", "parts": 3}'),
        ("sweep", "config.json", b'{"kind": "run", "memorywall": "\\ud800"}'),
    ],
)
def test_damaged_files_are_refused_in_a_sentence(
    results: dict[str, Path], tmp_path: Path, kind: str, file: str, content: bytes
) -> None:
    folder = copied(results[kind], tmp_path)
    (folder / file).write_bytes(content)
    before = (folder / REPORT).read_bytes()
    with pytest.raises(InputError) as error:
        report(folder)
    assert folder.name in str(error.value)
    assert (folder / REPORT).read_bytes() == before


def test_half_a_character_in_a_name_is_refused(results: dict[str, Path], tmp_path: Path) -> None:
    """JSON may hold half of a surrogate pair, which no file of text can."""
    folder = copied(results["compare"], tmp_path)
    replace_in(folder / "compare.json", '"the same with ', '"\\ud800 ')
    with pytest.raises(InputError, match="must be text of UTF-8"):
        report(folder)


def test_a_result_without_a_trace_has_no_timeline(results: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(results["run"], tmp_path)
    (folder / "trace.json.gz").unlink()
    report(folder)
    text = (folder / REPORT).read_text(encoding="utf-8")
    assert "timeline" not in data_of(text)
    assert "no trace.json.gz" in text


def test_a_file_of_the_user_stays(results: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(results["run"], tmp_path)
    (folder / REPORT).write_text("mine")
    with pytest.raises(InputError, match="changed since memorywall wrote it"):
        report(folder)
    assert (folder / REPORT).read_text() == "mine"


def test_no_file_of_a_result_is_replaced(results: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(results["run"], tmp_path)
    with pytest.raises(InputError, match="belongs to a result of `run`"):
        report(results["serve"], folder / "summary.json")
    report(folder, folder / REPORT)
    check_whole_result(folder)


def test_an_old_report_goes_with_its_result(tmp_path: Path) -> None:
    scenario = Scenario(model="gpt2", on="h100-sxm", workload=Workload(prompt=16, output=2))
    for wanted in (True, False):
        output = RunOutput(out=tmp_path / "r", pictures=False, what_if=False, report=wanted)
        run_scenario(scenario, output)
        assert (tmp_path / "r" / REPORT).exists() is wanted
        check_whole_result(tmp_path / "r")


def test_what_a_report_needs_is_said_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--report needs --out"):
        check_report(True, None)
    check_report(False, None)
    monkeypatch.setattr(pages, "NEEDED", ("plotly", "no_such_package"))
    with pytest.raises(InputError, match=r"needs no_such_package.*pip install 'memorywall\[report"):
        check_report(True, tmp_path)


def test_rounded_and_spread_out() -> None:
    assert [rounded(x) for x in (0.0, 12345.6, 0.00123456, float("nan"), 7, "a", None)] == [
        *(0, 12350, 0.001235, None, 7, "a", None)
    ]
    assert list(spread_out(3, 5)) == [0, 1, 2]
    assert list(spread_out(10, 3)) == [0, 3, 6]
