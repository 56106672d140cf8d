"""Measuring a GPU without one: everything but the driver, against a stand-in for PyTorch's CUDA
interface that keeps its rules (what may be captured where, what is queued, when events are known)
and whose kernels take a known time."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import polars as pl
import pytest

from sim.errors import InputError
from sim.fidelity.measure import session
from sim.fidelity.measure.bench import MOST_FAILURES
from sim.fidelity.measure.buffers import Body, TensorBuffers
from sim.fidelity.measure.cases import Case, grid
from sim.fidelity.measure.cuda import Cuda, CudaGraphs, driver
from sim.fidelity.measure.exchanges import Broken, all_reduces, library, run_rank
from sim.fidelity.measure.plan import MeasurementPlan
from sim.fidelity.measure.tables import MeasurementTables, Timing
from sim.fidelity.measure.timer import LEAST, LEAST_CALLS, MOST, graph_timing
from sim.inputs.catalogue import load_device

COLD, WARM, GAP, FLUSH = 9e-6, 4e-6, 30e-6, 50e-6  # seconds
L2 = 8 * 2**20


class Gpu:
    """Kernels run in order; one that finds nothing queued waits for the host."""

    def __init__(self) -> None:
        self.time = 0.0
        self.queued = False
        self.recording: list[Callable[[], float]] | None = None
        self.default, self.stream = object(), None
        self.prepared: set[object] = set()
        self.cached: set[int] = set()

    @property
    def current(self) -> object:
        return self.stream or self.default

    def launch(self, cost: Callable[[], float]) -> None:
        if self.recording is not None:
            assert self.current in self.prepared, "a library makes its workspace in a capture"
            self.recording.append(cost)
            return
        self.prepared.add(self.current)
        self.run([cost])

    def run(self, costs: list[Callable[[], float]]) -> None:
        self.time += 0.0 if self.queued else GAP
        self.queued = True
        for cost in costs:
            self.time += cost()

    def wait(self) -> None:
        assert self.recording is None, "waiting is not allowed in a capture"
        self.queued = False

    def read(self, window: int) -> float:
        """A kernel that reads a window, which stays in the cache."""
        cost = WARM if window in self.cached else COLD
        self.cached.add(window)
        return cost

    def flush(self) -> None:
        def empty() -> float:
            self.cached.clear()
            return FLUSH

        self.launch(empty)


class Stream:
    def wait_stream(self, other: object) -> None:
        self.behind = other


class Event:
    def __init__(self, gpu: Gpu, timing: bool) -> None:
        self.gpu, self.timing, self.known = gpu, timing, False

    def record(self) -> None:
        self.at = self.gpu.time

    def synchronize(self) -> None:
        self.gpu.wait()
        self.known = True

    def elapsed_time(self, later: Event) -> float:
        assert self.timing
        assert later.known, "not known yet"
        return (later.at - self.at) * 1e3


def torch_of(gpu: Gpu, **properties: Any) -> Any:
    """A stand-in for the module `torch` on a machine with two such GPUs."""

    class Graph:
        def __init__(self) -> None:
            self.kernels: list[Callable[[], float]] = []

        def replay(self) -> None:
            gpu.run(self.kernels)

    @contextmanager
    def stream(wanted: object) -> Iterator[None]:
        gpu.stream, before = wanted, gpu.stream
        yield
        gpu.stream = before

    @contextmanager
    def graph(made: Graph, stream: Any = None) -> Iterator[None]:
        assert stream is not None
        assert stream is not gpu.default, "the default stream cannot be captured"
        gpu.wait()
        gpu.stream, gpu.recording = stream, made.kernels
        try:
            yield
        finally:
            gpu.stream = gpu.recording = None

    told = {"major": 9, "multi_processor_count": 132, "total_memory": 8 * 2**30}
    told |= {"L2_cache_size": L2, "shared_memory_per_multiprocessor": 233472}
    told |= {"clock_rate": 1_980_000} | properties
    cuda = SimpleNamespace(
        Stream=Stream,
        Event=lambda enable_timing: Event(gpu, enable_timing),
        CUDAGraph=Graph,
        graph=graph,
        stream=stream,
        current_stream=lambda: SimpleNamespace(wait_stream=lambda other: None),
        current_device=lambda: 0,
        device_count=lambda: 2,
        get_device_name=lambda: "NVIDIA X100 8GB",
        get_device_properties=lambda device: SimpleNamespace(**told),
        mem_get_info=lambda: (6 * 2**30, 8 * 2**30),
        empty_cache=lambda: gpu.cached.clear(),
        is_available=lambda: True,
        nccl=SimpleNamespace(version=lambda: (2, 27, 5)),
        synchronize=gpu.wait,
        set_device=lambda rank: None,
    )
    return SimpleNamespace(
        cuda=cuda, version=SimpleNamespace(), __version__="9.9", no_grad=nullcontext
    )


def rotating(gpu: Gpu, copies: int) -> Body:
    return Body(lambda i: gpu.launch(lambda: gpu.read(i % copies)), copies)


@pytest.mark.parametrize(("copies", "each"), [(4096, COLD), (40, COLD), (1, WARM)])
def test_a_graph_finds_weights_cold_and_activations_warm_and_no_time_of_the_host(
    copies: int, each: float
) -> None:
    gpu = Gpu()
    timing = graph_timing(CudaGraphs(torch_of(gpu)), rotating(gpu, copies), gpu.flush, 0.0)
    assert timing.latency_us == pytest.approx(each * 1e6)
    assert timing.spread_us == pytest.approx(0.0, abs=1e-6)


def test_a_few_large_windows_take_turns() -> None:
    seen: list[int] = []
    gpu = Gpu()
    body = Body(lambda i: seen.append(i) or gpu.launch(lambda: COLD), copies=2)
    graph_timing(CudaGraphs(torch_of(gpu)), body, gpu.flush, 0.0)
    assert seen == [0, 1, 2, *range(LEAST_CALLS)]  # warmed up, captured, never called again


@pytest.mark.parametrize(
    ("step", "most_s", "samples"),
    [(1.0, 0.5, LEAST), (0.1, 1.0, LEAST - 1 + 11), (1e-6, 9.0, MOST)],
)
def test_as_many_samples_as_the_time_allows(step: float, most_s: float, samples: int) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += step
        return now[0]

    gpu = Gpu()
    graphs = CudaGraphs(torch_of(gpu))
    timing = graph_timing(graphs, rotating(gpu, 1), gpu.flush, most_s, clock)
    assert timing.repeats == samples


def test_what_the_driver_tells_and_what_is_assumed_where_it_does_not() -> None:
    machine = Cuda(torch_of(Gpu()))
    assert machine.formats[0] == "bf16"
    assert machine.memory == 6 * 2**30  # free, not all
    assert (machine.cache, machine.name) == (L2, "nvidia-x100-8gb")
    old = torch_of(Gpu(), major=7, L2_cache_size=0)
    assert Cuda(old).formats == ("fp16", "fp32")
    assert driver(old)["l2_KiB"] == 32 * 1024
    old.version.hip = "6.4"
    assert Cuda(old).formats[0] == "bf16"
    with pytest.raises(InputError, match=r"--dtype bf16: nvidia-x100-8gb has no units for it"):
        session.formats_of(("bf16",), Cuda(torch_of(Gpu(), major=7)))


@pytest.mark.parametrize("gigabytes", [8, 24, 80])
def test_what_a_card_cannot_hold_is_left_out(gigabytes: int) -> None:
    """Every case that is taken fits: activations, pool and concatenated caches, twice over."""
    memory = gigabytes * 1e9
    buffers = TensorBuffers(None, "cuda", memory, 50 * 2**20, 150 * 2**20)
    cases = grid(("copy", "gemm", "attention_decode", "attention_prefill"), ("bf16",))
    taken = [case for case in cases if buffers.fits(case)]
    assert all(3 * c.nbytes + 2 * buffers.pool_bytes(c) <= memory / 2 for c in taken)
    assert {c.table for c in taken} == {c.table for c in cases}
    if gigabytes == 80:
        assert len(taken) > 0.95 * len(cases)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A GPU whose kernels read one window, in place of any PyTorch."""
    found = Gpu()
    torch = torch_of(found)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(session, "require", lambda *names: None)
    monkeypatch.setattr(
        "sim.fidelity.measure.bench.body", lambda buffers, case, modules: made(found)
    )
    monkeypatch.setattr(TensorBuffers, "pass_by", lambda self: found.flush())
    return found


