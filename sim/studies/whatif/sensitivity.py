"""How much a metric follows each resource: elasticities from exact re-runs.

The elasticity is d log(metric) / d log(resource), a central difference of two runs one percent to
either side: -1 where the resource alone binds, 0 where it idles. Rates and times scale together
(twice all rates and half all latencies is half the time), so on one machine the elasticities of
times, less those of rates, sum to 1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import msgspec

from sim.errors import Infeasible, InputError
from sim.simulation import simulate
from sim.studies.sweep.pools import cores
from sim.studies.sweep.study import Watch
from sim.studies.whatif.compare import metric_name
from sim.studies.whatif.resources import Resource, resources_of
from sim.studies.whatif.runs import break_down
from sim.studies.whatif.subjects import RunSubject, Subject, subject_of

STEP = 1.01
FREE = 0.0  # stands for the factor at which a resource costs nothing
FACTORS = (STEP, 1 / STEP, 2.0, 0.5, FREE)
WORTH_PROCESSES = 6.0  # seconds; below, starting them takes longer
BINDS = 0.05  # elasticity from which a resource is called a wall

Job = tuple[int, float]  # (number of the resource, factor)


NOT_STATED = "not stated"


class SensitivityRow(msgspec.Struct, frozen=True):
    """A resource: the metric at twice and at half of it, and free, in ticks; None: not possible."""

    resource: Resource
    elasticity: float | None
    double: Fraction | None
    half: Fraction | None
    free: Fraction | None
    note: str = ""


class Sensitivity(msgspec.Struct, frozen=True):
    """A metric of a scenario, and its sensitivity to each resource."""

    metric: str
    name: str
    base: Fraction
    rows: tuple[SensitivityRow, ...]

    @property
    def strongest(self) -> SensitivityRow:
        """The resource that the metric follows most."""
        return max(self.rows, key=lambda row: abs(row.elasticity or 0.0))

    def sentence(self) -> str:
        """Which resource limits the metric."""
        row, metric = self.strongest, metric_name(self.metric)
        bound = abs(row.elasticity or 0.0)
        if bound < BINDS:
            return f"No resource of the hardware limits {metric}"
        what = row.resource
        more = "more" if what.better > 0 else "less"
        limit = what.wall[0].upper() + what.wall[1:]
        sentence = f"{limit} limits {metric}: 1 % {more} {what.name} saves {bound:.2g} %"
        if row.free is not None and self.base:
            sentence += f"; if it were free, {float(1 - row.free / self.base):.0%} would be saved"
        second = sorted(self.rows, key=lambda r: -abs(r.elasticity or 0.0))[1]
        if abs(second.elasticity or 0.0) >= BINDS:
            sentence += f". Next: {second.resource.name} ({abs(second.elasticity or 0):.2g} %)"
        return sentence


def sensitivity(
    kind: str, document: Mapping[str, Any], metric: str | None, watch: Watch | None = None
) -> Sensitivity:
    """Run again with each resource a little, twice, half as large, and free."""
    document = {**document, "allow_oom": True} if kind == "run" else dict(document)
    began = time.monotonic()
    base = subject_of(kind, document)
    metric_name = metric or base.default
    total = base.break_down(metric_name).total
    spent = time.monotonic() - began
    if not total:
        raise InputError(f"--metric {metric_name}: it is 0, so nothing can change it")
    resources = resources_of(_complete(kind, document), _dtype(base))
    jobs = [
        (i, by) for i, one in enumerate(resources) if any(one.values.values()) for by in FACTORS
    ]
    results: dict[Job, Fraction | str] = {}
    for done, (job, result) in enumerate(
        _all(kind, document, metric_name, resources, jobs, spent), 1
    ):
        results[job] = result
        if watch:
            watch(done, len(jobs))
    rows = tuple(_row(i, one, results, total) for i, one in enumerate(resources))
    return Sensitivity(metric_name, base.name, total, rows)


def _complete(kind: str, document: dict[str, Any]) -> dict[str, Any]:
    return {"host_time_us": 0.0, **document} if kind == "serve" else document


def _dtype(base: Subject) -> str:
    if isinstance(base, RunSubject):
        return base.resolved.precision.activations
    assert base.serving is not None
    from sim.serve.setup import Setup

    return Setup(base.serving).resolved.precision.activations


def _all(
    kind: str,
    document: dict[str, Any],
    metric: str,
    resources: list[Resource],
    jobs: list[Job],
    spent: float,
) -> Iterator[tuple[Job, Fraction | str]]:
    """Every job with its result, over the cores where that is worth it."""
    calls = [(kind, document, metric, resources[i], by) for i, by in jobs]
    if spent * len(jobs) < WORTH_PROCESSES or cores() == 1:
        yield from ((job, measured(*call)) for job, call in zip(jobs, calls, strict=True))
        return
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=cores(), return_as="generator")
    yield from zip(jobs, pool(delayed(measured)(*call) for call in calls), strict=True)


def measured(
    kind: str, document: dict[str, Any], metric: str, resource: Resource, by: float
) -> Fraction | str:
    """The metric with a resource scaled, ticks; or why that is not possible."""
    if by == FREE and kind == "run" and resource.free:
        one = subject_of(kind, document)
        assert isinstance(one, RunSubject)
        return break_down(simulate(one.resolved, frozenset({resource.free})), metric).total
    if by == FREE and resource.free == "sram":
        return "not known for a serving run"
    values = resource.limit if by == FREE else resource.scaled(by)
    own = {key: value for key, value in values.items() if key in document or key == "host_time_us"}
    rest = {key: value for key, value in values.items() if key not in own}
    changed = {**document, **own, "set": {**document.get("set", {}), **rest}}
    try:
        return subject_of(kind, changed).break_down(metric).total
    except (Infeasible, InputError) as error:
        return str(error)


def _row(
    number: int, resource: Resource, results: dict[Job, Fraction | str], base: Fraction
) -> SensitivityRow:
    if not resource.values:
        return SensitivityRow(resource, None, None, None, None, NOT_STATED)
    if not any(resource.values.values()):  # nothing to scale: it costs nothing as it is
        return SensitivityRow(resource, 0.0, base, base, base)
    up, down, double, half, free = (results[number, by] for by in FACTORS)
    reasons = [x for x in (up, down, double, half, free) if isinstance(x, str)]
    return SensitivityRow(
        resource,
        _elasticity(up, down),
        None if isinstance(double, str) else double,
        None if isinstance(half, str) else half,
        None if isinstance(free, str) else free,
        reasons[0] if reasons else "",
    )


def _elasticity(up: Fraction | str, down: Fraction | str) -> float | None:
    if isinstance(up, str) or isinstance(down, str):
        return None
    if up == down:
        return 0.0
    return math.log(up / down) / (2 * math.log(STEP)) if up and down else None
