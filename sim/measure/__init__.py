"""Measuring: kernels of the machine at hand, in the formats that validation and calibration read.

    Case (a kernel and its shape)  ->  body (a call on buffers)  ->  Timing  ->  a row of a table

Grids, tables and the machine's own description need no PyTorch; bodies, timers and models do.
"""
