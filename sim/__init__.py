"""Where a workload meets hardware: mapping, program, engine, timeline, account of time."""
