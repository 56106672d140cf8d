"""Static points looked up: what decides the row of one scenario of `memorywall run`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from sim.inputs.catalogue import Machine, Value, load_machine, load_model, split_changes
from sim.inputs.documents import checked, convert
from sim.scenario import Lengths, Resolved, Scenario, assemble, lengths_of, precision_of
from workloads.model import Model
from workloads.precision import Precision


@lru_cache(maxsize=1024)
def _model(ref: str, changes: tuple[tuple[str, Value], ...]) -> Model:
    return load_model(ref, dict(changes))


@lru_cache(maxsize=4096)
def _machine(
    ref: str, device: tuple[tuple[str, Value], ...], system: tuple[tuple[str, Value], ...]
) -> Machine:
    return load_machine(ref, dict(device), dict(system))


class StaticPoint(msgspec.Struct, frozen=True):
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


def prepare(document: dict[str, Any]) -> StaticPoint:
    """A point's scenario, checked and looked up. Raises InputError."""
    scenario = convert(document, Scenario, "sweep")
    model, machine = looked_up(scenario.model, scenario.on, scenario.set)
    precision = precision_of(model, scenario)
    lengths = checked(f"workload of {model.name}", lambda: lengths_of(model, scenario.workload))
    return StaticPoint(scenario, model, machine, precision, lengths)


def decides(point: StaticPoint) -> dict[str, Any]:
    """Everything that a row depends on."""
    s = point.scenario
    return {
        "model": point.model,
        "machine": point.machine,
        "precision": point.precision,
        "lengths": point.lengths,
        "split": s.parallelism,
        "lowering": s.lowering,
        "how": (s.detail, s.shortcuts, s.allow_oom, s.streams),
    }
