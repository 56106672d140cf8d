"""What a kernel costs: one module per family, with each formula written once.

The counts of an operator (FLOPs, bytes), the `Rates` of a device and its terms come in. Times in
seconds, and from these a tile pipeline in ticks (`priced`), go out. Every formula takes `xp`, the
arithmetic that it is done in: `SCALAR` for one operator, `VECTOR` for numpy arrays of operators;
both give the same picosecond.
"""

from sim.cost.arith import SCALAR, VECTOR, Arith
from sim.cost.kernels.price import Priced, Times, priced
from sim.cost.kernels.rates import RESOURCES, Rates

__all__ = ["RESOURCES", "SCALAR", "VECTOR", "Arith", "Priced", "Rates", "Times", "priced"]
