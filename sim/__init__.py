"""Where a workload meets hardware: cost, mapping, engine, account of time, serving and studies.

from sim import run

result = run("gpt2", on="h100-sxm", prompt=128, output=32)
result.metrics.tpot_s, result.account.share("hbm"), result.plot.timeline()

`sim.api` has all functions for programs and notebooks, `serve` among them, whose name is that of a
package here. The names are loaded at their first use, so that the command can be interrupted from
the start.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.api.runs import RunResult, run, simulate
    from sim.api.studies import compare, recommend, sensitivity, sweep
    from sim.errors import Deadlock, Infeasible, InputError, MemorywallError, OutOfMemory
    from sim.inputs.catalogue import Machine, load_device, load_machine, load_model
    from sim.mapping.parallelism import Parallelism
    from sim.scenario import Scenario, Workload, assemble
    from sim.serve.config import RequestTraffic, Serving
    from sim.simulation import Result

__all__ = [
    "Deadlock",
    "Infeasible",
    "InputError",
    "Machine",
    "MemorywallError",
    "OutOfMemory",
    "Parallelism",
    "RequestTraffic",
    "Result",
    "RunResult",
    "Scenario",
    "Serving",
    "Workload",
    "assemble",
    "compare",
    "load_device",
    "load_machine",
    "load_model",
    "recommend",
    "run",
    "sensitivity",
    "simulate",
    "sweep",
]
_MODULES = {
    "errors": ("Deadlock", "Infeasible", "InputError", "MemorywallError", "OutOfMemory"),
    "inputs.catalogue": ("Machine", "load_device", "load_machine", "load_model"),
    "mapping.parallelism": ("Parallelism",),
    "scenario": ("Scenario", "Workload", "assemble"),
    "simulation": ("Result",),
    "serve.config": ("RequestTraffic", "Serving"),
    "api.runs": ("RunResult", "run", "simulate"),
    "api.studies": ("compare", "recommend", "sensitivity", "sweep"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return vars(import_module(f"sim.{module}"))[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
