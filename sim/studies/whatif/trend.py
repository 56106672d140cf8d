"""A device scaled by the paper's rates: when a workload meets the memory wall.

Over two years peak FLOP/s grew 3.0 times, DRAM bandwidth 1.6 and interconnect bandwidth 1.4
(Gholami et al. 2024, arXiv 2403.14123). The device's rates are scaled so and the scenario is run
again; capacities and what kernels reach of a peak stay as they are. Of the fixed times (launches,
floors, latencies) the paper says nothing: they shrink as arithmetic grows, or by a given
rate; at rate 1 they stay, and become the wall themselves.

A workload meets the wall when it waits for HBM as long as it computes. The bandwidth that keeps the
arithmetic busy moves the bytes in the time of the arithmetic: bytes / compute time, to be read
as bandwidth that is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from sim.cost.model import matrix_rate
from sim.errors import InputError
from sim.studies.sweep.study import Watch
from sim.studies.whatif.resources import Resource, fixed_times, resources_of
from sim.studies.whatif.runs import break_down, window
from sim.studies.whatif.subjects import RunSubject, document_of, subject_of
from workloads.model import Record

SCALED = {"FLOP/s": "flops", "HBM bandwidth": "hbm", "link bandwidth": "link"}
EARLIEST = -20.0  # years before the device that are looked at
CLOSE = 0.02  # years
DEFAULTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("BERT-Base encode, 8 x 512", "bert-base", ("batch=8", "seq=512")),
    ("Llama-3.1-8B prefill, 2048", "llama-3.1-8b", ("prompt=2048", "output=1")),
    ("Llama-3.1-8B decode, batch 256", "llama-3.1-8b", ("batch=256", "prompt=512", "output=3")),
    ("Llama-3.1-8B decode, batch 1", "llama-3.1-8b", ("prompt=512", "output=3")),
)
Growth = Annotated[float, msgspec.Meta(gt=0, le=100)]


class TrendRates(Record, frozen=True, kw_only=True):
    """Growth over two years."""

    flops: Annotated[Growth, Meta(description="Growth of FLOP/s in two years")] = 3.0
    hbm: Annotated[Growth, Meta(description="Growth of HBM bandwidth in two years")] = 1.6
    link: Annotated[Growth, Meta(description="Growth of link bandwidth in two years")] = 1.4
    fixed: Annotated[
        Growth, Meta(description="Factor by which launches, floors and latencies shrink; 1: none")
    ] = 3.0


class Horizon(NamedTuple):
    """How fast rates grow, over how many years, and the years between two runs."""

    rates: TrendRates
    years: float
    step: float


class Moment(msgspec.Struct, frozen=True):
    """A workload on the device of a year: shares of the metric, and bandwidths in GB/s."""

    year: float
    time: Fraction  # ticks
    shares: dict[str, float]
    bandwidth: float
    needed: float

    @property
    def waits(self) -> bool:
        """Whether it waits for HBM longer than it computes."""
        return self.shares.get("hbm", 0.0) > self.shares.get("compute", 0.0)


class Course(msgspec.Struct, frozen=True):
    """A workload over the years. `wall` is the year in which it meets the wall, None if it does
    not between EARLIEST and the last year; `behind` says that it had met it before. `balance` is
    the FLOPs per byte of HBM that the device can do now, `met_at` in that year."""

    name: str
    metric: str
    moments: tuple[Moment, ...]
    wall: float | None
    behind: bool
    balance: float
    met_at: float | None


class Trend(msgspec.Struct, frozen=True):
    """Workloads on one device that grows."""

    machine: str
    rates: TrendRates
    courses: tuple[Course, ...]


def trend(
    scenarios: Sequence[str],
    on: str | None,
    changes: Sequence[str],
    metric: str | None,
    horizon: Horizon,
    watch: Watch | None = None,
) -> Trend:
    """Each scenario over the years; without one, an encoder, a prefill and two decodes.

    Raises InputError for a serving run, and for years or a step that are not positive.
    """
    rates, years, step = horizon
    if not 0 < step <= years <= 100:
        raise InputError(f"--years {years:g} --step {step:g}: 0 < step <= years <= 100")
    if scenarios:
        subjects = [(name, *document_of(name, on, changes)) for name in scenarios]
    else:
        device = on or "h100-sxm"
        subjects = [
            (label, *document_of(model, device, [*own, *changes])) for label, model, own in DEFAULTS
        ]
    courses = []
    for done, (label, kind, document) in enumerate(subjects, 1):
        if kind != "run":
            raise InputError(f"trend: {label} is a serving run; a static run is needed")
        courses.append(_course(label, document, metric, horizon, not scenarios))
        if watch:
            watch(done, len(subjects))
    machines = list(dict.fromkeys(str(document["on"]) for _, _, document in subjects))
    return Trend(", ".join(machines), rates, tuple(courses))


def _course(
    label: str,
    document: Mapping[str, Any],
    metric: str | None,
    horizon: Horizon,
    named: bool,
) -> Course:
    rates, years, step = horizon
    base = {**document, "allow_oom": True}
    one = subject_of("run", base)
    assert isinstance(one, RunSubject)
    metric_name = metric or ("e2e" if one.default == "makespan" else one.default)
    resources = resources_of(base, one.resolved.precision.activations)
    fixed = fixed_times(base)

    def at(year: float) -> Moment:
        return moment(base, resources, fixed, metric_name, rates, year)

    count = round(years / step)
    moments = tuple(at(step * i) for i in range(count + 1))
    behind = moments[0].waits
    if behind:
        low, high = EARLIEST, 0.0
        met = None if at(low).waits else crossing(at, low, high)
    else:
        first = next((i for i, m in enumerate(moments) if m.waits), None)
        met = None if first is None else crossing(at, moments[first - 1].year, moments[first].year)
    device, dtype = one.resolved.machine.device, one.resolved.precision.activations
    balance = matrix_rate(device, dtype) / device.hbm.bandwidth
    met_at = None if met is None else balance * (rates.flops / rates.hbm) ** (met / 2)
    return Course(label if named else one.name, metric_name, moments, met, behind, balance, met_at)


def crossing(at: Callable[[float], Moment], low: float, high: float) -> float:
    """The year between `low` (computes) and `high` (waits) in which waiting overtakes."""
    while high - low > CLOSE:
        middle = (low + high) / 2
        low, high = (low, middle) if at(middle).waits else (middle, high)
    return (low + high) / 2


def moment(
    document: Mapping[str, Any],
    resources: list[Resource],
    fixed: dict[str, float],
    metric: str,
    rates: TrendRates,
    year: float,
) -> Moment:
    """The scenario on the device of a year (0: as it is)."""
    values = {key: value / rates.fixed ** (year / 2) for key, value in fixed.items()}
    for resource in resources:
        if grows := SCALED.get(resource.name):
            values |= resource.scaled(getattr(rates, grows) ** (year / 2))
    one = subject_of("run", {**document, "set": {**document.get("set", {}), **values}})
    assert isinstance(one, RunSubject)
    broken = break_down(one.result, metric)
    states = {c.state: x for c, x in broken.by("state").items()}
    shares = {state: float(x / broken.total) for state, x in states.items()}
    busy = float(states.get("compute", Fraction())) * 1e-12
    moved = _moved(one, metric)
    return Moment(
        year,
        broken.total,
        shares,
        one.resolved.machine.device.hbm.bandwidth_GBps,
        moved / busy / 1e9 if busy else float("inf"),
    )


def _moved(one: RunSubject, metric: str) -> float:
    """Bytes between a rank and its HBM in the passes of a latency, a pass of a tpot."""
    first, last = window(one.result, metric)
    jobs = one.result.record.compiled.plan.jobs
    total = sum(
        work.block.hbm_bytes
        for job in jobs
        if job.replica == job.micro == 0 and first <= job.number <= last
        for work in job.work
    )
    return total / (last if metric == "tpot" else 1)
