"""Tables 3, 10 and 11 of Kim et al. 2023 (arXiv 2302.14017), and what follows from their counts."""

from __future__ import annotations

from sim.studies.paper.cells import Cell, Section, compare
from sim.studies.paper.convention import (
    ROWS,
    Counts,
    counted,
    generation,
    grouped,
    paper_counts,
    paper_model,
    stepwise_counts,
)
from workloads.batch import Batch
from workloads.precision import DType, Precision

LENGTHS = (128, 512, 4096)
STEP_SHIFT = (
    "Step by step the context averages (l + 1)/2 instead of l/2 (0.8 % at l = 128), and a score "
    "row is written and read, two operations where the table has one (another 0.8 %)."
)


def tables() -> list[Section]:
    """All sections of this module."""
    return [
        count_table("table-3", "BERT-Base"),
        count_table("table-10", "BERT-Base, 4 heads"),
        count_table("table-11", "GPT-2"),
        shares(),
        steps(),
        batches(),
        formats(),
    ]


def count_table(name: str, model: str) -> Section:
    """GFLOPs, GMOPs and arithmetic intensity by the paper's rows."""
    ours: dict[str, dict[str, float]] = {}
    for length in LENGTHS:
        for row, count in paper_counts(paper_model(model), length).items():
            ours[f"l = {length}, {row}"] = {
                "GFLOPs": count.flops / 1e9,
                "GMOPs": count.mops / 1e9,
                "AI": count.intensity,
            }
    return compare(name, ours)


def shares() -> Section:
    """The rows' shares of the total, in percent."""
    ours: dict[str, dict[str, float]] = {}
    for model in ("BERT-Base", "GPT-2"):
        for length in LENGTHS:
            counts = paper_counts(paper_model(model), length)
            total = counts["Total"]
            for row in ROWS[:-1]:
                cells = ours.setdefault(f"l = {length}, {row}", {})
                cells[f"{model} GFLOPs"] = 100 * counts[row].flops / total.flops
                cells[f"{model} GMOPs"] = 100 * counts[row].mops / total.mops
    return compare("shares", ours)


def steps() -> Section:
    """Table 11 as it happens, context 1 to l and our own counting, over the paper's l^2/2."""
    model = paper_model("GPT-2")
    cells = []
    for length in LENGTHS:
        honest: Counts = stepwise_counts(model, length)
        for row, count in paper_counts(model, length).items():
            sides = {
                "GFLOPs": (count.flops, honest[row].flops),
                "GMOPs": (count.mops, honest[row].mops),
            }
            for column, (paper, own) in sides.items():
                known = (length, row, column) == (128, "act-to-act", "GMOPs")
                cells.append(
                    Cell(
                        row=f"l = {length}, {row}",
                        column=column,
                        printed=f"{paper / 1e9:.4f}",
                        ours=own / 1e9,
                        tolerance=0.01,
                        why=STEP_SHIFT if known else "",
                    )
                )
    return Section(
        title="Table 11 step by step",
        source="no printed values: the counts of Table 11 above, before rounding",
        cells=tuple(cells),
        rule="the sum over contexts 1 to l, counted our way with biases, within 1 %",
    )


def batches() -> Section:
    """Intensity of decoding with a batch: it saturates, because KV does not amortise."""
    model = paper_model("GPT-2")
    sizes = (1, 2, 4, 8, 16, 32, 64, 128)
    return Section(
        title="Arithmetic intensity of GPT-2's decode steps by batch, l = 512",
        source="no printed values: the counts of Table 11 with a batch",
        cells=tuple(
            Cell(
                row="batch",
                column=str(size),
                printed="",
                ours=grouped(generation(model, 512, size))["Total"].intensity,
            )
            for size in sizes
        ),
        notes=("Weights are shared by the batch; keys, values and activations are not.",),
    )


def formats() -> Section:
    """Bytes that GPT-2 moves while it generates 512 tokens, by number format."""
    model = paper_model("GPT-2")
    kinds: dict[str, tuple[DType, DType]] = {
        "FP16": ("fp16", "fp16"),
        "INT8": ("int8", "int8"),
        "W8A16": ("int8", "fp16"),
        "W4A16": ("int4", "fp16"),
        "INT4": ("int4", "int4"),
    }
    cells = []
    for name, (weights, activations) in kinds.items():
        precision = Precision(weights=weights, activations=activations, kv=activations)
        total = grouped(counted(model, Batch.decode(1, 256), precision), 512)["Total"]
        cells.append(Cell(row="GB moved", column=name, printed="", ours=total.mops / 1e9))
    return Section(
        title="Traffic of GPT-2 by number format, 512 tokens generated",
        source="no printed values: the counts of Table 11 in other formats",
        cells=tuple(cells),
    )
