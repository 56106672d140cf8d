"""The whole table of errors, on rows that no fit has seen: `scripts/validate [--write]`.

Exits with 1 if an error exceeds its value in scripts/validation.toml by more than a tenth.
--write stores the errors of this run there.

The terms that ship were fitted with a share of the shapes held out; the rows of these are scored.
Where that is not enough (exchanges, operators of a model unseen, terms carried to another device)
another fit is made on one part of the rows and scored on the other.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
import tomli_w
from rich.table import Table

from hw_models.device import Device
from hw_models.efficiency import Efficiency
from sim.fidelity.calibrate.calibrate import calibrate, errors
from sim.fidelity.calibrate.coverage import LEAST, MOST, SETS, covered, fits
from sim.fidelity.calibrate.engines import Loop, fit_engine, loops, predicted, terms_of
from sim.fidelity.calibrate.frames import is_held, pieces
from sim.fidelity.calibrate.generic import MEASURED, generally, generic_on
from sim.fidelity.validate.points import MeasuredFile, PredictionBench
from sim.fidelity.validate.runs import run_tables
from sim.fidelity.validate.score import table
from sim.fidelity.validate.serving import engine_of
from sim.fidelity.validate.session import read
from sim.inputs.catalogue import load_device, own_terms
from sim.output.terminal import terminal
from sim.serve.host import EngineTerms, load_engine

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
REACHED = ROOT / "scripts" / "validation.toml"
HOLDOUT = 0.25  # as scripts/calibrate_catalogue.py has it
MOST_ROWS = 6000  # of one file are scored
LLM = pl.col("shapes") == "LLM shapes"
A100, H100, RTX = "a100-sxm-80gb", "h100-sxm", "rtx-4090"
Scored = dict[str, list[float]]  # absolute errors in per cent by name of the row


class Line(NamedTuple):
    """A row of the table: what is asked for, and what a datasheet roofline and others reach."""

    name: str
    goal: str
    least: str
    peer: str


LINES = (
    Line("gemm bf16, LLM shapes, A100", "4/12", "5/15", "32/54 roofline"),
    Line("gemm bf16, LLM shapes, H100", "4/12", "5/15", "24/47 roofline"),
    Line("gemm fp8, LLM shapes, H100", "6.5/18", "9/22", "55 roofline"),
    Line("attention_prefill, LLM shapes, A100", "4/13", "5/17", "58/81 roofline"),
    Line("attention_prefill, LLM shapes, H100", "4/13", "5/17", "60/83 roofline"),
    Line("attention_decode, LLM shapes, A100", "5/18", "7/22", "70/98 roofline"),
    Line("attention_decode, LLM shapes, H100", "5/18", "7/22", "60/98 roofline"),
    Line("all-reduce, custom and NCCL, A100", "5/15", "7/18", "71 roofline"),
    Line("all-reduce, custom and NCCL, H100", "5/15", "7/18", "73 roofline"),
    Line("all-reduce across nodes, A100", "", "", "84/92 links alone"),
    Line("send and receive, A100", "", "", "14/38 links alone"),
    Line("send and receive, H100", "", "", "23/37 links alone"),
    Line("encoder_attention, H100", "8/25", "10/31", "69/99 roofline"),
    Line("moe bf16, H100", "15/45", "20/60", "50/91 roofline"),
    Line("vidur/mlp, model not fitted, A100", "4.3/13", "5.5/17", "31/46 roofline"),
    Line("vidur/mlp, shapes not fitted, H100", "4.3/13", "5.5/17", "36/56 roofline"),
    Line("mixed attention, RTX 4090", "10/30", "15/45", ""),
    Line("projections, RTX 4090", "", "", ""),
    Line("e2e/silicon TPOT, half of each group", "5/15", "8/20", "14/55 aiconfigurator"),
    Line("e2e/silicon TPOT, whole groups unseen", "", "", "41/73 roofline"),
    Line("vLLM run, mean TTFT", "5", "10", "0.6 LLMServingSim"),
    Line("vLLM run, mean TPOT", "2", "4", "0.2 LLMServingSim"),
    Line("vLLM run, mean latency", "2", "5", "0.5 LLMServingSim"),
    Line("zero-shot gemm bf16, A100 from the others", "10", "15", ""),
    Line("zero-shot gemm bf16, H100 from the others", "10", "15", ""),
    Line("neusight passes fp32, A100 PCIe", "", "", "6.9/17.0 NeuSight"),
    Line("neusight passes fp32, H100", "", "", "6.3/21.4 NeuSight"),
)


def main() -> None:
    console = terminal()
    scored: Scored = {}
    for part in (kernels, exchanges, layers, runs, engines, zero_shot, passes):
        for name, found in part():
            scored.setdefault(name, []).extend(found)
    reached = tomllib.loads(REACHED.read_text()) if REACHED.is_file() else {}
    made = Table(title="Absolute error on rows not fitted, %: median / p90", title_justify="left")
    for head in ("set", "rows", "error", "goal", "at least", "others", "gate"):
        made.add_column(head, justify="left" if head in ("set", "others") else "right")
    over, now = [], {}
    for line in LINES:
        sizes = np.array(scored.get(line.name, []))
        if not len(sizes):
            made.add_row(line.name, "0", "no rows", line.goal, line.least, line.peer, "")
            over.append(f"{line.name}: no row was scored")
            continue
        median, most = float(np.median(sizes)), float(np.quantile(sizes, 0.9))
        now[line.name] = {"median": round(median, 2), "p90": round(most, 2)}
        bound = reached.get(line.name)
        gate = f"{bound['median'] * 1.1:.1f}/{bound['p90'] * 1.1:.1f}" if bound else ""
        if bound and (median > bound["median"] * 1.1 or most > bound["p90"] * 1.1):
            over.append(f"{line.name}: {median:.1f}/{most:.1f} % exceeds {gate} %")
        shown = f"{median:.1f}/{most:.1f}" if len(sizes) > 1 else f"{median:.1f}"
        made.add_row(line.name, f"{len(sizes):,}", shown, line.goal, line.least, line.peer, gate)
    console.print(made)
    console.print(coverage(over))
    if "--write" in sys.argv[1:]:
        heading = "# Errors reached, %, by scripts/validate --write; CI allows a tenth more.\n\n"
        REACHED.write_text(heading + tomli_w.dumps(now), encoding="utf-8")
    for sentence in over:
        console.print(f"validate: {sentence}")
    sys.exit(1 if over else 0)


def coverage(over: list[str]) -> Table:
    """How many of the rows lie in the 80 % intervals of their predictions."""
    made = Table(title="Measured values in 80 % intervals, rows not fitted", title_justify="left")
    for head in ("set", "rows", "covered"):
        made.add_column(head, justify="left" if head == "set" else "right")
    for name, of in SETS.items():
        found = of(DATA)
        share = covered(found)
        made.add_row(name, f"{len(found):,}", f"{share:.0%}")
        if not fits(found):
            over.append(f"{name}: {share:.0%} is not between {LEAST:.0%} and {MOST:.0%}")
    return made


Found = Iterator[tuple[str, list[float]]]


def sizes_of(points: pl.DataFrame) -> list[float]:
    return (points["error"].drop_nulls().abs() * 100).to_list()


def source(name: str, **only: str) -> MeasuredFile:
    """A file of ../shared/data with the rows that have these values."""
    whole = next(iter(read([DATA / name], None, None, [])))
    frame = whole.frame
    for column, value in only.items():
        frame = frame.filter(pl.col(column) == value)
    return msgspec.structs.replace(whole, frame=frame)


def held(one: MeasuredFile, device: str) -> pl.DataFrame:
    """The rows of a source that no fit has seen, priced on a device of the catalogue."""
    found, _ = pieces([one], device)
    parts = [piece for group in found.values() for piece in group]
    return errors(load_device(device), parts, lambda shape: is_held(shape, HOLDOUT))


def thinned(one: MeasuredFile) -> MeasuredFile:
    if len(one.frame) <= MOST_ROWS * 4:
        return one
    return msgspec.structs.replace(one, frame=one.frame.sample(MOST_ROWS * 4, seed=42))


def kernels() -> Found:
    for raw, device, name in (("a100_sxm", A100, "A100"), ("h100_sxm", H100, "H100")):
        points = held(thinned(source("kernels/gemm.parquet", device=raw)), device).filter(LLM)
        for dtype in ("bf16", "fp8"):
            some = points.filter(pl.col("dtype") == dtype)
            yield f"gemm {dtype}, LLM shapes, {name}", sizes_of(some)
        for which in ("prefill", "decode"):
            one = thinned(source(f"kernels/attention_{which}.parquet", device=raw))
            points = held(one, device).filter(LLM)
            yield f"attention_{which}, LLM shapes, {name}", sizes_of(points)
    for file, name in (("encoder_attention", "encoder_attention, H100"), ("moe", "moe bf16, H100")):
        yield name, sizes_of(held(source(f"kernels/{file}.parquet"), H100))


def bare(device: str, **terms: Any) -> Device:
    """A device without terms but these."""
    return msgspec.structs.replace(load_device(device), efficiency=Efficiency(**terms))


def exchanges() -> Found:
    """Two halves of the sizes, each scored by the fit of the other."""
    for raw, device, name in (("a100_sxm", A100, "A100"), ("h100_sxm", H100, "H100")):
        whole = source("kernels/collectives.csv", device=raw)
        keys = [f"{r['num_gpus']} {r['bytes']}" for r in whole.frame.iter_rows(named=True)]
        half = pl.Series([is_held(key, 0.5) for key in keys])
        for fitted in (half, ~half):
            kept = msgspec.structs.replace(whole, frame=whole.frame.filter(fitted))
            made = calibrate([kept], bare(device), holdout=0.0, date="now").device
            rest = whole.frame.filter(~fitted).filter(
                (pl.col("op") == "all_reduce") & (pl.col("mode") != "vllm_eager")
            )
            one = msgspec.structs.replace(whole, frame=rest)
            points = table(one.form.read(one, PredictionBench(own=made)))
            yield f"all-reduce, custom and NCCL, {name}", sizes_of(points)
    for raw, device, name in (("a100_dgx", A100, "A100"), ("h100_dgx", H100, "H100")):
        whole = source("vidur/network.parquet", network=raw)
        sends = pl.col("op") == "send_recv"
        for what, which in (
            ("send and receive", sends),
            (
                "all-reduce across nodes",
                ~sends & (pl.col("devices_per_node") < pl.col("num_workers")),
            ),
        ):
            one = msgspec.structs.replace(whole, frame=whole.frame.filter(which))
            if len(one.frame):
                yield f"{what}, {name}", sizes_of(held(one, device))


def layers() -> Found:
    """On the A100 each of two models by the fit of the other; the H100 has one model alone."""
    for model in ("Meta-Llama-3-8B", "Llama-2-70b-hf"):
        whole = source("vidur/mlp.parquet", device="a100")
        kept = msgspec.structs.replace(whole, frame=whole.frame.filter(pl.col("model") == model))
        made = calibrate([kept], bare(A100), holdout=0.0, date="now").device
        rest = whole.frame.filter(pl.col("model") != model).sample(MOST_ROWS, seed=42)
        one = msgspec.structs.replace(whole, frame=rest)
        points = table(one.form.read(one, PredictionBench(own=made)))
        yield "vidur/mlp, model not fitted, A100", sizes_of(points)
    points = held(source("vidur/mlp.parquet", device="h100"), H100)
    yield "vidur/mlp, shapes not fitted, H100", sizes_of(points)


def runs() -> Found:
    """The RTX 4090: kernels held out, and the run, which nothing was fitted to."""
    for one in run_tables(DATA / "vllm_runs" / "RTX4090_Llama-3.1-8B", None):
        if one.path.name == "requests.csv":
            points = table(one.form.read(one, PredictionBench()))
            for quantity, shown in (("ttft", "TTFT"), ("tpot", "TPOT"), ("latency", "latency")):
                mean = points.filter(pl.col("quantity") == f"mean {quantity}")
                yield f"vLLM run, mean {shown}", sizes_of(mean)
            continue
        points = held(one, RTX)
        mixed = points.filter(pl.col("set") == "vllm_runs attention mixed")
        yield "mixed attention, RTX 4090", sizes_of(mixed)
        yield "projections, RTX 4090", sizes_of(points.filter(LLM))


def engines() -> Found:
    """Rows held out of each engine's fit; then every group by a fit without it, to the other rows
    of its engine or, where there are none, to those of all engines."""
    whole = source("e2e/silicon.csv")
    names = sorted({engine_of(row) for row in whole.frame.iter_rows(named=True)})
    rows = {name: loops(whole, name)[0] for name in names}
    for name in names:
        rest = [r for r in rows[name] if is_held(f"{r.group} {r.shape}", 0.5)]
        yield "e2e/silicon TPOT, half of each group", missed(rest, load_engine(name))
        for group in sorted({r.group for r in rows[name]}):
            others = [r for r in rows[name] if r.group != group]
            others = others or [r for n in names if n != name for r in rows[n]]
            engine, _ = fit_engine(name, others, "without one group")
            rest = [r for r in rows[name] if r.group == group]
            yield "e2e/silicon TPOT, whole groups unseen", missed(rest, engine)


def missed(rows: list[Loop], engine: EngineTerms) -> list[float]:
    measured = np.array([r.measured for r in rows])
    sizes: list[float] = (np.abs(predicted(rows, terms_of(engine)) / measured - 1) * 100).tolist()
    return sizes


def zero_shot() -> Found:
    """The generic terms of the other measured devices, on rows of this one."""
    for raw, device, name in (("a100_sxm", A100, "A100"), ("h100_sxm", H100, "H100")):
        known = {n: generally(load_device(n), own_terms(n)) for n in MEASURED if n != device}
        own = load_device(device)
        terms = generic_on(own, known, "one left out")
        own = msgspec.structs.replace(own, efficiency=terms)
        one = thinned(source("kernels/gemm.parquet", device=raw, dtype="bfloat16"))
        one = msgspec.structs.replace(one, frame=one.frame.sample(MOST_ROWS, seed=1))
        points = table(one.form.read(one, PredictionBench(own=own))).filter(LLM)
        yield f"zero-shot gemm bf16, {name} from the others", sizes_of(points)


def passes() -> Found:
    one = source("neusight/e2e_inference.csv")
    points = table(one.form.read(one, PredictionBench()))
    for device, name in (("a100-pcie-40gb", "A100 PCIe"), (H100, "H100")):
        yield f"neusight passes fp32, {name}", sizes_of(points.filter(pl.col("device") == device))


if __name__ == "__main__":
    main()
