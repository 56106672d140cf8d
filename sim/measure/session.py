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
import polars as pl

from hw_models.device import Device
from sim.calibrate.device_file import save_device
from sim.errors import InputError, hint
from sim.measure.bodies import Bodies, kernel_name
from sim.measure.cases import FORMATS, GROUPS, KERNELS, MODULES, Case, grid
from sim.measure.exchanges import all_reduces, library
from sim.measure.host import Host, slug, this_host
from sim.measure.starting import cpu_device, gpu_device
from sim.measure.tables import Tables, Timing
from sim.measure.timer import CLOCKS, cpu_timing, cuda_timing

QUICK_CASE_S = 0.02
MOST_S = 480.0  # cases get less time each if all would take longer than this
SAVE_S = 5.0  # between two times that the tables are written
PROBE = (1024, 1024, 1024)
CUDA_FORMAT, CPU_FORMAT = "bf16", "fp32"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. `threads` 0: as many as PyTorch takes. A case is timed for about `case_s`
    seconds by `clock` (wall, or the cpu time of one thread), and one whose single call takes
    longer than `longest_s` is left out."""

    out: Path
    device_name: str | None = None
    only: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    modules: str = "torch"
    quick: bool = False
    threads: int = 0
    case_s: float = 0.25
    longest_s: float = 0.4
    clock: str = "wall"


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


def kernels_of(only: tuple[str, ...]) -> tuple[str, ...]:
    """The kernels that `--only` names; all but the collectives if it names none."""
    found: list[str] = []
    for word in only:
        known = (*KERNELS, *GROUPS)
        if word not in known:
            raise InputError(f"--only {word!r} is no kernel{hint(word, known)}")
        found += GROUPS.get(word, (word,))
    return tuple(k for k in KERNELS if k in found) if found else KERNELS


def formats_of(dtypes: tuple[str, ...], cuda: bool) -> tuple[str, ...]:
    """The number formats that `--dtype` names; the device's usual one if it names none."""
    for dtype in dtypes:
        if dtype not in FORMATS:
            raise InputError(f"--dtype {dtype!r} cannot be measured{hint(dtype, FORMATS)}")
    return dtypes or (CUDA_FORMAT if cuda else CPU_FORMAT,)


def measure(
    plan: Plan,
    say: Callable[[str], None] = lambda text: None,
    wanted: Callable[[Case], bool] = lambda case: True,
) -> Done:
    """Measure what the folder lacks of the cases that are `wanted`. Ctrl-C keeps what is measured;
    raises InputError."""
    kernels = kernels_of(plan.only)
    if plan.modules not in MODULES:
        raise InputError(f"--modules {plan.modules!r} is not known{hint(plan.modules, MODULES)}")
    require("torch")
    torch = import_module("torch")
    cuda = bool(torch.cuda.is_available())
    dtypes = formats_of(plan.dtypes, cuda)
    if plan.threads:
        torch.set_num_threads(plan.threads)
    bench = Bench(torch, cuda, plan)
    say(f"{bench.description}; {', '.join(dtypes)}; into {plan.out}/")
    begin = time.perf_counter()
    cases = [c for c in grid(kernels, dtypes, plan.quick) if wanted(c)]
    asked = "collectives" in kernels_of(plan.only) and bool(plan.only)
    exchanged = [c for c in cases if c.table == "collectives"]
    cases = [c for c in cases if c.table != "collectives"]
    bench.tables.load(KERNELS)
    left_out = interrupted = 0
    try:
        with torch.no_grad():
            for number, case in enumerate(_shown(cases)):
                left = MOST_S - (time.perf_counter() - begin)
                bench.case_s = min(bench.case_s, max(left, 0.0) / (len(cases) - number))
                left_out += not bench.take(case)
        left_out += bench.exchange(exchanged, asked, say)
    except KeyboardInterrupt:
        interrupted = 1
    bench.tables.save()
    file = bench.device_file()
    return Done(
        device=bench.name,
        file=file,
        measured=bench.measured,
        known=bench.known,
        left_out=left_out,
        seconds=time.perf_counter() - begin,
        interrupted=bool(interrupted),
    )


