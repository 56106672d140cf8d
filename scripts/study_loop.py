"""The loop, closed on a real machine: measure this CPU's kernels, calibrate a device from them,
predict three models, run them for real, and put both side by side.

    .venv/bin/python scripts/study_loop.py [FOLDER] [--again]

Needs the extra memorywall[measure]. No term is fitted to a model's own time. BERT's modules are
nn.Linear and one GELU kernel; GPT-2's are Conv1D, GELU of eight kernels and a cache that is
concatenated: so the kernels of each are measured as its modules call them. What Python spends
between the kernels of a pass is measured on a miniature: as many layers of the same modules, a few
elements wide, less the floors of its kernels. A folder that holds the measurements is not measured
again; --again runs the models once more.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import polars as pl

from hw_models.device import Device
from hw_models.system import System
from sim import Machine, Scenario, Workload, assemble, load_model, simulate
from sim.calibrate.calibrate import calibrate
from sim.calibrate.device_file import save_device
from sim.calibrate.session import print_calibration
from sim.catalogue import Value, load_device
from sim.measure.bodies import VOCABULARY
from sim.measure.cases import Case
from sim.measure.models import RealModel, Timed
from sim.measure.session import Plan, measure
from sim.measure.timer import CLOCKS
from sim.plots.style import FAINT, INK, SERIES, figure, look, save
from sim.report import terminal
from sim.states import STATES
from sim.validate.points import Source
from sim.validate.session import read
from workloads.block import Lowering

LENGTHS = {
    "bert-base": (64, 128, 256, 512),
    "bert-large": (64, 128, 256, 512),
    "gpt2": (64, 128, 256, 512, 960),
}
MODULES = {"bert-base": "torch", "bert-large": "torch", "gpt2": "gpt2"}
KERNELS = {
    "torch": ("copy", "gemm", "encoder_attention", "elementwise"),
    "gpt2": ("copy", "gemm", "attention_prefill", "attention_decode", "elementwise"),
}
# Of the miniatures: two elements a head, and words enough to embed.
MINIATURE: dict[str, dict[str, Value]] = {
    "bert-base": {"hidden_size": 24, "intermediate_size": 96, "vocab_size": 64},
    "bert-large": {"hidden_size": 32, "intermediate_size": 128, "vocab_size": 64},
    "gpt2": {"n_embd": 24, "vocab_size": 64},
}
FEW_TOKENS = 16
EVERY, LAUNCH = slice(None), slice(STATES.index("launch"), STATES.index("launch") + 1)
LARGEST_WEIGHT = 2048 * 2048
REPEATS, STEPS = 7, 9
# On a machine that is shared: one thread, and the time that it has a core, of kernels and of models
# alike. A second thread would measure the neighbours.
THREADS, CLOCK = 1, "cpu"
DATE = "by scripts/study_loop.py"


def main(folder: Path, again: bool) -> None:
    devices = {modules: calibrated(folder / modules, modules) for modules in KERNELS}
    small = real(folder / "miniatures.json", again, miniature=True)
    between = {
        (t.model, t.phase): t.timing.latency_us
        - sum(priced(t, devices[MODULES[t.model]], True, LAUNCH).values())
        for t in small
    }
    rows = [
        {"model": t.model, "phase": t.phase, "tokens": t.tokens}
        | msgspec.structs.asdict(t.timing)
        | {"kernels_us": predicted_us(t, devices), "python_us": between[t.model, t.phase]}
        for t in real(folder / "models.json", again)
    ]
    table = pl.DataFrame(rows).with_columns(predicted_us=pl.col("kernels_us") + pl.col("python_us"))
    table = table.with_columns(error_pct=(pl.col("predicted_us") / pl.col("latency_us") - 1) * 100)
    table.write_csv(folder / "loop.csv")
    show(table)
    draw(table, folder / "loop")


Devices = dict[str, dict[str, Device]]  # by modules, and of a pass over a prompt or of a step


def calibrated(folder: Path, modules: str) -> dict[str, Device]:
    """This machine with terms fitted to its kernels as `modules` call them."""
    plan = Plan(
        out=folder,
        only=KERNELS[modules],
        modules=modules,
        threads=THREADS,
        clock=CLOCK,
        case_s=0.06,
        longest_s=0.5,
    )
    done = measure(plan, print, near)
    if done.interrupted:
        raise KeyboardInterrupt
    found = {}
    for phases, steps in (("pass", False), ("step", True)):
        read_in = read([folder / "kernels"], str(done.file), None, [])
        sources = [of_step(source, steps) for source in read_in]
        made = calibrate(sources, load_device(str(done.file)), holdout=0.0, date=DATE)
        print_calibration(made, terminal())
        save_device(made.device, folder / f"{made.device.name}-{phases}.toml", DATE)
        found[phases] = made.device
    return found


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


def of_step(source: Source, steps: bool) -> Source:
    """Products of one row are a kernel of their own (matrix by vector), which decoding runs."""
    if source.format != "gemm":
        return source
    single = pl.col("m") == 1
    return msgspec.structs.replace(source, frame=source.frame.filter(single if steps else ~single))


def real(path: Path, again: bool, miniature: bool = False) -> list[Timed]:
    """The models' own times, measured unless they are known."""
    if path.is_file() and not again:
        return msgspec.json.decode(path.read_bytes(), type=list[Timed])
    found: list[Timed] = []
    for name, lengths in LENGTHS.items():
        model = RealModel(name, MINIATURE[name] if miniature else None, THREADS, CLOCKS[CLOCK])
        for tokens in (FEW_TOKENS,) if miniature else lengths:
            found += model.passes(tokens, REPEATS, STEPS)
    path.write_bytes(msgspec.json.encode(found))
    return found


