"""What changes with one thing: explained differences, sensitivities, named what-ifs and trends.

Two scenarios, or a scenario and a change of its workload or hardware, come in.
Differences of a metric go out, taken apart into parts that sum to it exactly.
"""

from sim.studies.whatif.compare import Comparison, compare
from sim.studies.whatif.parts import Breakdown, Cause

__all__ = ["Breakdown", "Cause", "Comparison", "compare"]