class Bench:
    """One machine under measurement, with its tables."""

    def __init__(self, torch: Any, cuda: bool, plan: Plan) -> None:
        self.torch, self.cuda, self.plan = torch, cuda, plan
        self.host: Host = this_host()
        self.driver = _driver(torch) if cuda else {}
        usual = slug(torch.cuda.get_device_name()) if cuda else self.host.name
        self.name = plan.device_name or usual
        if self.name != slug(self.name):
            raise InputError(
                f"--device-name {self.name!r}: use lower case, digits, '.' and '-', "
                f"e.g. {slug(self.name)}"
            )
        memory = self.driver.get("memory", self.host.memory)
        cache = self.driver.get("l2_KiB", self.host.last_level / 1024) * 1024
        if plan.quick:
            cache = min(cache, 2**20)
        place = "cuda" if cuda else "cpu"
        self.bodies = Bodies(torch, place, memory, cache, plan.modules)
        self.tables = Tables(plan.out, self.name)
        self.measured = self.known = 0
        self.case_s = QUICK_CASE_S if plan.quick else plan.case_s
        self._saved = time.perf_counter()
        self._rate = self._bandwidth = 0.0

    @property
    def description(self) -> str:
        where = (
            f"GPU {self.torch.cuda.get_device_name()}"
            if self.cuda
            else f"CPU with {self.torch.get_num_threads()} threads on {self.host.cores} cores"
        )
        return f"measuring {self.name} ({where}), PyTorch {self.torch.__version__}"

    def take(self, case: Case) -> bool:
        """Measure a case unless it is known; False if it is too large or too slow."""
        heads = {
            "framework": "torch",
            "version": str(self.torch.__version__),
            "kernel": kernel_name(case, self.plan.modules),
        }
        if self.tables.has(case, kernel=heads["kernel"]):
            self.known += 1
            return True
        if not self.bodies.fits(case) or self.estimate(case) > self.plan.longest_s:
            return False
        self._add(case, heads, self.timing(case))
        return True

    def _add(self, case: Case, heads: dict[str, Any], timing: Timing) -> None:
        self.tables.add(case, heads, timing)
        self.measured += 1
        if time.perf_counter() - self._saved > SAVE_S:
            self.tables.save()
            self._saved = time.perf_counter()

    def timing(self, case: Case) -> Timing:
        call, copies = self.bodies.call(case)
        most = self.case_s
        if self.cuda:
            return cuda_timing(self.torch, call, copies, most)
        return cpu_timing(call, most, CLOCKS[self.plan.clock])

    def estimate(self, case: Case) -> float:
        """Seconds of one call, from a product and a copy that were timed first."""
        if not self._rate:
            m, n, k = PROBE
            probe = Case("gemm", "fp32", {"dtype": "float32", "m": m, "n": n, "k": k}, 0, 0, 0)
            self._rate = 2.0 * m * n * k / (self.timing(probe).latency_us * 1e-6)
            rows = {"op": "copy", "rows": 4096, "width": 1024, "dtype": "float32"}
            copied = self.timing(Case("copy", "fp32", rows, 0, 0, 0)).latency_us
            self._bandwidth = 2 * 4096 * 1024 * 4 / (copied * 1e-6)
        return case.flops / self._rate + case.nbytes / self._bandwidth

    def exchange(self, cases: list[Case], asked: bool, say: Callable[[str], None]) -> int:
        """All-reduces between the GPUs, or between two processes if they are asked for; how many
        were left out."""
        if not cases:
            return 0
        devices = self.torch.cuda.device_count() if self.cuda else (2 if asked else 1)
        if devices < 2:
            if asked:
                say("  all-reduce: left out, there is one device")
            return len(cases) if asked else 0
        name, mode = library(self.torch, self.cuda)
        heads = {"library": name, "mode": mode, "num_gpus": devices}
        missing = [c for c in cases if not self.tables.has(c, **heads)]
        self.known += len(cases) - len(missing)
        if missing:
            self.plan.out.mkdir(parents=True, exist_ok=True)
            for number, timing in all_reduces(missing, devices, self.cuda, self.plan.out):
                self._add(missing[number], heads, timing)
        return 0

    def device_file(self) -> Path:
        """Write the device to start from, if products and copies were measured."""
        path = self.plan.out / f"{self.name}.toml"
        gemm, copies = self.tables.frame("gemm"), self.tables.frame("copy")
        if len(gemm) and len(copies):
            heading = (
                f"{self.name}: to start from, as `memorywall measure` found it; calibrate adds"
            )
            save_device(self.device(gemm, copies), path, f"{heading}\nthe efficiency terms.")
        return path

    def device(self, gemm: pl.DataFrame, copies: pl.DataFrame) -> Device:
        others = self.tables.frame("elementwise")
        if self.cuda:
            return gpu_device(self.name, self.driver, gemm, copies, others)
        used = min(self.torch.get_num_threads(), self.host.cores)
        host = msgspec.structs.replace(self.host, cores=used)
        return cpu_device(self.name, host, gemm, copies, others)


def _driver(torch: Any) -> dict[str, float]:
    """What PyTorch tells of the GPU. Clock and shared memory only newer versions tell."""
    found = torch.cuda.get_device_properties(0)
    return {
        "cores": float(found.multi_processor_count),
        "memory": float(found.total_memory),
        "l2_KiB": float(getattr(found, "L2_cache_size", 0) or 32 * 2**20) / 1024,
        "shared_KiB": float(getattr(found, "shared_memory_per_multiprocessor", 0) or 96 * 1024)
        / 1024,
        "clock_GHz": float(getattr(found, "clock_rate", 0) or 1_500_000) / 1e6,
    }


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
