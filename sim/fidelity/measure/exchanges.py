"""All-reduce among the devices of this machine: NCCL between GPUs, gloo between processes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from sim.fidelity.measure.cases import Case
from sim.fidelity.measure.tables import Timing
from sim.fidelity.measure.timer import summary
from sim.output.files import atomic_write

LEAST, ROUNDS = 5, 20
WARM = 2  # samples that do not count: the first makes the library's connections


class Broken(Exception):
    """A process of the exchange ended before its time; why."""


def library(torch: Any, name: str) -> str:
    """The library with its version, as the tables of collectives name it."""
    if name == "gloo":
        return f"gloo/{torch.__version__}"
    return "nccl/" + ".".join(map(str, torch.cuda.nccl.version()))


def all_reduces(
    cases: list[Case],
    ranks: int,
    name: str,
    folder: Path,
    keep: Callable[[int, Timing], None],
    rank: Callable[..., None] | None = None,
) -> None:
    """Time `cases` among `ranks` processes, one per device, and give number and time of each to
    `keep`, also of those before an interrupt. Raises Broken if a process does not end well."""
    multiprocessing = import_module("torch.multiprocessing")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shapes = [(c.columns["bytes"], c.columns["dtype"]) for c in cases]
    results = folder / ".all-reduce.json"
    results.unlink(missing_ok=True)
    arguments = (ranks, port, name, shapes, str(results))
    context = multiprocessing.spawn(rank or run_rank, args=arguments, nprocs=ranks, join=False)
    try:
        while not context.join():
            pass
    except (
        multiprocessing.ProcessExitedException,
        multiprocessing.ProcessRaisedException,
    ) as error:
        raise Broken(str(error).strip().splitlines()[-1]) from None
    finally:
        for process in context.processes:
            if process.is_alive():  # it may wait for one that has gone
                process.terminate()
        written = results.read_bytes() if results.is_file() else b"[]"
        results.unlink(missing_ok=True)
        for number, timing in enumerate(msgspec.json.decode(written, type=list[Timing])):
            keep(number, timing)


def run_rank(
    rank: int, ranks: int, port: int, name: str, shapes: list[tuple[int, str]], results: str
) -> None:
    """The work of one process. It is spawned, so it imports its modules itself. The first process
    writes all results after each case."""
    torch, distributed = import_module("torch"), import_module("torch.distributed")
    cuda = name == "NCCL"
    options: dict[str, Any] = {}
    if cuda:
        torch.cuda.set_device(rank)
        options["device_id"] = torch.device("cuda", rank)  # of barriers, too
    else:
        torch.set_num_threads(1)
    distributed.init_process_group(
        name.lower(),
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=ranks,
        **options,
    )
    timings: list[Timing] = []
    try:
        for nbytes, kind in shapes:
            dtype = getattr(torch, kind)
            place = f"cuda:{rank}" if cuda else "cpu"
            buffer = torch.zeros(max(1, nbytes // dtype.itemsize), dtype=dtype, device=place)
            timings.append(timed(torch, distributed, buffer, cuda))
            if rank == 0:
                with atomic_write(Path(results)) as temporary:
                    temporary.write_bytes(msgspec.json.encode(timings))
        distributed.destroy_process_group()
    except KeyboardInterrupt:  # all processes receive it; the parent reports it
        pass


def timed(torch: Any, distributed: Any, buffer: Any, cuda: bool) -> Timing:
    """All ranks together; each sample is the mean of several exchanges back to back."""
    samples = []
    for number in range(LEAST + WARM):
        distributed.barrier()
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(ROUNDS):
            distributed.all_reduce(buffer)
        if cuda:
            torch.cuda.synchronize()
        if number >= WARM:
            samples.append((time.perf_counter() - start) / ROUNDS)
    return summary(samples)
