"""Where a workload meets hardware: mapping, program, engine, timeline, account of time.

from sim import Scenario, Workload, run

result = run(Scenario(model="gpt2", on="h100-sxm", workload=Workload(prompt=128, output=32)))
result.metrics.tpot_s, result.account.share("hbm")

The names are loaded at their first use, so that the command can be interrupted from the start.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.errors import Deadlock, Infeasible, InputError, MemorywallError, OutOfMemory
    from sim.inputs.catalogue import Machine, load_device, load_machine, load_model
    from sim.mapping.parallelism import Parallelism
    from sim.scenario import Scenario, Workload, assemble
    from sim.simulation import Result, run, simulate

__all__ = [
    "Deadlock",
    "Infeasible",
    "InputError",
    "Machine",
    "MemorywallError",
    "OutOfMemory",
    "Parallelism",
    "Result",
    "Scenario",
    "Workload",
    "assemble",
    "load_device",
    "load_machine",
    "load_model",
    "run",
    "simulate",
]
_MODULES = ("errors", "inputs.catalogue", "mapping.parallelism", "scenario", "simulation")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in map(import_module, (f"sim.{part}" for part in _MODULES)):
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
