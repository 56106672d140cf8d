"""The papers' tables and figures: what must match, what is known not to, and the closed forms."""

import io
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from sim.studies.paper import Cell, PaperReport, Section, print_report, reproduce
from sim.studies.paper.accelerator import encode_cycles, priced, survey_device
from sim.studies.paper.cells import Printed, load_printed
from sim.studies.paper.convention import (
    ROWS,
    Count,
    Counts,
    grouped,
    layer_ops,
    paper_counts,
    paper_model,
    stepwise_counts,
)
from sim.studies.paper.cpu import cpu_latency, latencies
from sim.studies.paper.trends import TrendPoint, fit, load_points, without_experts
from workloads.batch import Batch
from workloads.model import Attention, Dense, Embedding, Layer, Model, Stack

LENGTHS = (128, 256, 512, 1024, 2048, 4096)


@pytest.fixture(scope="module")
def report() -> PaperReport:
    return reproduce(None)


def made(kind: str, layers: int, heads: int, width: int, inner: int) -> Model:
    """A BERT-like encoder or a GPT-like decoder, biases and all."""
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=width,
        value_dim=width,
        causal=kind == "decoder",
        bias_q=True,
        bias_k=True,
        bias_v=True,
        bias_out=True,
    )
    place = "post" if kind == "encoder" else "pre"
    layer = Layer(attention=attention, ffn=Dense(inner=inner, bias=True), place=place)
    stack = Stack(layers=(layer,) * layers, embedding=Embedding(tokens=100), final_norm="layernorm")
    sides = {"encoder": stack} if kind == "encoder" else {"decoder": stack}
    return Model(name="made", architecture="test", hidden=heads * width, **sides)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 32), st.integers(1, 128), st.integers(1, 5000))


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 5000))
def test_an_encoder_counts_as_the_closed_forms(
    shape: tuple[int, int, int, int], length: int
) -> None:
    n, h, k, f = shape
    d, l = h * k, length  # noqa: E741 the paper's letter
    # GELU counts 10 FLOPs and 2 streams for each inner element; the paper's 58 and 17 have f = 4 d.
    gelu = 10 * l * (f - 4 * d)
    expected: Counts = {
        "MHA projections": Count(n * 8 * l * d * d, n * 4 * (d * d + 2 * l * d)),
        "act-to-act": Count(
            n * h * (l * l * (2 * k - 1) + l * k * (2 * l - 1)), n * (4 * l * d + 2 * h * l * l)
        ),
        "FFN": Count(n * 4 * l * d * f, n * 2 * (d * f + l * d + l * f)),
        "Other": Count(
            n * (4 * h * l * l + 58 * l * d + gelu),
            n * (2 * h * l * l + 17 * l * d + 4 * d + 2 * l * (f - 4 * d)),
        ),
    }
    found = paper_counts(made("encoder", n, h, k, f), l)
    assert {row: found[row] for row in expected} == expected
    assert found["Total"] == sum(expected.values(), Count())


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 2500))
def test_a_decoder_counts_as_the_closed_forms(shape: tuple[int, int, int, int], half: int) -> None:
    n, h, k, f = shape
    d, l = h * k, 2 * half  # noqa: E741 the paper's letter
    s = l * l // 2
    gelu = 10 * l * (f - 4 * d)
    expected: Counts = {
        "MHA projections": Count(n * 8 * l * d * d, n * 4 * l * (d * d + 2 * d)),
        "act-to-act": Count(n * 4 * d * s, n * ((2 * d + h) * s + 4 * d * l)),
        "FFN": Count(n * 4 * l * d * f, n * 2 * l * (d * f + d + f)),
        "Other": Count(
            n * (4 * h * s + 58 * l * d + gelu),
            n * (2 * h * s + 22 * l * d + 2 * l * (f - 4 * d)),
        ),
    }
    found = paper_counts(made("decoder", n, h, k, f), l)
    assert {row: found[row] for row in expected} == expected


@settings(max_examples=20, deadline=None)
@given(shapes, st.integers(1, 3000), st.integers(1, 3000))
def test_counts_of_a_decode_step_are_affine_in_the_context(
    shape: tuple[int, int, int, int], context: int, further: int
) -> None:
    model = made("decoder", *shape)

    def counts(c: int) -> Counts:
        return grouped(layer_ops(model, Batch.decode(1, c)))

    first, second, third = (counts(context + i * further) for i in range(3))
    for row in ROWS:
        assert first[row].flops + third[row].flops == 2 * second[row].flops
        assert first[row].mops + third[row].mops == 2 * second[row].mops


