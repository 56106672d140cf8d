"""Calibration: from measured kernels to the efficiency terms of a device.

A frame of one kernel family (the columns of the measurement files) comes in, and its fit function
(one module per family, named in `FITS`) finds the terms. A `Fit` goes out; residuals, hold-out
scores and the device file follow from the terms alone, in the same way for all families.
"""

from sim.fidelity.calibrate.fit import FITS, Fit, FitFunction, fitter
from sim.fidelity.calibrate.search import Search, search

__all__ = ["FITS", "Fit", "FitFunction", "Search", "fitter", "search"]
