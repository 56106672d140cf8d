"""GPUs through PyTorch's CUDA (or ROCm) interface: graphs, events, and what the driver tells."""

from __future__ import annotations

from typing import Any

import polars as pl

from hw_models.device import Device
from sim.fidelity.measure.buffers import CACHES, Body, TensorBuffers
from sim.fidelity.measure.host import slug
from sim.fidelity.measure.starting import gpu_device
from sim.fidelity.measure.tables import Timing
from sim.fidelity.measure.timer import Graphs, Work, graph_timing

BF16_SINCE = 8  # major compute capability with bf16 units: Ampere
# Where a version of PyTorch does not tell.
USUAL_L2, USUAL_SHARED, USUAL_KHZ = 32 * 2**20, 96 * 2**10, 1_500_000


class CudaGraphs:
    """Graphs on the current device.

    Warm-up and capture share a side stream, which is neither the default stream (that cannot be
    captured) nor without the workspaces that libraries make at their first call on a stream.
    Replays and events are on the current stream, in order.
    """

    def __init__(self, torch: Any) -> None:
        self.torch = torch

    def capture(self, warm: Work, run: Work) -> Work:
        cuda = self.torch.cuda
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            warm()
        cuda.current_stream().wait_stream(side)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph, stream=side):  # waits for all work, and frees cached memory first
            run()
        replay: Work = graph.replay
        return replay

    def seconds(self, before: Work, replay: Work) -> float:
        first, last = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        before()
        first.record()
        replay()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) * 1e-3  # it counts milliseconds


class Cuda:
    """The current GPU under measurement."""

    place = "cuda"
    library = "NCCL"

    def __init__(self, torch: Any, graphs: Graphs | None = None) -> None:
        self.torch = torch
        self.graphs = graphs or CudaGraphs(torch)
        self.driver = driver(torch)
        self.full_name = str(torch.cuda.get_device_name())
        self.name = slug(self.full_name)
        self.where = f"GPU {self.full_name}"
        self.cache = self.driver["l2_KiB"] * 1024
        self.passing = CACHES * self.cache
        self.memory = float(torch.cuda.mem_get_info()[0])  # what others hold is not to be had
        modern = bool(getattr(torch.version, "hip", None)) or self.driver["major"] >= BF16_SINCE
        wide = ("fp16", "fp32")
        self.formats: tuple[str, ...] = ("bf16", *wide) if modern else wide

    def timing(self, body: Body, buffers: TensorBuffers, most_s: float) -> Timing:
        return graph_timing(self.graphs, body, buffers.pass_by, most_s)

    def ranks(self, requested: bool) -> int:
        return int(self.torch.cuda.device_count())

    def forget(self) -> None:
        """Give memory back that PyTorch keeps of freed tensors."""
        self.torch.cuda.empty_cache()

    def start(
        self, name: str, gemm: pl.DataFrame, copies: pl.DataFrame, others: pl.DataFrame
    ) -> Device:
        return gpu_device(name, self.driver, gemm, copies, others)


def driver(torch: Any) -> dict[str, float]:
    """What PyTorch tells of the GPU. Clock and shared memory only newer versions tell."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())

    def reported(name: str, usual: float) -> float:
        return float(getattr(properties, name, 0) or usual)

    return {
        "major": float(properties.major),
        "cores": float(properties.multi_processor_count),
        "memory": float(properties.total_memory),
        "l2_KiB": reported("L2_cache_size", USUAL_L2) / 1024,
        "shared_KiB": reported("shared_memory_per_multiprocessor", USUAL_SHARED) / 1024,
        "clock_GHz": reported("clock_rate", USUAL_KHZ) / 1e6,
    }
