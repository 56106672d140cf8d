"""Run it: from a scenario, or from its parts, to a result."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from sim import engine
from sim.cost import RESOURCES
from sim.memory import Footprint, check_memory, footprints
from sim.metrics import Metrics, measure
from sim.plan import make_plan
from sim.program import compile_plan
from sim.scenario import Resolved, Scenario, resolve
from sim.stalls import Account, account
from sim.timeline import Record

Progress = Callable[[str, int, int], None]  # (what is done, how many, of how many)


class Result:
    """A finished run with everything that follows from it."""

    def __init__(self, resolved: Resolved, record: Record, memory: list[Footprint]) -> None:
        self.resolved, self.record, self.memory = resolved, record, memory

    @property
    def makespan(self) -> int:
        """Ticks."""
        return self.record.makespan

    @cached_property
    def account(self) -> Account:
        return account(self.record)

    @cached_property
    def metrics(self) -> Metrics:
        return measure(self.record)

    @cached_property
    def counterfactual(self) -> dict[str, int]:
        """Makespan in ticks if one resource were free, by resource: the run made again."""
        return {
            name: simulate(self.resolved, free=frozenset({name})).makespan for name in RESOURCES
        }


def run(scenario: Scenario, progress: Progress | None = None) -> Result:
    """Resolve a scenario and simulate it. Raises InputError, Infeasible or OutOfMemory."""
    return simulate(resolve(scenario), progress=progress)


def simulate(
    resolved: Resolved,
    free: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> Result:
    """Simulate a resolved scenario. Resources named in `free` cost nothing."""
    scenario = resolved.scenario
    split, device = scenario.parallelism, resolved.machine.device
    plan = make_plan(
        resolved.model,
        device,
        resolved.machine.system,
        split,
        resolved.passes,
        resolved.precision,
        scenario.lowering,
        free,
        _of("passes planned", len(resolved.passes), progress),
    )
    memory = footprints(
        resolved.model,
        device,
        split,
        resolved.passes[0].batch,
        resolved.context,
        resolved.precision,
        scenario.lowering,
    )
    if not scenario.allow_oom:
        check_memory(memory, resolved.model.name, device.name)
    compiled = compile_plan(plan, scenario.detail, shortcuts=scenario.shortcuts)
    count = len(compiled.program.tasks)
    report = _of("tasks simulated", count, progress)
    return Result(resolved, Record(compiled, engine.run(compiled.program, report)), memory)


def _of(what: str, total: int, progress: Progress | None) -> Callable[[int], None] | None:
    return (lambda done: progress(what, done, total)) if progress else None
