"""What an operator, a collective or a pass costs on a device.

Counts (FLOPs, bytes, tiles) of operators and the rates of a device come in, singly or as arrays.
Integer picoseconds by state go out: launch, compute, HBM, on-chip memory and links.
"""