def made(gpu: Gpu) -> Body:
    return rotating(gpu, 64)


def plan(out: Path, *only: str) -> MeasurementPlan:
    return MeasurementPlan(out=out, quick=True, only=only, case_s=0.0, longest_s=1e9)


def test_a_gpu_is_measured_and_described(gpu: Gpu, tmp_path: Path) -> None:
    said: list[str] = []
    done = session.measure(plan(tmp_path, "gemm", "copy"), said.append)
    assert (done.measured, done.known, done.left_out) == (7, 0, 0)
    assert "GPU NVIDIA X100 8GB" in said[0]
    assert "bf16" in said[0]
    frame = pl.read_parquet(tmp_path / "kernels/gemm.parquet")
    assert frame["latency_us"].to_list() == pytest.approx([COLD * 1e6] * len(frame))
    device = load_device(str(done.file))
    assert (device.kind, device.cores, device.hbm.capacity_GB) == ("gpu", 132, 8.59)
    assert device.matrix.TFLOPS.keys() == {"bf16"}
    assert session.measure(plan(tmp_path, "gemm", "copy")).known == 7


def test_an_interrupt_keeps_what_is_measured_and_the_same_command_goes_on(
    gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))

    def third(buffers: TensorBuffers, case: Case, modules: str) -> Body:
        if next(calls) == 5:  # two probes come first
            raise KeyboardInterrupt
        return made(gpu)

    monkeypatch.setattr("sim.fidelity.measure.bench.body", third)
    first = session.measure(plan(tmp_path, "gemm", "copy"))
    assert (first.interrupted, first.measured) == (True, 3)
    second = session.measure(plan(tmp_path, "gemm", "copy"))
    assert (second.interrupted, second.measured, second.known) == (False, 4, 3)


