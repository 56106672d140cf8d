"""One machine under measurement: its buffers, its tables, and what could not be measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from hw_models.device import Device
from sim.errors import InputError
from sim.fidelity.calibrate.device_file import save_device
from sim.fidelity.measure.bodies import body, kernel_name
from sim.fidelity.measure.buffers import Body, TensorBuffers
from sim.fidelity.measure.cases import Case
from sim.fidelity.measure.exchanges import Broken, all_reduces, library
from sim.fidelity.measure.host import slug
from sim.fidelity.measure.plan import MeasurementPlan
from sim.fidelity.measure.tables import MeasurementTables, Timing

SAVE_S = 5.0  # between two times that the tables are written
PROBE = (1024, 1024, 1024)
QUICK_CACHE = 2**20
MOST_FAILURES = 5  # in a row: then it is not the shapes

Say = Callable[[str], None]


class MeasuredMachine(Protocol):
    """A CPU or a GPU. memory: bytes to be had; cache: of the last level; passing: bytes that empty
    it; formats: those that it has units for, the usual one first; library: of its exchanges."""

    place: str
    library: str
    name: str
    where: str
    memory: float
    cache: float
    passing: float
    formats: tuple[str, ...]

    def timing(self, body: Body, buffers: TensorBuffers, most_s: float) -> Timing: ...

    def ranks(self, requested: bool) -> int: ...

    def forget(self) -> None: ...

    def start(
        self, name: str, gemm: pl.DataFrame, copies: pl.DataFrame, others: pl.DataFrame
    ) -> Device: ...


class KernelBench:
    """Measures cases on `machine`, each for about as many seconds as the plan gives it, and keeps
    the tables in the folder of the plan. A case whose single call takes too long is left out."""

    def __init__(
        self,
        torch: Any,
        machine: MeasuredMachine,
        plan: MeasurementPlan,
        say: Say = lambda text: None,
    ) -> None:
        self.torch, self.machine, self.out, self.say = torch, machine, plan.out, say
        self.name = plan.device_name or machine.name
        if self.name != slug(self.name):
            raise InputError(
                f"--device-name {self.name!r}: use lower case, digits, '.' and '-', "
                f"e.g. {slug(self.name)}"
            )
        cache, passing = machine.cache, machine.passing
        if plan.quick:
            cache, passing = min(cache, QUICK_CACHE), min(passing, QUICK_CACHE)
        self.buffers = TensorBuffers(torch, machine.place, machine.memory, cache, passing)
        self.tables = MeasurementTables(plan.out, self.name)
        self.modules, self.case_s = plan.modules, plan.seconds_per_case
        self.longest_s = plan.longest_s
        self.measured = self.known = self.left_out = self.failures = 0
        self._saved = time.perf_counter()
        self._rate = self._bandwidth = 0.0

    def take(self, case: Case) -> None:
        """Measure a case unless it is known, too large, too slow or fails. Raises InputError if
        one after the other fails."""
        heads = {
            "framework": "torch",
            "version": str(self.torch.__version__),
            "kernel": kernel_name(case, self.modules),
        }
        if self.tables.has(case, kernel=heads["kernel"]):
            self.known += 1
            return
        try:
            if not self.buffers.fits(case) or self.estimate(case) > self.longest_s:
                self.left_out += 1
                return
            timing = self.timing(case)
        except RuntimeError as error:  # out of memory, too
            self._fail(case, error)
            return
        self.failures = 0
        self._add(case, heads, timing)

    def _fail(self, case: Case, error: RuntimeError) -> None:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        shape = ", ".join(f"{key} {value}" for key, value in case.columns.items())
        self.say(f"  {case.table} ({shape}) left out: {reason}")
        self.left_out += 1
        self.failures += 1
        self.forget()
        if self.failures >= MOST_FAILURES:
            raise InputError(
                f"{self.failures} kernels in a row cannot be run, the last one {case.table} "
                f"({shape}): {reason}; what was measured before is kept in {self.tables.folder}"
            )

    def forget(self) -> None:
        """Give the memory of all buffers back."""
        self.buffers.drop()
        self.machine.forget()

    def _add(self, case: Case, heads: dict[str, Any], timing: Timing) -> None:
        self.tables.add(case, heads, timing)
        self.measured += 1
        if time.perf_counter() - self._saved > SAVE_S:
            self.tables.save()
            self._saved = time.perf_counter()

    def timing(self, case: Case) -> Timing:
        kernel = body(self.buffers, case, self.modules)
        return self.machine.timing(kernel, self.buffers, self.case_s)

    def estimate(self, case: Case) -> float:
        """Seconds of one call, from a product and a copy that were timed first."""
        if not self._rate:
            m, n, k = PROBE
            probe = Case("gemm", "fp32", {"dtype": "float32", "m": m, "n": n, "k": k}, 0, 0, 0)
            rows = {"op": "copy", "rows": 4096, "width": 1024, "dtype": "float32"}
            copied = self.timing(Case("copy", "fp32", rows, 0, 0, 0)).latency_us
            self._bandwidth = 2 * 4096 * 1024 * 4 / (copied * 1e-6)
            self._rate = 2.0 * m * n * k / (self.timing(probe).latency_us * 1e-6)
        return case.flops / self._rate + case.nbytes / self._bandwidth

    def exchange(self, cases: list[Case], requested: bool) -> None:
        """All-reduces between the GPUs, or between two processes if exchanges are requested."""
        ranks = self.machine.ranks(requested)
        if not cases or ranks < 2:
            if cases and requested:
                self.say("  all-reduce: left out, there is one device")
                self.left_out += len(cases)
            return
        heads = {
            "library": library(self.torch, self.machine.library),
            "mode": self.machine.library,
            "num_gpus": ranks,
        }
        missing = [c for c in cases if not self.tables.has(c, **heads)]
        self.known += len(cases) - len(missing)
        if not missing:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        before = self.measured
        self.forget()  # the processes have memory of their own on the same devices
        try:
            all_reduces(
                missing,
                ranks,
                self.machine.library,
                self.out,
                lambda number, timing: self._add(missing[number], heads, timing),
            )
        except Broken as error:
            rest = len(missing) - (self.measured - before)
            self.say(f"  all-reduce: {rest} {'size' if rest == 1 else 'sizes'} left out: {error}")
            self.left_out += rest

    def device_file(self) -> Path:
        """Write the device to start from, if products and copies were measured."""
        path = self.out / f"{self.name}.toml"
        gemm, copies = self.tables.frame("gemm"), self.tables.frame("copy")
        if len(gemm) and len(copies):
            device = self.machine.start(self.name, gemm, copies, self.tables.frame("elementwise"))
            heading = (
                f"{self.name}: to start from, as `memorywall measure` found it; calibrate adds"
            )
            save_device(device, path, f"{heading}\nthe efficiency terms.")
        return path
