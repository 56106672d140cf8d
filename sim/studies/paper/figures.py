"""Figs 4 to 6 and 32 of Kim et al. 2023 (arXiv 2302.14017), Table 5, and what they say together."""

from __future__ import annotations

from itertools import pairwise

from sim.studies.paper.accelerator import (
    encode_cycles,
    generate_cycles,
    intensities,
    latency,
    survey_device,
)
from sim.studies.paper.cells import Cell, Section, compare
from sim.studies.paper.convention import (
    MODELS,
    Count,
    counted,
    grouped,
    layer_ops,
    one_projection_less,
    paper_counts,
    paper_model,
)
from workloads.batch import Batch

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
LESS = "BERT-Large less d x d"
Curves = dict[str, dict[str, float]]


def totals() -> dict[str, dict[int, Count]]:
    """Whole-network counts by model (BERT-Large also with what Fig 4 lacks taken away), length."""
    counts: dict[str, dict[int, Count]] = {}
    for name in MODELS:
        model = paper_model(name)
        counts[name] = {n: paper_counts(model, n)["Total"] for n in LENGTHS}
    large = paper_model("BERT-Large")
    counts[LESS] = {
        n: grouped(one_projection_less(counted(large, Batch.encode(1, n))))["Total"]
        for n in LENGTHS
    }
    return counts


def end_to_end(totals_of: dict[str, dict[int, Count]]) -> list[Section]:
    """Figs 4, 5 and 6."""
    curves: list[Curves] = [{}, {}, {}]
    for name, counts in totals_of.items():
        curves[0][name] = {str(n): c.flops / 1e9 for n, c in counts.items()}
        curves[1][name] = {str(n): c.mops / 1e9 for n, c in counts.items()}
        curves[2][name] = {str(n): c.intensity for n, c in counts.items()}
    files = ("figure-4", "figure-5", "figure-6")
    return [compare(file, curve) for file, curve in zip(files, curves, strict=True)]


def non_ideal_intensity() -> Section:
    """Table 5, and beside it the best tiling that a search finds for the same L2."""
    model, device = paper_model("BERT-Base"), survey_device()
    capacity = int(device.reuse_capacity)
    ours: Curves = {}
    best: Curves = {}
    for length in (128, 512, 4096):
        for column, value in intensities(model, length).items():
            ours.setdefault(column, {})[f"l = {length}"] = value
        for column, value in intensities(model, length, best=capacity).items():
            best.setdefault(column, {})[f"best, {length}"] = value
    return compare(
        "table-5",
        ours,
        beside=best,
        notes=(
            "Tile sizes are inferred from the re-reads in the table: 1024 x 448 for weight "
            "products, 1024 x 1024 for scores. Numbers before a nonlinear operator have 32 bits, "
            "but W_2's output 8, as the table has it.",
            f"Best: the least traffic that a search over tiles and loop orders finds for "
            f"{capacity / 2**20:.0f} MiB, the widths of numbers unchanged; no printed value.",
        ),
    )


def accelerator_latency() -> tuple[Section, float]:
    """Fig 32, and the cycles of its unit, BERT-Base at l = 128."""
    device = survey_device()
    unit = encode_cycles(paper_model("BERT-Base"), 128, device)
    ours: Curves = {}
    for name in MODELS:
        model = paper_model(name)
        cycles = encode_cycles if model.decoder is None else generate_cycles
        ours[name] = {str(n): cycles(model, n, device) / unit for n in LENGTHS}
    large = paper_model("BERT-Large")
    ours[LESS] = {
        str(n): latency(one_projection_less(layer_ops(large, Batch.encode(1, n))), device) / unit
        for n in LENGTHS
    }
    note = (
        f"BERT-Base at l = 128 takes {unit / 1e6:.1f} M cycles. An operator takes "
        "max(multiply-adds/256, bytes x (1/64 + 1/16)) cycles: DRAM and local transfers one after "
        "the other, arithmetic under both, no time for the special functions."
    )
    return compare("figure-32", ours, notes=(note,)), unit


def headline(counts: dict[str, dict[int, Count]], chip: Section, cpu: Section) -> Section:
    """GPT-2 over BERT-Base: the paper's claim in one table."""

    def ratio(section: Section, column: str) -> float:
        return section.cell("GPT-2", column).ours / section.cell("BERT-Base", column).ours

    ours: Curves = {}
    for length in (128, 512, 4096):
        decoder, encoder = counts["GPT-2"][length], counts["BERT-Base"][length]
        ours[f"l = {length}, GPT-2 / BERT-Base"] = {
            "FLOPs": decoder.flops / encoder.flops,
            "MOPs": decoder.mops / encoder.mops,
            "latency, accelerator": ratio(chip, str(length)),
            "latency, CPU": ratio(cpu, str(length)),
        }
    return compare("headline", ours)


def claims(counts: dict[str, dict[int, Count]], chip: Section, cpu: Section) -> Section:
    """What the paper says in words, as numbers."""

    def peak(name: str) -> float:
        return float(max(LENGTHS, key=lambda n: counts[name][n].intensity))

    def slower(section: Section) -> float:
        cells = (
            (section.cell("GPT-2", c), section.cell("BERT-Large", c)) for c in map(str, LENGTHS)
        )
        return float(sum(gpt.ours > bert.ours for gpt, bert in cells))

    def superlinear(name: str) -> float:
        doubled = pairwise(LENGTHS)
        return float(sum(counts[name][b].flops > 2 * counts[name][a].flops for a, b in doubled))

    decode = [count.intensity for count in counts["GPT-2"].values()]
    others = [paper_counts(paper_model("BERT-Base"), n) for n in LENGTHS]
    matmul = min(100 - 100 * c["Other"].flops / c["Total"].flops for c in others)
    rows = {
        "length at which BERT-Base's intensity peaks": ("512", peak("BERT-Base")),
        "length at which BERT-Large's intensity peaks": ("512", peak("BERT-Large")),
        "GPT-2's lowest intensity": ("2", min(decode)),
        "GPT-2's highest intensity": ("2", max(decode)),
        "matmuls' least share of BERT-Base's FLOPs, %": ("99", matmul),
        "doublings of l that more than double BERT-Base's FLOPs": ("5", superlinear("BERT-Base")),
        "lengths where GPT-2 is slower than BERT-Large, accelerator": ("6", slower(chip)),
        "lengths where GPT-2 is slower than BERT-Large, CPU": ("6", slower(cpu)),
    }
    return Section(
        title="What the paper says in words",
        source="Kim et al. 2023 (arXiv 2302.14017), section 2.2",
        cells=tuple(
            Cell(row=row, column="value", printed=printed, ours=ours)
            for row, (printed, ours) in rows.items()
        ),
    )