def out_of_memory(buffers: TensorBuffers, case: Case, modules: str) -> Body:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


def test_a_shape_that_runs_out_of_memory_is_named_and_left_out(
    gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(buffers: TensorBuffers, case: Case, modules: str) -> Body:
        if case.columns.get("n") == 256 and case.columns["m"] == 16:
            return out_of_memory(buffers, case, modules)
        return made(gpu)

    monkeypatch.setattr("sim.fidelity.measure.bench.body", body)
    said: list[str] = []
    done = session.measure(plan(tmp_path, "gemm"), said.append)
    assert (done.measured, done.left_out) == (5, 1)
    assert said[1:] == [
        "  gemm (dtype bfloat16, m 16, n 256, k 256, cold True) left out: "
        "CUDA out of memory. Tried to allocate 2.00 GiB."
    ]


def test_where_nothing_runs_measuring_ends_in_a_sentence_and_keeps_what_it_has(
    gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.measure(plan(tmp_path, "copy"))
    calls = iter(range(100))

    def body(buffers: TensorBuffers, case: Case, modules: str) -> Body:
        return made(gpu) if next(calls) < 3 else out_of_memory(buffers, case, modules)

    monkeypatch.setattr("sim.fidelity.measure.bench.body", body)
    with pytest.raises(InputError, match=rf"^{MOST_FAILURES} kernels in a row cannot be run"):
        session.measure(plan(tmp_path, "gemm"))
    assert len(pl.read_parquet(tmp_path / "kernels/gemm.parquet")) == 1


def test_a_case_that_would_take_too_long_is_not_begun(gpu: Gpu, tmp_path: Path) -> None:
    slow = msgspec.structs.replace(plan(tmp_path, "gemm"), longest_s=0.0)
    done = session.measure(slow)
    assert (done.measured, done.left_out) == (0, 6)


class Ranks:
    """What torch.multiprocessing.spawn gives: processes, of which the first has written a file."""

    def __init__(self, results: str, found: list[Timing], end: BaseException | None) -> None:
        if found:
            Path(results).write_bytes(msgspec.json.encode(found))
        self.end, self.joined = end, 0
        self.processes = [SimpleNamespace(is_alive=lambda: True, terminate=self.terminate)]
        self.terminated = False

    def terminate(self) -> None:
        self.terminated = True

    def join(self) -> bool:
        self.joined += 1
        if self.end and self.joined == 2:
            raise self.end
        return self.joined == 2


class ProcessRaisedException(Exception):
    pass


class ProcessExitedException(Exception):
    pass


def spawning(
    monkeypatch: pytest.MonkeyPatch, found: list[Timing], end: BaseException | None
) -> list[Ranks]:
    started: list[Ranks] = []

    def spawn(function: object, args: tuple[Any, ...], nprocs: int, join: bool) -> Ranks:
        assert (function, args[0], nprocs, join) == (run_rank, 2, 2, False)
        started.append(Ranks(args[-1], found, end))
        return started[-1]

    module = types.ModuleType("torch.multiprocessing")
    module.__dict__.update(
        spawn=spawn,
        ProcessRaisedException=ProcessRaisedException,
        ProcessExitedException=ProcessExitedException,
    )
    monkeypatch.setitem(sys.modules, "torch.multiprocessing", module)
    return started


FOUND = [Timing(3.0, 0.1, 5), Timing(5.0, 0.1, 5)]
EXCHANGES = grid(("collectives",), ("bf16",), quick=True)


@pytest.mark.parametrize("end", [None, KeyboardInterrupt(), ProcessRaisedException("a\nlost")])
def test_exchanges_keep_what_was_found_however_they_end(
    end: BaseException | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch_of(Gpu()))
    started = spawning(monkeypatch, FOUND[: 1 if end else 2], end)
    kept: dict[int, Timing] = {}
    raised: type[BaseException] = Broken if isinstance(end, Exception) else KeyboardInterrupt
    with pytest.raises(raised) if end else nullcontext():
        all_reduces(EXCHANGES, 2, "NCCL", tmp_path, kept.__setitem__)
    assert kept == dict(enumerate(FOUND[: 1 if end else 2]))
    assert started[0].terminated
    assert list(tmp_path.iterdir()) == []


def test_an_exchange_that_breaks_is_said_and_the_rest_of_the_measurement_stands(
    gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawning(monkeypatch, FOUND[:1], ProcessExitedException("process 1 terminated with SIGABRT"))
    said: list[str] = []
    done = session.measure(plan(tmp_path, "all-reduce"), said.append)
    assert (done.measured, done.left_out) == (1, 1)
    assert said[-1] == "  all-reduce: 1 size left out: process 1 terminated with SIGABRT"
    tables = MeasurementTables(tmp_path, "nvidia-x100-8gb")
    tables.load(("collectives",))
    assert tables.has(EXCHANGES[0], library="nccl/2.27.5", mode="NCCL", num_gpus=2)
    spawning(monkeypatch, FOUND[1:], None)
    assert session.measure(plan(tmp_path, "all-reduce")).known == 1


def test_the_names_of_libraries_have_their_versions() -> None:
    torch = torch_of(Gpu())
    assert library(torch, "NCCL") == "nccl/2.27.5"
    assert library(torch, "gloo") == "gloo/9.9"


@pytest.mark.parametrize(("name", "end"), [("NCCL", False), ("gloo", False), ("NCCL", True)])
def test_a_rank_takes_its_device_meets_the_others_and_leaves(
    name: str, end: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    torch = torch_of(Gpu())
    torch.cuda.set_device = lambda rank: did.append(f"device {rank}")
    torch.set_num_threads = lambda count: did.append(f"threads {count}")
    torch.device = lambda kind, rank: f"{kind}:{rank}"
    torch.bfloat16 = SimpleNamespace(itemsize=2)
    torch.zeros = lambda count, dtype, device: (count, device)
    distributed = types.ModuleType("torch.distributed")

    def init_process_group(backend: str, **options: Any) -> None:
        did.append(f"{backend} {options['rank']}/{options['world_size']}")
        assert options.get("device_id") == ("cuda:0" if name == "NCCL" else None)
        assert options["init_method"] == "tcp://127.0.0.1:7"

    def all_reduce(buffer: tuple[int, str]) -> None:
        if end:
            raise KeyboardInterrupt
        assert buffer in ((512, place), (8192, place))

    place = "cuda:0" if name == "NCCL" else "cpu"
    distributed.__dict__.update(
        init_process_group=init_process_group,
        all_reduce=all_reduce,
        barrier=lambda: None,
        destroy_process_group=lambda: did.append("gone"),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.distributed", distributed)
    results = tmp_path / "results.json"
    run_rank(0, 2, 7, name, [(1024, "bfloat16"), (16384, "bfloat16")], str(results))
    first = "device 0" if name == "NCCL" else "threads 1"
    assert did == [first, f"{name.lower()} 0/2", *([] if end else ["gone"])]
    if not end:
        assert len(msgspec.json.decode(results.read_bytes(), type=list[Timing])) == 2
