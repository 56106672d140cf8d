"""Measuring kernels of the machine at hand, in the formats that validation and calibration read.

A grid of cases (a kernel and its shape) comes in; a case becomes a call on buffers, which is timed.
Rows of a table go out. Only kernels, timers and models need PyTorch; grids and tables do not.
"""
