"""Metrics of a serving run, taken apart, from its tables: of this process, or of a folder.

`makespan` is the mean over devices. `e2e` is the account of a request. `ttft` and `tpot` say what
the replica did between two moments of a request: in queue, then its steps; so they need the steps,
and a replica of one stage. A percentile is the request at that rank, or the two beside it in
proportion, as numpy interpolates.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sim.errors import InputError, hint, quoted
from sim.serve.columns import PART_COLUMNS, STATE_COLUMNS
from sim.serve.live import PARTS
from sim.states import STATES
from sim.studies.whatif.parts import Breakdown, Cause, Parts, kept

if TYPE_CHECKING:
    import polars as pl

METRICS = ("e2e", "ttft", "tpot", "makespan")
_METRIC = re.compile(r"^(e2e|ttft|tpot)(?::(?:p([0-9]{1,3}\.?[0-9]{0,9})|request=([0-9]{1,18})))?$")
STEP_STATES = STATES[:5]
Int = NDArray[np.int64]


class ServedTables(msgspec.Struct, frozen=True):
    """What a serving run left: a row per request, a row per step (None where not kept), totals."""

    requests: pl.DataFrame
    steps: pl.DataFrame | None
    account_ps: dict[str, int]
    devices: int
    stages: int


def break_down(tables: ServedTables, metric: str) -> Breakdown:
    """makespan, or e2e, ttft or tpot: the mean, `e2e:p99`, or `e2e:request=17`. Raises
    InputError."""
    if metric == "makespan":
        shares = {Cause(s): Fraction(x, tables.devices) for s, x in tables.account_ps.items()}
        return Breakdown(metric, kept(shares))
    match = _METRIC.match(metric)
    if not match:
        known = [*METRICS, "e2e:p99", "ttft:p50", "tpot:p90", "e2e:request=0"]
        raise InputError(
            f"--metric {quoted(metric)}: not a metric of a serving run{hint(metric, known)}"
        )
    name, percentile, index = match.groups()
    rows = _Rows(tables, name)
    if percentile is not None:
        weights = rows.at_percentile(Fraction(percentile))
    elif index is not None:
        weights = rows.of_request(int(index))
    else:
        weights = None
    return Breakdown(metric, rows.parts(weights))


class _Rows:
    """A latency of every request: ticks by cause, over its tokens where it is a tpot."""

    def __init__(self, tables: ServedTables, name: str) -> None:
        t = tables.requests
        if name == "tpot":
            t = t.filter(t["output_tokens"] > 1)
        if not t.height:
            raise InputError(f"--metric {name}: no request of the run has it")
        self.name, self.table = name, t
        self.over: Int = np.ones(t.height, np.int64)
        if name == "tpot":
            self.over = t["output_tokens"].to_numpy() - 1
        if name == "e2e":
            self.columns = {
                Cause(part): t[column].to_numpy()
                for part, column in zip(PARTS, PART_COLUMNS, strict=True)
            }
        else:
            self.columns = self._windows(tables)

    def _windows(self, tables: ServedTables) -> dict[Cause, Int]:
        """The steps of its replica from one moment of a request to another."""
        if tables.steps is None or tables.stages > 1:
            lack = "it kept no steps" if tables.stages == 1 else f"it has {tables.stages} stages"
            raise InputError(
                f"--metric {self.name}: taken apart by the steps of a replica of one stage; of "
                f"this run {lack}; use e2e or makespan"
            )
        t = self.table
        arrival, scheduled, first, last = (
            t[f"{moment}_ps"].to_numpy()
            for moment in ("arrival", "scheduled", "first_token", "last_token")
        )
        begin, end = (scheduled, first) if self.name == "ttft" else (first, last)
        by_cause = {Cause(state): np.zeros(t.height, np.int64) for state in STEP_STATES}
        replica = t["replica"].to_numpy()
        for number in np.unique(replica):
            mine, steps = replica == number, tables.steps.filter(tables.steps["replica"] == number)
            start = steps["start_ps"].to_numpy()
            low = np.searchsorted(start, begin[mine], "left")
            high = np.searchsorted(start + steps["duration_ps"].to_numpy(), end[mine], "right")
            for state, column in zip(STEP_STATES, STATE_COLUMNS, strict=True):
                sums = np.concatenate(([0], np.cumsum(steps[column].to_numpy())))
                by_cause[Cause(state)][mine] = sums[high] - sums[low]
        rest = end - begin - sum(by_cause.values())
        waited = scheduled - arrival if self.name == "ttft" else 0 * arrival
        by_cause[Cause("queue")] = waited + rest  # between steps the replica waits for work
        return by_cause

    def parts(self, weights: dict[int, Fraction] | None) -> Parts:
        """The weighted sum over rows; None is the mean of all."""
        if weights is not None:
            return kept(
                {
                    cause: sum(
                        (w * Fraction(int(x[i]), int(self.over[i])) for i, w in weights.items()),
                        Fraction(),
                    )
                    for cause, x in self.columns.items()
                }
            )
        count, parts = self.table.height, {}
        groups = [(int(n), self.over == n) for n in np.unique(self.over)]
        for cause, x in self.columns.items():
            sums = (Fraction(sum(x[mine].tolist()), n) for n, mine in groups)
            parts[cause] = sum(sums, Fraction()) / count
        return kept(parts)

    def at_percentile(self, percent: Fraction) -> dict[int, Fraction]:
        """Weights of the rows at a rank: linear between the two around it."""
        if percent > 100:
            raise InputError(f"--metric {self.name}:p{percent}: a percentile is 0 to 100")
        total: Any = sum(self.columns.values())
        order = np.argsort(total / self.over, kind="stable")
        place = (len(order) - 1) * percent / 100
        low = int(place)
        part = place - low
        weights = {int(order[low]): 1 - part}
        if part:
            weights[int(order[low + 1])] = part
        return weights

    def of_request(self, index: int) -> dict[int, Fraction]:
        """The one request of an index."""
        rows = np.flatnonzero(self.table["index"].to_numpy() == index)
        if not len(rows):
            raise InputError(f"--metric {self.name}:request={index}: no such request finished")
        return {int(rows[0]): Fraction(1)}
