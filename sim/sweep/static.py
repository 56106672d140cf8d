"""Rows of static points: one scenario of `memorywall run` each."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sim.catalogue import Machine, Value, load_machine, load_model, split_changes
from sim.inputs import convert
from sim.memory import Footprint
from sim.metrics import Metrics
from sim.scenario import Resolved, Scenario, assemble
from sim.simulate import simulate
from sim.states import NOTHING, STATES, Ticks
from sim.sweep.axes import keys_of
from sim.sweep.kinds import STATUS, Column, Kind, Row, Sense
from workloads.model import Model

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


def resolved_of(scenario: Scenario) -> Resolved:
    """As `sim.scenario.resolve`; a file is read once for all points that share it.

    The same model and machine come back as the same objects.
    """
    parts = {kind: tuple(c.items()) for kind, c in split_changes(scenario.set).items()}
    model = _model(scenario.model, parts["model"])
    machine = _machine(scenario.on, parts["device"], parts["system"])
    return assemble(model, machine, scenario)


def prepare(document: dict[str, Any]) -> Resolved:
    """A point's scenario, checked and looked up. Raises InputError."""
    return resolved_of(convert(document, Scenario, "sweep"))


def decides(resolved: Resolved) -> dict[str, Any]:
    """Everything that a row depends on."""
    s = resolved.scenario
    return {
        "model": resolved.model,
        "machine": machine_of(resolved.machine),
        "precision": resolved.precision,
        "passes": (s.workload, resolved.context, len(resolved.passes)),
        "split": s.parallelism,
        "lowering": s.lowering,
        "how": (s.detail, s.shortcuts, s.allow_oom),
    }


def machine_of(machine: Machine) -> tuple[Any, ...]:
    """A machine as plain data."""
    system = machine.system
    return (machine.name, len(system.devices), system.switches, system.links, machine.device)


def row(resolved: Resolved, option: str = "") -> Row:
    """Simulate one point. Raises Infeasible, OutOfMemory, InputError."""
    result = simulate(resolved)
    by_phase = {str(k[0]): v for k, v in result.account.by("phase").items()}
    phases = (by_phase.get(name, NOTHING) for name in PHASES)
    split = resolved.scenario.parallelism
    return static_row(
        split.devices, result.makespan, result.metrics, result.memory, result.account.total, *phases
    )


def static_row(
    devices: int,
    makespan: int,
    metrics: Metrics,
    memory: list[Footprint],
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
        max(one.total for one in memory),
        *account,
        *prefill,
        *decode,
    )
    return {"status": "ok", "reason": "", **dict(zip(list(COLUMNS)[2:], cells, strict=True))}


STATIC = Kind(
    name="run",
    record=Scenario,
    keys=keys_of(Scenario, {}),
    columns=COLUMNS,
    prepare=prepare,
    decides=decides,
    row=row,
    front=("tokens_per_s_per_user", "tokens_per_s_per_device"),
    shown=(
        "ttft_s",
        "tpot_s",
        "tokens_per_s_per_user",
        "tokens_per_s_per_device",
    ),
)
