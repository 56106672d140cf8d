"""Run it: from a scenario, or from its parts, to a result."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from sim.account.intervals import Class, Interval, interval
from sim.account.metrics import Metrics, measure
from sim.account.stalls import WAIT, Account, account
from sim.account.timeline import RunRecord
from sim.cost.model import RESOURCES
from sim.engine import des as engine
from sim.mapping.memory import Footprint, Widest, check_memory, footprints
from sim.mapping.plan import Plan, PlanInput, make_plan
from sim.mapping.priced import Rewrite
from sim.mapping.program import compile_plan
from sim.scenario import Resolved, Scenario, resolve

Progress = Callable[[str, int, int], None]  # (what is done, how many, of how many)


class Result:
    """A finished run with everything that follows from it."""

    def __init__(
        self,
        resolved: Resolved,
        record: RunRecord,
        memory: list[Footprint],
        rewrite: Rewrite | None = None,
    ) -> None:
        self.resolved, self.record, self.memory = resolved, record, memory
        self.rewrite = rewrite

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
    def intervals(self) -> dict[str, Interval]:
        """80 % intervals as factors on makespan, TTFT and TPOT, where residuals are known."""
        efficiency = self.resolved.machine.device.efficiency
        dtype = self.resolved.precision.activations
        passes: dict[str, dict[Class, int]] = {"makespan": {}, "ttft": {}, "tpot": {}}
        for key, states in self.account.by("number", "phase", "kind").items():
            number, phase, kind = int(str(key[0])), str(key[1]), str(key[2])
            if kind == WAIT:  # it stretches as the work does
                continue
            which = "tpot" if number > 0 else "ttft"
            for name in ("makespan", which):
                at = (phase, kind)
                passes[name][at] = passes[name].get(at, 0) + sum(states)
        by_pass = {n: interval(t, efficiency, dtype) for n, t in passes.items()}
        return {name: one for name, one in by_pass.items() if one is not None}

    @cached_property
    def counterfactual(self) -> dict[str, int]:
        """Makespan in ticks if one resource were free, by resource: the run is repeated with it."""
        return {
            name: _execute(
                self.resolved, plan_of(self.resolved, frozenset({name}), rewrite=self.rewrite)
            ).makespan
            for name in RESOURCES
        }


def run(scenario: Scenario, progress: Progress | None = None) -> Result:
    """Resolve a scenario and simulate it. Raises InputError, Infeasible or OutOfMemory."""
    return simulate(resolve(scenario), progress=progress)


def simulate(
    resolved: Resolved,
    free: frozenset[str] = frozenset(),
    progress: Progress | None = None,
    rewrite: Rewrite | None = None,
) -> Result:
    """Simulate a resolved scenario. Resources named in `free` cost nothing; `rewrite` changes
    every operator before it is priced."""
    scenario, device = resolved.scenario, resolved.machine.device
    plan = plan_of(resolved, free, progress, rewrite)
    memory = footprints(
        resolved.model,
        device,
        scenario.parallelism,
        Widest(resolved.passes[0].batch, resolved.context),
        resolved.precision,
        scenario.lowering,
    )
    if not scenario.allow_oom:
        check_memory(memory, resolved.model.name, device.name)
    return Result(resolved, _execute(resolved, plan, progress), memory, rewrite)


def plan_of(
    resolved: Resolved,
    free: frozenset[str] = frozenset(),
    progress: Progress | None = None,
    rewrite: Rewrite | None = None,
) -> Plan:
    """The plan of a resolved scenario."""
    scenario = resolved.scenario
    given = PlanInput(
        model=resolved.model,
        device=resolved.machine.device,
        system=resolved.machine.system,
        split=scenario.parallelism,
        passes=resolved.passes,
        precision=resolved.precision,
        lowering=scenario.lowering,
        streams=scenario.streams,
    )
    on_pass = _of("passes planned", len(resolved.passes), progress)
    return make_plan(given, free, on_pass, rewrite)


def _execute(resolved: Resolved, plan: Plan, progress: Progress | None = None) -> RunRecord:
    """Compile a plan and run it."""
    scenario = resolved.scenario
    compiled = compile_plan(
        plan, scenario.detail, shortcuts=scenario.shortcuts, streams=scenario.streams
    )
    report = _of("tasks simulated", len(compiled.program.tasks), progress)
    return RunRecord(compiled, engine.run(compiled.program, report))


def _of(what: str, total: int, progress: Progress | None) -> Callable[[int], None] | None:
    return (lambda done: progress(what, done, total)) if progress else None
