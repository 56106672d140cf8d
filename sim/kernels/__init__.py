"""What a kernel costs: one module a family, each formula written once for one point or for many.

    counts (FLOPs, bytes)  ->  Times (floor, load, compute, store, tiles)  ->  Priced (ticks)

A family takes the counts of an operator, the `Rates` of a device and its terms, and gives times in
seconds; `priced` makes a tile pipeline of them. Every formula takes `xp`, the arithmetic that
it is done in: `SCALAR` for one operator, `VECTOR` for numpy arrays of many, to the same picosecond.
"""

from sim.arith import SCALAR, VECTOR, Arith
from sim.kernels.price import Priced, Times, priced
from sim.kernels.rates import RESOURCES, Rates

__all__ = ["RESOURCES", "SCALAR", "VECTOR", "Arith", "Priced", "Rates", "Times", "priced"]
