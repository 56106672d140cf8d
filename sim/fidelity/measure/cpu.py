"""The CPU at hand under measurement."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import msgspec
import polars as pl

from hw_models.device import Device
from sim.fidelity.measure.buffers import Body, TensorBuffers
from sim.fidelity.measure.host import this_host
from sim.fidelity.measure.starting import cpu_device
from sim.fidelity.measure.tables import Timing
from sim.fidelity.measure.timer import CLOCKS, cpu_timing

# Of mallopt(3), as <malloc.h> of the GNU C library numbers them.
TRIM_THRESHOLD, MMAP_MAX = -1, -4


class Cpu:
    place = "cpu"
    library = "gloo"
    formats: tuple[str, ...] = ("fp32", "bf16", "fp16")

    def __init__(self, torch: Any, threads: int, clock: str) -> None:
        if threads:
            torch.set_num_threads(threads)
        keep_freed_memory()
        self.torch, self.clock = torch, CLOCKS[clock]
        self.host = this_host()
        self.name = self.host.name
        self.where = f"CPU with {torch.get_num_threads()} threads on {self.host.cores} cores"
        self.memory = float(self.host.memory)
        self.cache = self.passing = self.host.last_level

    def timing(self, body: Body, buffers: TensorBuffers, most_s: float) -> Timing:
        return cpu_timing(body, most_s, self.clock)

    def ranks(self, requested: bool) -> int:
        """The number of processes that stand for devices; 1 unless exchanges are requested."""
        return 2 if requested else 1

    def forget(self) -> None:
        """Give memory back that the C library keeps."""
        trim = library_function("malloc_trim")
        if trim:
            trim(0)

    def start(
        self, name: str, gemm: pl.DataFrame, copies: pl.DataFrame, others: pl.DataFrame
    ) -> Device:
        used = min(self.torch.get_num_threads(), self.host.cores)
        host = msgspec.structs.replace(self.host, cores=used)
        return cpu_device(name, host, gemm, copies, others)


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, as allocators for PyTorch do, instead of giving large
    blocks back to the system: then every output of a kernel would be made of pages that the
    system has yet to find and clear, or not, by the history of the process. Whether it does."""
    option = library_function("mallopt")
    return bool(option and option(MMAP_MAX, 0) and option(TRIM_THRESHOLD, 2**31 - 1))


def library_function(name: str) -> Callable[..., int] | None:
    """A function of the C library that this process runs on, if it has it."""
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another library than GNU's
        return None
    return function
