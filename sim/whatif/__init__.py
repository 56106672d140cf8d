"""What changes with one thing: differences explained, sensitivities, named what-ifs, trends.

Everything is made from runs of the simulator and their accounts of time. A metric is taken apart
into parts that sum to it exactly, so that differences do, too.
"""

from sim.whatif.compare import Comparison, compare
from sim.whatif.parts import Breakdown, Cause

__all__ = ["Breakdown", "Cause", "Comparison", "compare"]