def predicted_us(timed: Timed, devices: Devices, miniature: bool = False) -> float:
    """The kernels of the same pass. Every head is an nn.Linear, also that of GPT-2."""
    mine = priced(timed, devices[MODULES[timed.model]], miniature)
    if "head" in mine:
        mine["head"] = priced(timed, devices["torch"], miniature)["head"]
    return sum(mine.values())


def priced(
    timed: Timed, devices: dict[str, Device], miniature: bool, states: slice = EVERY
) -> dict[str, float]:
    """Microseconds of a pass by class of operator, as eager modules run it: nothing is fused."""
    encodes, phases = timed.phase == "encode", "step" if timed.phase == "decode" else "pass"
    device = devices[phases]
    steps = 1 if timed.phase == "prefill" else STEPS
    scenario = Scenario(
        model=timed.model,
        on=device.name,
        dtype="fp32",
        workload=Workload(seq=timed.tokens)
        if encodes
        else Workload(prompt=timed.tokens, output=steps),
        lowering=Lowering(projections="separate" if encodes else "fused", fusion=False),
    )
    model = load_model(timed.model, MINIATURE[timed.model] if miniature else None)
    machine = Machine(device.name, System(device.name, 1, (), ()), device)
    account = simulate(assemble(model, machine, scenario)).account.by("phase", "kind")
    passes = steps - 1 if timed.phase == "decode" else 1
    return {
        str(kind): sum(ticks[states]) / 1e6 / passes
        for (phase, kind), ticks in account.items()
        if phase == timed.phase
    }


def show(table: pl.DataFrame) -> None:
    """Both side by side, the errors, and whether the points come in the same order."""
    print(f"{'model':11}{'phase':9}{'tokens':>7}{'measured':>12}{'+-':>8}{'predicted':>12}  error")
    for r in table.iter_rows(named=True):
        times = f"{r['latency_us'] / 1e3:9.1f} ms{r['spread_us'] / 1e3:8.1f}"
        times += f"{r['predicted_us'] / 1e3:9.1f} ms"
        print(f"{r['model']:11}{r['phase']:9}{r['tokens']:7}{times}{r['error_pct']:+7.1f} %")
    size = table["error_pct"].abs()
    m, p = table["latency_us"].to_list(), table["predicted_us"].to_list()
    pairs = [(i, j) for i in range(len(m)) for j in range(i) if m[i] != m[j]]
    same = sum((m[i] < m[j]) == (p[i] < p[j]) for i, j in pairs)
    print(
        f"absolute error: median {size.median():.1f} %, largest {size.max():.1f} %; "
        f"{same} of {len(pairs)} pairs of points in the same order"
    )


def draw(table: pl.DataFrame, stem: Path) -> None:
    """Times over tokens, measured and predicted; and one against the other."""
    with look():
        fig = figure("paper", 3.0)
        left, right = fig.subplots(1, 2)
        series = table.group_by("model", "phase", maintain_order=True)
        for ((model, phase), part), colour in zip(series, SERIES, strict=False):
            name, x = f"{model}, {phase}", part["tokens"].to_numpy()
            y, ours = (part[c].to_numpy() / 1e3 for c in ("latency_us", "predicted_us"))
            left.errorbar(x, y, part["spread_us"].to_numpy() / 1e3, fmt="o", ms=4, color=colour)
            left.plot(x, ours, color=colour, lw=1.2)
            right.plot(y, ours, "o", ms=4, color=colour, label=name)
        for ax in (left, right):
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.grid(True, which="major")
        left.set_xticks([64, 128, 256, 512, 960], ["64", "128", "256", "512", "960"])
        left.minorticks_off()
        left.set_xlabel("tokens (of decode: in the cache)")
        left.set_ylabel("time of a pass (ms)")
        left.set_title("measured (points) and predicted (lines)")
        ends = [table["latency_us"].min() / 1.5e3, table["latency_us"].max() * 1.5 / 1e3]
        right.plot(ends, ends, color=INK, lw=0.8, zorder=0)
        for off in (0.85, 1.15):
            right.plot(ends, [e * off for e in ends], color=FAINT, lw=0.6, ls="--", zorder=0)
        right.set_xlabel("measured (ms)")
        right.set_ylabel("predicted (ms)")
        median = table["error_pct"].abs().median()
        right.set_title(f"median error {median:.1f} %; dashed: 15 % off")
        fig.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save(fig, stem)


if __name__ == "__main__":
    words = [w for w in sys.argv[1:] if w != "--again"]
    main(Path(words[0] if words else "out/loop"), "--again" in sys.argv)
