"""What `memorywall measure` does: what is missing is measured, kept, and summed up in a device."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from sim.errors import InputError, hint, quoted
from sim.fidelity.measure.bench import KernelBench, MeasuredMachine, Say
from sim.fidelity.measure.cases import FORMATS, GROUPS, KERNELS, MODULES, Case, grid
from sim.fidelity.measure.cpu import Cpu
from sim.fidelity.measure.cuda import Cuda
from sim.fidelity.measure.plan import MeasurementPlan

MOST_S = 480.0  # cases get less time each if all would take longer than this


class Done(msgspec.Struct, frozen=True):
    """What came of it. `left_out`: too large or too slow for this machine."""

    device: str
    file: Path
    measured: int
    known: int
    left_out: int
    seconds: float
    interrupted: bool


def require(*names: str) -> None:
    """Raise InputError, naming the extra, if one of these packages is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise InputError(
            f"measuring needs {' and '.join(missing)}, which is not installed; "
            "install the extra: pip install 'memorywall[measure]'"
        )


def words(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The words of lists with commas."""
    return tuple(word for text in texts for word in map(str.strip, text.split(",")) if word)


def kernels_of(only: tuple[str, ...]) -> tuple[str, ...]:
    """The kernels that `--only` names; all but the collectives if it names none."""
    kernels: list[str] = []
    for word in words(only):
        known = (*KERNELS, *GROUPS)
        if word not in known:
            raise InputError(f"--only {quoted(word)} is no kernel{hint(word, known)}")
        kernels += GROUPS.get(word, (word,))
    return tuple(k for k in KERNELS if k in kernels) if kernels else KERNELS


def formats_of(dtypes: tuple[str, ...], machine: MeasuredMachine) -> tuple[str, ...]:
    """The number formats that `--dtype` names; the machine's usual one if it names none."""
    dtypes = words(dtypes)
    for dtype in dtypes:
        if dtype not in FORMATS:
            raise InputError(f"--dtype {quoted(dtype)} cannot be measured{hint(dtype, FORMATS)}")
        if dtype not in machine.formats:
            raise InputError(
                f"--dtype {dtype}: {machine.name} has no units for it; "
                f"choose from {', '.join(machine.formats)}"
            )
    return dtypes or machine.formats[:1]


def machine_of(torch: Any, plan: MeasurementPlan) -> MeasuredMachine:
    """The GPU that PyTorch would use, or the CPU where it finds none."""
    return Cuda(torch) if torch.cuda.is_available() else Cpu(torch, plan.threads, plan.clock)


def measure(
    plan: MeasurementPlan,
    say: Say = lambda text: None,
    wanted: Callable[[Case], bool] = lambda case: True,
    machine: MeasuredMachine | None = None,
) -> Done:
    """Measure what the folder lacks of the cases that are `wanted`, on `machine` or the one at
    hand. Ctrl-C keeps what is measured; raises InputError, and keeps it, too."""
    kernels = kernels_of(plan.only)
    if plan.modules not in MODULES:
        raise InputError(
            f"--modules {quoted(plan.modules)} is not known{hint(plan.modules, MODULES)}"
        )
    require("torch")
    torch = import_module("torch")
    machine = machine or machine_of(torch, plan)
    dtypes = formats_of(plan.dtypes, machine)
    bench = KernelBench(torch, machine, plan, say)
    about = f"measuring {bench.name} ({machine.where}), PyTorch {torch.__version__}"
    say(f"{about}; {', '.join(dtypes)}; into {plan.out}/")
    begin = time.perf_counter()
    cases = [c for c in grid(kernels, dtypes, plan.quick) if wanted(c)]
    exchanged = [c for c in cases if c.table == "collectives"]
    cases = [c for c in cases if c.table != "collectives"]
    bench.tables.load(KERNELS)
    interrupted = False
    try:
        with torch.no_grad():
            for number, case in enumerate(_shown(cases)):
                left = MOST_S - (time.perf_counter() - begin)
                bench.case_s = min(bench.case_s, max(left, 0.0) / (len(cases) - number))
                bench.take(case)
        bench.exchange(exchanged, requested=bool(plan.only) and "collectives" in kernels)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bench.tables.save()
        bench.forget()
    file = bench.device_file()
    return Done(
        device=bench.name,
        file=file,
        measured=bench.measured,
        known=bench.known,
        left_out=bench.left_out,
        seconds=time.perf_counter() - begin,
        interrupted=interrupted,
    )


def _shown(cases: list[Case]) -> Iterable[Case]:
    """The cases, behind a bar on the error stream if that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    if not sys.stderr.isatty():
        yield from cases
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar or nullcontext():
        job = bar.add_task("measuring", total=len(cases))
        for number, case in enumerate(cases):
            bar.update(job, completed=number, description=case.table)
            yield case
