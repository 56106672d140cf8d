"""Calibration: from measured kernels to the efficiency terms of a device.

    frame of one family (columns of the measurement files)  ->  fit function  ->  Fit

A family's fit function lives in a module of its own here and is named in `FITS`. It gives terms;
residuals, hold-out scores and the device file follow from them alone, the same for all.
"""

from sim.calibrate.fit import FITS, Fit, FitFunction, fitter
from sim.calibrate.search import Search, search

__all__ = ["FITS", "Fit", "FitFunction", "Search", "fitter", "search"]
