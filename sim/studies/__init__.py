"""Questions that need more than one run: sweeps, what-ifs, comparisons and the paper's tables.

Scenarios, grids and named questions come in, as flags or as TOML.
Tables, pictures and explained differences go out, each computed from the accounts of plain runs.
"""
