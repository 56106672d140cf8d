"""The loop, closed on a real machine: its kernels measured, a device calibrated from them, passes
of models predicted, and the models run for real.

No term is fitted to a model's own time. Kernels are measured as a model's modules call them. What
Python spends between the kernels of a pass is measured on a miniature: as many layers of the same
modules, a few elements wide, less the floors of its kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl

from hw_models.device import Device
from hw_models.system import System
from sim.errors import InputError
from sim.fidelity.calibrate.calibrate import Calibration, calibrate
from sim.fidelity.calibrate.device_file import save_device
from sim.fidelity.measure.cases import Case
from sim.fidelity.measure.models import RealModel, Timed
from sim.fidelity.measure.plan import ClockName, MeasurementPlan
from sim.fidelity.measure.session import measure
from sim.fidelity.measure.timer import CLOCKS
from sim.fidelity.validate.points import MeasuredFile
from sim.fidelity.validate.session import read
from sim.inputs.catalogue import Machine, Value, load_device, load_model
from sim.output.files import atomic_write
from sim.scenario import Scenario, Workload, assemble
from sim.simulation import simulate
from sim.states import STATES
from workloads.block import Lowering

KERNELS = {
    "torch": ("copy", "gemm", "encoder_attention", "elementwise"),
    "gpt2": ("copy", "gemm", "attention_prefill", "attention_decode", "elementwise"),
}
EVERY, LAUNCH = tuple(range(len(STATES))), (STATES.index("launch"),)

Devices = dict[str, dict[str, Device]]  # by modules, and of a pass over a prompt or of a step


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the catalogue, whose `modules` it is made of, the numbers of tokens that it is
    run on, and the keys of its config that make it a miniature."""

    model: str
    modules: str
    lengths: tuple[int, ...]
    small: dict[str, Value]


class LoopStudy(msgspec.Struct, frozen=True, kw_only=True):
    """What is done in `folder`. threads, clock: of kernels and of models alike. repeats: of each
    pass, `steps` tokens behind each. few: tokens of a miniature. case_s, longest_s: of a kernel,
    as a measuring plan has them. by: what the terms' source says."""

    folder: Path
    subjects: tuple[Subject, ...]
    threads: int = 1
    clock: ClockName = "cpu"
    repeats: int = 7
    steps: int = 9
    few: int = 16
    case_s: float = 0.06
    longest_s: float = 0.5
    by: str = "by the loop"


def close_loop(
    study: LoopStudy,
    wanted: Callable[[Case], bool],
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[Calibration], None] = lambda calibration: None,
    again: bool = False,
) -> pl.DataFrame:
    """A row per point: model, phase, tokens, its time as measured (latency_us, spread_us, repeats)
    and as predicted (kernels_us + python_us = predicted_us), and error_pct.

    What the folder holds is not measured again, but the models if `again`. Ctrl-C keeps what is
    measured."""
    modules = sorted({s.modules for s in study.subjects} | {"torch"})  # heads are torch's
    devices = {m: calibrated(study, m, wanted, say, show) for m in modules}
    small = real(study, study.folder / "miniatures.json", again, miniature=True)
    between = {(t.model, t.phase): python_us(study, t, devices) for t in small}
    table = compared(study, real(study, study.folder / "models.json", again), devices, between)
    table.write_csv(study.folder / "loop.csv")
    return table


def calibrated(
    study: LoopStudy,
    modules: str,
    wanted: Callable[[Case], bool],
    say: Callable[[str], None],
    show: Callable[[Calibration], None],
) -> dict[str, Device]:
    """This machine with terms fitted to its kernels as `modules` call them."""
    folder = study.folder / modules
    plan = MeasurementPlan(
        out=folder,
        only=KERNELS[modules],
        modules=modules,
        threads=study.threads,
        clock=study.clock,
        case_s=study.case_s,
        longest_s=study.longest_s,
    )
    done = measure(plan, say, wanted)
    if done.interrupted:
        raise KeyboardInterrupt
    device, tables = load_device(str(done.file)), {}
    sources = list(read([folder / "kernels"], str(done.file), None, []))
    # The terms of a step are those of a pass, but for its products.
    for phases, some in (
        ("pass", [of_rows(source, pl.col("m") > 1) for source in sources]),
        ("step", [of_rows(s, pl.col("m") == 1) for s in sources if s.format == "gemm"]),
    ):
        calibration = calibrate(some, device, holdout=0.0, date=study.by)
        show(calibration)
        tables[phases] = device = calibration.device
        save_device(device, folder / f"{device.name}-{phases}.toml", study.by)
    return tables


