"""The loop, closed on a real machine: measure this CPU's kernels, calibrate a device from them,
predict three models, run them for real, and put both side by side.

    .venv/bin/python scripts/study_loop.py [FOLDER] [--again]

Needs the extra memorywall[measure]. BERT's modules are nn.Linear and one GELU kernel; GPT-2's are
Conv1D, GELU of eight kernels and a cache that is concatenated. A folder that holds the
measurements is not measured again; --again runs the models once more.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from sim.fidelity.calibrate.session import print_calibration
from sim.fidelity.measure.bodies import VOCABULARY
from sim.fidelity.measure.cases import Case
from sim.fidelity.measure.loop import LoopStudy, Subject, close_loop, in_order
from sim.fidelity.measure.loop_plot import draw
from sim.output.terminal import terminal

# A miniature has two elements per head, and words enough to embed.
SUBJECTS = (
    Subject(
        model="bert-base",
        modules="torch",
        lengths=(64, 128, 256, 512),
        small={"hidden_size": 24, "intermediate_size": 96, "vocab_size": 64},
    ),
    Subject(
        model="bert-large",
        modules="torch",
        lengths=(64, 128, 256, 512),
        small={"hidden_size": 32, "intermediate_size": 128, "vocab_size": 64},
    ),
    Subject(
        model="gpt2",
        modules="gpt2",
        lengths=(64, 128, 256, 512, 960),
        small={"n_embd": 24, "vocab_size": 64},
    ),
)
LARGEST_WEIGHT = 2048 * 2048


def main(folder: Path, again: bool) -> None:
    # On a machine that is shared: one thread, and the time that it has a core. A second thread
    # would measure the neighbours.
    study = LoopStudy(
        folder=folder, subjects=SUBJECTS, threads=1, clock="cpu", by="by scripts/study_loop.py"
    )
    console = terminal()
    table = close_loop(study, near, print, lambda made: print_calibration(made, console), again)
    show(table)
    draw(table, folder / "loop")


def near(case: Case) -> bool:
    """Whether such models have a kernel of about this size: one sequence (or two), heads of 64,
    weights as large as those of a layer or of the head, streams that the last cache holds."""
    c = case.columns
    if case.table == "gemm":
        return bool(c["n"] * c["k"] <= LARGEST_WEIGHT or (c["n"] >= VOCABULARY and c["m"] <= 16))
    if case.table == "elementwise":
        return bool(c["rows"] * c["width"] <= 2**22)
    if case.table == "copy":
        return True
    longest, few = c.get("kv_len") or c["seq_len"], 2 if c.get("q_len") == 1 else 1
    return bool(c["batch"] <= few and longest <= 2048 and c["head_dim"] == 64)


def show(table: pl.DataFrame) -> None:
    """Both side by side, the errors, and whether the points come in the same order."""
    print(f"{'model':11}{'phase':9}{'tokens':>7}{'measured':>12}{'+-':>8}{'predicted':>12}  error")
    for r in table.iter_rows(named=True):
        times = f"{r['latency_us'] / 1e3:9.1f} ms{r['spread_us'] / 1e3:8.1f}"
        times += f"{r['predicted_us'] / 1e3:9.1f} ms"
        print(f"{r['model']:11}{r['phase']:9}{r['tokens']:7}{times}{r['error_pct']:+7.1f} %")
    size = table["error_pct"].abs()
    same, pairs = in_order(table)
    print(
        f"absolute error: median {size.median():.1f} %, largest {size.max():.1f} %; "
        f"{same} of {pairs} pairs of points in the same order"
    )


if __name__ == "__main__":
    words = [w for w in sys.argv[1:] if w != "--again"]
    main(Path(words[0] if words else "out/loop"), "--again" in sys.argv)
