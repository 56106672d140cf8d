"""All-reduce among the devices of this machine: NCCL between GPUs, gloo between processes."""

from __future__ import annotations

import socket
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from sim.measure.cases import Case
from sim.measure.tables import Timing
from sim.measure.timer import summary

LEAST, ROUNDS = 5, 20
Found = tuple[int, Timing]  # number of the case


def library(torch: Any, cuda: bool) -> tuple[str, str]:
    """(library with its version, mode) as the tables of collectives name them."""
    if not cuda:
        return f"gloo/{torch.__version__}", "gloo"
    return "nccl/" + ".".join(map(str, torch.cuda.nccl.version())), "NCCL"


def all_reduces(cases: list[Case], ranks: int, cuda: bool, folder: Path) -> list[Found]:
    """Time `cases` among `ranks` processes, one a device. The first of them writes what it found
    to `folder`, so that an interrupt loses none of it."""
    torch = import_module("torch")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shapes = [(c.columns["bytes"], c.columns["dtype"]) for c in cases]
    results = folder / ".all-reduce.json"
    results.unlink(missing_ok=True)
    try:
        torch.multiprocessing.spawn(
            _rank, args=(ranks, port, cuda, shapes, str(results)), nprocs=ranks
        )
    finally:
        found = results.read_bytes() if results.is_file() else b"[]"
        results.unlink(missing_ok=True)
    timings = msgspec.json.decode(found, type=list[Timing])
    return list(enumerate(timings))


def _rank(
    rank: int, ranks: int, port: int, cuda: bool, shapes: list[tuple[int, str]], results: str
) -> None:
    torch = import_module("torch")
    distributed = import_module("torch.distributed")
    if cuda:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    distributed.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=ranks,
    )
    found: list[Timing] = []
    for nbytes, name in shapes:
        dtype = getattr(torch, name)
        buffer = torch.zeros(
            max(1, nbytes // dtype.itemsize), dtype=dtype, device=f"cuda:{rank}" if cuda else "cpu"
        )
        found.append(_timed(torch, distributed, buffer, cuda))
        if rank == 0:
            Path(results).write_bytes(msgspec.json.encode(found))
    distributed.destroy_process_group()


def _timed(torch: Any, distributed: Any, buffer: Any, cuda: bool) -> Timing:
    """All ranks together; each sample is the mean of several exchanges back to back."""
    import time

    samples = []
    for number in range(LEAST + 2):  # the first two warm up
        distributed.barrier()
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(ROUNDS):
            distributed.all_reduce(buffer)
        if cuda:
            torch.cuda.synchronize()
        if number > 1:
            samples.append((time.perf_counter() - start) / ROUNDS)
    return summary(samples)
