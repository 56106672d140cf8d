"""Where points are computed: in this process, on the local cores, or on a Dask cluster.

Both pools are executors of futures, and share one code path.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from sim.errors import Infeasible, InputError, MemorywallError
from sim.studies.sweep.kinds import Row, refusal
from sim.studies.sweep.registry import kind_of

PATIENCE = 3  # give up after this many pools in a row died without finishing a job
ANSWER = "4s"  # for a Dask scheduler to answer in
Job = list[tuple[int, Any]]  # numbers of points, and the results of `Kind.prepare`
Found = list[tuple[int, Row]]


def compute(kind: str, option: str, job: Job) -> Found:
    """The rows of a job's points; a point that fails is a row, too. Runs in any process."""
    row_of = kind_of(kind).row
    rows: Found = []
    for number, ready in job:
        try:
            row = row_of(ready, option)
        except (InputError, Infeasible) as error:
            row = refusal(error)
        rows.append((number, row))
    return rows


def compute_away(kind: str, option: str, job: Job) -> Found:
    """`compute` in a worker: Ctrl-C is the business of the process that sent the job."""
    with suppress(ValueError):  # a worker that runs jobs in threads
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return compute(kind, option, job)


def run_jobs(
    kind: str, option: str, jobs: Sequence[Job], workers: int, dask: str | None
) -> Iterator[Found]:
    """The rows of all jobs, as they come. A worker that dies loses none: its jobs go out again."""
    if not dask and (workers == 1 or len(jobs) == 1):
        for job in jobs:
            for one in job:
                yield compute(kind, option, [one])
        return
    left, deaths = dict(enumerate(jobs)), 0
    while left:
        try:
            with _cluster(dask) if dask else _local(min(workers, len(left))) as (pool, window):
                for number, rows in _through(pool, window, kind, option, left):
                    del left[number]
                    deaths = 0
                    yield rows
        except BrokenExecutor as error:
            deaths += 1
            if deaths == PATIENCE:
                raise MemorywallError(
                    f"workers die again and again, {len(left)} jobs are left ({error}); what is "
                    "finished is kept: try fewer --workers, they may be short of memory"
                ) from None


def _through(
    pool: Executor, window: int, kind: str, option: str, jobs: dict[int, Job]
) -> Iterator[tuple[int, Found]]:
    """(number, rows) of jobs as they end, with at most `window` of them under way."""
    waiting = iter(list(jobs))
    sent: dict[Future[Found], int] = {}
    while True:
        for number in islice(waiting, window - len(sent)):
            sent[pool.submit(compute_away, kind, option, jobs[number])] = number
        if not sent:
            return
        for done in wait(sent, return_when=FIRST_COMPLETED).done:
            yield sent.pop(done), done.result()


@contextmanager
def _local(workers: int) -> Iterator[tuple[Executor, int]]:
    """Processes on this machine, one thread of arithmetic each."""
    from joblib.externals.loky import get_reusable_executor

    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    pool = get_reusable_executor(
        max_workers=workers,
        timeout=60,
        env={**alone, "POLARS_MAX_THREADS": "1"},
    )
    try:
        yield pool, 2 * workers
    except BaseException:
        pool.shutdown(wait=True, kill_workers=True)
        raise


async def _knock(parts: Any, address: str) -> None:
    """See that what listens at an address speaks as a scheduler does."""
    comm = await parts.connect(address, timeout=ANSWER)
    await comm.close()


def _client(address: str) -> Any:
    """A connection to the scheduler of a Dask cluster. Raises InputError."""
    try:
        import distributed
    except ImportError:
        raise InputError(
            "--dask needs the extra: install memorywall[cluster], here and on the workers"
        ) from None
    # What is lost is told in one sentence, not by a log of tracebacks.
    for name in [n for n in logging.root.manager.loggerDict if n.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    connect: Any = distributed.Client
    parts: Any = distributed.comm
    try:  # a client that cannot read its address fails again when it is collected
        parts.parse_host_port(parts.parse_address(address)[1])
        asyncio.run(_knock(parts, address))
        return connect(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError, TimeoutError, MemoryError) as error:  # another service may answer
        said = " ".join(str(error).split())
        raise InputError(f"--dask {address}: no scheduler answers there ({said})") from None


def reach(address: str) -> None:
    """See that a Dask scheduler answers, before anything is computed. Raises InputError."""
    with _client(address):
        pass


@contextmanager
def _cluster(address: str) -> Iterator[tuple[Executor, int]]:
    """The workers of a Dask cluster. Its scheduler gives the tasks of a dead worker to others."""
    client = _client(address)
    import distributed

    with client:
        pool = client.get_executor(pure=False)
        try:
            yield pool, 16 * max(8, len(client.nthreads()))
        except (distributed.KilledWorker, CancelledError, OSError) as error:
            raise MemorywallError(
                f"--dask {address}: the cluster is lost ({str(error) or 'cancelled'}); what is "
                "finished is kept"
            ) from None
        finally:
            pool.shutdown(wait=False)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
