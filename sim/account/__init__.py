"""What was recorded, analysed: timelines, states of time, metrics and the critical path.

The spans of a finished run and the costs of its operators come in.
Frozen values go out: for each device and instant one state, and sums that equal the makespan.
"""
