"""Many scenarios at once: grids, Pareto fronts, capacities, memory-wall maps, recommendations.

A scenario and the axes of a grid come in.
A table with one row per point goes out; a point that is impossible has its reason in the row.
"""
