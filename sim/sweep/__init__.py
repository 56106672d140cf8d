"""Many scenarios at once: grids, fronts, capacities, memory-wall maps, recommendations."""
