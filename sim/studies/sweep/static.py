"""Rows of static points: one scenario of `memorywall run` each."""

from __future__ import annotations

from sim.scenario import Scenario
from sim.simulation import simulate
from sim.states import NOTHING
from sim.studies.sweep.axes import keys_of
from sim.studies.sweep.closed import closed_rows
from sim.studies.sweep.kinds import Kind, Row
from sim.studies.sweep.points import StaticPoint, decides, prepare
from sim.studies.sweep.rows import COLUMNS, PHASES, static_row


def row(point: StaticPoint, option: str = "") -> Row:
    """Simulate one point. Raises Infeasible, OutOfMemory, InputError."""
    result = simulate(point.resolved())
    by_phase = {str(k[0]): v for k, v in result.account.by("phase").items()}
    phases = (by_phase.get(name, NOTHING) for name in PHASES)
    return static_row(
        point.scenario.parallelism.devices,
        result.makespan,
        result.metrics,
        result.intervals,
        max(one.total for one in result.memory),
        (result.account.total, *phases),
    )


STATIC = Kind(
    name="run",
    record=Scenario,
    keys=keys_of(Scenario),
    columns=COLUMNS,
    prepare=prepare,
    decides=decides,
    row=row,
    many=closed_rows,
    front=("tokens_per_s_per_user", "tokens_per_s_per_device"),
    shown=(
        "ttft_s",
        "tpot_s",
        "tokens_per_s_per_user",
        "tokens_per_s_per_device",
    ),
)