def of_rows(source: MeasuredFile, wanted: pl.Expr) -> MeasuredFile:
    """The wanted products: those of one row are a kernel of their own (matrix by vector), which
    decoding runs."""
    if source.format != "gemm":
        return source
    return msgspec.structs.replace(source, frame=source.frame.filter(wanted))


def real(study: LoopStudy, path: Path, again: bool, miniature: bool = False) -> list[Timed]:
    """The models' own times, measured unless they are known; those of a model that is done are
    kept at once. Raises InputError for a file that is not such a list."""
    timings: list[Timed] = []
    if path.is_file() and not again:
        try:
            timings = msgspec.json.decode(path.read_bytes(), type=list[Timed])
        except msgspec.MsgspecError as error:
            raise InputError(f"{path}: holds no times of models ({error}); remove it") from None
    done = {t.model for t in timings}
    for subject in study.subjects:
        if subject.model in done:
            continue
        changes = subject.small if miniature else None
        model = RealModel(subject.model, changes, study.threads, CLOCKS[study.clock])
        for tokens in (study.few,) if miniature else subject.lengths:
            timings += model.passes(tokens, study.repeats, study.steps)
        with atomic_write(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(timings))
    return timings


def compared(
    study: LoopStudy,
    measured: list[Timed],
    devices: Devices,
    between: dict[tuple[str, str], float],
) -> pl.DataFrame:
    rows = [
        {"model": t.model, "phase": t.phase, "tokens": t.tokens}
        | msgspec.structs.asdict(t.timing)
        | {"kernels_us": kernels_us(study, t, devices), "python_us": between[t.model, t.phase]}
        for t in measured
    ]
    table = pl.DataFrame(rows).with_columns(predicted_us=pl.col("kernels_us") + pl.col("python_us"))
    return table.with_columns(error_pct=(pl.col("predicted_us") / pl.col("latency_us") - 1) * 100)


def in_order(table: pl.DataFrame) -> tuple[int, int]:
    """Of how many pairs of points the longer one is predicted to be longer; of how many."""
    m, p = table["latency_us"].to_list(), table["predicted_us"].to_list()
    pairs = [(i, j) for i in range(len(m)) for j in range(i) if m[i] != m[j]]
    return sum((m[i] < m[j]) == (p[i] < p[j]) for i, j in pairs), len(pairs)


def python_us(study: LoopStudy, timed: Timed, devices: Devices) -> float:
    """Of a miniature's pass, what its kernels' floors do not explain."""
    subject = subject_of(study, timed)
    floors = priced(study, timed, devices[subject.modules], subject.small, LAUNCH)
    return timed.timing.latency_us - sum(floors.values())


def kernels_us(study: LoopStudy, timed: Timed, devices: Devices) -> float:
    """The kernels of the same pass. Every head is an nn.Linear, also that of GPT-2."""
    mine = priced(study, timed, devices[subject_of(study, timed).modules])
    if "head" in mine:
        mine["head"] = priced(study, timed, devices["torch"])["head"]
    return sum(mine.values())


def subject_of(study: LoopStudy, timed: Timed) -> Subject:
    return next(s for s in study.subjects if s.model == timed.model)


def priced(
    study: LoopStudy,
    timed: Timed,
    devices: dict[str, Device],
    changes: dict[str, Value] | None = None,
    states: tuple[int, ...] = EVERY,
) -> dict[str, float]:
    """Microseconds of a pass by class of operator, as eager modules run it: nothing is fused."""
    encodes = timed.phase == "encode"
    device = devices["step" if timed.phase == "decode" else "pass"]
    steps = study.steps if timed.phase == "decode" else 1
    scenario = Scenario(
        model=timed.model,
        on=device.name,
        dtype="fp32",
        workload=Workload(seq=timed.tokens)
        if encodes
        else Workload(prompt=timed.tokens, output=steps),
        lowering=Lowering(projections="separate" if encodes else "fused", fusion=False),
    )
    model = load_model(timed.model, changes)
    machine = Machine(device.name, System(device.name, 1, (), ()), device)
    account = simulate(assemble(model, machine, scenario)).account.by("phase", "kind")
    passes = max(1, steps - 1)
    return {
        str(kind): sum(ticks[s] for s in states) / 1e6 / passes
        for (phase, kind), ticks in account.items()
        if phase == timed.phase
    }