def test_the_sum_over_steps_is_the_long_way() -> None:
    model = paper_model("GPT-2")
    steps = [grouped(layer_ops(model, Batch.decode(1, c))) for c in range(1, 33)]
    for row, count in stepwise_counts(model, 32).items():
        assert count == sum((step[row] for step in steps), Count())


@pytest.mark.parametrize(
    ("title", "matching", "judged"),
    [
        ("Table 3:", 42, 45),
        ("Table 10:", 42, 45),
        ("Table 11:", 41, 45),
        ("Table 5:", 20, 21),
        ("Fig 9:", 15, 18),
    ],
)
def test_cells_match(report: PaperReport, title: str, matching: int, judged: int) -> None:
    section = report.section(title)
    assert section.matching >= matching
    assert section.judged == judged


@pytest.mark.parametrize(
    ("row", "matching"),
    [("BERT-Base", 17), ("BERT-Large", 5), ("BERT-Large less d x d", 14), ("GPT-2", 18)],
)
def test_curves_match(report: PaperReport, row: str, matching: int) -> None:
    sections = [report.section(f"Fig {n}") for n in (4, 5, 6)]
    assert sum(c.matches for s in sections for c in s.cells if c.row == row) == matching


def test_bert_large_is_as_its_configuration_says(report: PaperReport) -> None:
    section = report.section("Fig 4")
    found = [round(section.cell("BERT-Large", str(n)).ours) for n in LENGTHS]
    assert found == [79, 161, 336, 724, 1657, 4148]


def test_what_should_match_does_and_what_should_not_does_not(report: PaperReport) -> None:
    assert report.ok
    assert not [cell.label for s in report.sections for cell in s.failures]
    stale = [c.label for s in report.sections for c in s.cells if c.why and c.matches]
    assert not stale, "these cells have a reason to miss, but match"


def test_the_accelerator(report: PaperReport) -> None:
    device = survey_device()
    assert encode_cycles(paper_model("BERT-Base"), 128, device) == pytest.approx(48.23e6, rel=1e-4)
    section = report.section("Fig 32")
    rows = {
        "BERT-Base": [1, 2.1, 4.6, 10.6, 27.2, 78.6],
        "BERT-Large": [3.4, 7.1, 15.3, 34.6, 85.2, 234.7],
    }
    for row, expected in rows.items():
        found = [section.cell(row, str(n)).ours for n in LENGTHS]
        assert found == pytest.approx(expected, rel=0.015)
    assert all(section.cell("GPT-2", str(n)).matches for n in LENGTHS)


@pytest.mark.parametrize(
    ("name", "batch"),
    [("BERT-Base", Batch.encode(1, 512)), ("GPT-2", Batch.decode(1, 256))],
    ids=["encode", "decode"],
)
def test_the_engine_takes_the_sum_of_the_operators(name: str, batch: Batch) -> None:
    makespan, total = priced(layer_ops(paper_model(name), batch), survey_device())
    assert makespan == total


def test_the_best_tiling_moves_no_more_than_the_papers(report: PaperReport) -> None:
    section = report.section("Table 5")
    for row in section.rows:
        for n in (128, 512, 4096):
            best, printed = section.cell(row, f"best, {n}"), section.cell(row, f"l = {n}")
            assert best.ours >= printed.ours * (1 - 1e-9)
            assert not best.judged


def test_the_calibration() -> None:
    section, found = cpu_latency()
    assert found.flops_per_element == pytest.approx(109.5, rel=0.005)
    assert found.rms == pytest.approx(0.17, abs=0.005)
    assert found.latency == latencies(found.bandwidth_GBps)
    logs = [math.log(c.ours / c.value) for c in section.cells if c.label != "BERT-Base, 128"]
    assert math.sqrt(sum(x * x for x in logs) / 17) == pytest.approx(found.rms)
    worst = max(section.cells, key=lambda c: abs(c.deviation))
    assert worst.deviation == pytest.approx(0.5, abs=0.01)
    assert max(abs(c.deviation) for c in section.cells if c.row == "GPT-2") < 0.075


