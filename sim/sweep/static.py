"""Rows of static points: one scenario of `memorywall run` each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from sim.catalogue import Machine, Value, load_machine, load_model, split_changes
from sim.inputs import checked, convert
from sim.metrics import Metrics
from sim.scenario import Lengths, Resolved, Scenario, assemble, lengths_of, precision_of
from sim.simulate import simulate
from sim.states import NOTHING, STATES, Ticks
from sim.sweep.axes import keys_of
from sim.sweep.kinds import STATUS, Column, Kind, Row, Sense
from workloads.model import Model
from workloads.precision import Precision

PHASES = ("prefill", "decode")
_LOW: Sense = "min"
_HIGH: Sense = "max"
COLUMNS: dict[str, Column] = {
    **STATUS,
    "devices": Column(int, _LOW),
    "makespan_ps": Column(int, _LOW),
    "ttft_s": Column(float, _LOW),
    "tpot_s": Column(float, _LOW),
    "tokens_per_s": Column(float, _HIGH),
    "tokens_per_s_per_device": Column(float, _HIGH),
    "tokens_per_s_per_user": Column(float, _HIGH),
    "flops": Column(int),
    "hbm_bytes": Column(int),
    "link_bytes": Column(int),
    "mfu": Column(float, _HIGH),
    "mbu": Column(float, _HIGH),
    "memory_bytes": Column(int, _LOW),
    **{f"{state}_ps": Column(int) for state in STATES},
    **{f"{phase}_{state}_ps": Column(int) for phase in PHASES for state in STATES},
}


@lru_cache(maxsize=1024)
def _model(ref: str, changes: tuple[tuple[str, Value], ...]) -> Model:
    return load_model(ref, dict(changes))


@lru_cache(maxsize=4096)
def _machine(
    ref: str, device: tuple[tuple[str, Value], ...], system: tuple[tuple[str, Value], ...]
) -> Machine:
    return load_machine(ref, dict(device), dict(system))


class Point(msgspec.Struct, frozen=True):
    """A static point looked up: all that decides its row. Points that share a model or a machine
    share the object."""

    scenario: Scenario
    model: Model
    machine: Machine
    precision: Precision
    lengths: Lengths

    def resolved(self) -> Resolved:
        """For `simulate`, with every pass laid out."""
        return assemble(self.model, self.machine, self.scenario)


def looked_up(ref: str, on: str, changes: dict[str, Value]) -> tuple[Model, Machine]:
    """A model and a machine by name, with changes; files are read once for all points."""
    parts = {kind: tuple(c.items()) for kind, c in split_changes(changes).items()}
    return _model(ref, parts["model"]), _machine(on, parts["device"], parts["system"])


def prepare(document: dict[str, Any]) -> Point:
    """A point's scenario, checked and looked up. Raises InputError."""
    scenario = convert(document, Scenario, "sweep")
    model, machine = looked_up(scenario.model, scenario.on, scenario.set)
    precision = precision_of(model, scenario)
    lengths = checked(f"workload of {model.name}", lambda: lengths_of(model, scenario.workload))
    return Point(scenario, model, machine, precision, lengths)


def decides(point: Point) -> dict[str, Any]:
    """Everything that a row depends on."""
    s = point.scenario
    return {
        "model": point.model,
        "machine": point.machine,
        "precision": point.precision,
        "lengths": point.lengths,
        "split": s.parallelism,
        "lowering": s.lowering,
        "how": (s.detail, s.shortcuts, s.allow_oom),
    }


def row(point: Point, option: str = "") -> Row:
    """Simulate one point. Raises Infeasible, OutOfMemory, InputError."""
    result = simulate(point.resolved())
    by_phase = {str(k[0]): v for k, v in result.account.by("phase").items()}
    phases = (by_phase.get(name, NOTHING) for name in PHASES)
    return static_row(
        point.scenario.parallelism.devices,
        result.makespan,
        result.metrics,
        max(one.total for one in result.memory),
        result.account.total,
        *phases,
    )


def static_row(
    devices: int,
    makespan: int,
    metrics: Metrics,
    memory: int,
    account: Ticks,
    prefill: Ticks,
    decode: Ticks,
) -> Row:
    """The cells of a row, in the order of COLUMNS."""
    cells = (
        devices,
        makespan,
        metrics.ttft_s,
        metrics.tpot_s,
        metrics.tokens_per_s,
        metrics.tokens_per_s_per_device,
        metrics.tokens_per_s_per_user,
        metrics.flops,
        metrics.hbm_bytes,
        metrics.link_bytes,
        metrics.mfu,
        metrics.mbu,
        memory,
        *account,
        *prefill,
        *decode,
    )
    return {"status": "ok", "reason": "", **dict(zip(list(COLUMNS)[2:], cells, strict=True))}


def many(points: list[Point]) -> Iterator[tuple[int, Row]]:
    """(index, row) of the points that have a closed form."""
    from sim.sweep.closed import closed_rows

    return closed_rows(points)


STATIC = Kind(
    name="run",
    record=Scenario,
    keys=keys_of(Scenario, {}),
    columns=COLUMNS,
    prepare=prepare,
    decides=decides,
    row=row,
    many=many,
    front=("tokens_per_s_per_user", "tokens_per_s_per_device"),
    shown=(
        "ttft_s",
        "tpot_s",
        "tokens_per_s_per_user",
        "tokens_per_s_per_device",
    ),
)
