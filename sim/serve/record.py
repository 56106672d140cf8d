"""What a serving run records, for its files and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sim.mapping.parallelism import Parallelism
from sim.serve.columns import RequestColumns, StageColumns, StepColumns


class ServeRecord(NamedTuple):
    """What a run recorded: finished requests, steps of each replica (None if they were not kept),
    and steps of each stage where a replica has several.

    split: of one replica. kv_blocks_total: KV blocks of all replicas; None without a KV cache.
    matrix_peak_flops: FLOP/s of one device; None if it is not known.
    """

    requests: RequestColumns
    steps: Sequence[StepColumns] | None = None
    stages: Sequence[StageColumns] = ()
    split: Parallelism = Parallelism()
    kv_blocks_total: int | None = None
    matrix_peak_flops: float | None = None
