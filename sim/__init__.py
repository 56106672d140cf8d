"""Where a workload meets hardware: mapping, program, engine, timeline, account of time.

from sim import Scenario, Workload, run

result = run(Scenario(model="gpt2", on="h100-sxm", workload=Workload(prompt=128, output=32)))
result.metrics.tpot_s, result.account.share("hbm")
"""

from sim.catalogue import Machine, load_device, load_machine, load_model
from sim.errors import Deadlock, Infeasible, InputError, MemorywallError, OutOfMemory
from sim.mapping import Parallelism
from sim.scenario import Scenario, Workload, assemble
from sim.simulate import Result, run, simulate

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