def test_growth() -> None:
    series = load_points()
    found = {name: fit(one.points).two_years for name, one in series.items()}
    rounded = {name: round(x, 3) for name, x in found.items() if x < 100}
    assert rounded == {
        "peak FLOPS": 3.026,
        "DRAM bandwidth": 1.591,
        "interconnect bandwidth": 1.415,
        "accelerator memory": 1.863,
    }
    assert round(found["model size"]) == 416
    assert round(fit(without_experts(series["model size"])).two_years) == 215
    assert found["training compute"] == pytest.approx(764, rel=0.002)
    assert len(series["peak FLOPS"].points) == 37


@given(st.floats(1.05, 1e3), st.floats(0.1, 1e6), st.lists(st.floats(1990, 2030), min_size=3))
def test_a_fit_finds_the_line_that_points_lie_on(
    factor: float, start: float, years: list[float]
) -> None:
    years = [*years, 1995.0, 2025.0]
    points = tuple(TrendPoint(year=y, value=start * factor ** ((y - 2000) / 2)) for y in years)
    assert fit(points).two_years == pytest.approx(factor, rel=1e-6)
    assert fit(points).at(2000) == pytest.approx(start, rel=1e-6)


def test_batches_and_formats(report: PaperReport) -> None:
    batches = report.section("Arithmetic intensity of GPT-2's decode steps")
    expected = [2.0, 3.8, 6.8, 11.4, 17.1, 22.8, 27.4, 30.5]
    assert [c.ours for c in batches.cells] == pytest.approx(expected, rel=0.01)
    formats = report.section("Traffic of GPT-2")
    assert [c.ours for c in formats.cells] == pytest.approx(
        [92.3, 46.2, 48.9, 27.1, 23.1], rel=0.002
    )


@pytest.mark.parametrize(
    ("printed", "ours", "matches"),
    [
        ("2.16", 2.1649, True),
        ("2.16", 2.1655, False),
        ("118", 117.96, True),
        ("60,000", 60000.2, True),
        ("60,000", 60001.0, False),
    ],
)
def test_a_cell_matches_to_its_printed_digits(printed: str, ours: float, matches: bool) -> None:
    cell = Cell(row="r", column="c", printed=printed, ours=ours)
    assert cell.matches == matches
    assert cell.expected_to_match


def test_an_unexpected_miss_makes_the_report_fail(report: PaperReport) -> None:
    wrong = Cell(row="r", column="c", printed="1.00", ours=1.25)
    bad = Section(title="t", source="source", cells=(wrong,))
    broken = PaperReport((*report.sections, bad))
    assert not broken.ok
    known = msgspec.structs.replace(wrong, why="a misprint")
    assert PaperReport((Section(title="t", source="source", cells=(known,)),)).ok
    console = Console(width=100, file=io.StringIO(), record=True)
    print_report(broken, console)
    assert "NOT as expected" in console.export_text()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_printout_is_whole(report: PaperReport, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    print_report(report, console)
    text = console.export_text()
    assert "…" not in text
    for wanted in ("1323.66", "0.006", "A misprint", "48.2 M cycles", "Calibrated", "as expected"):
        assert wanted in text
    assert max(map(len, text.splitlines())) <= width


def test_printed_values_are_refused_where_they_contradict_themselves() -> None:
    table = load_printed("table-3")
    with pytest.raises(ValueError, match="there are 3 columns"):
        Printed(
            title="t",
            source="a source",
            columns=table.columns[:1] * 3,
            rows=(msgspec.structs.replace(table.rows[0], printed=("1",)),),
        )
    with pytest.raises(ValueError, match="names no cell"):
        msgspec.convert(
            {**msgspec.to_builtins(table), "columns": ["a", "b", "c"]}, Printed, strict=True
        )


@pytest.mark.slow
def test_pictures(tmp_path: Path) -> None:
    report = reproduce(tmp_path / "new")
    assert len(report.pictures) == 8
    assert {p.suffix for p in report.pictures} == {".png", ".svg"}
    assert all(p.stat().st_size > 10_000 for p in report.pictures)
    assert reproduce(tmp_path / "none", pictures=False).pictures == ()
    assert not (tmp_path / "none").exists()
