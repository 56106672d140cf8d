"""How a model is split over devices, and what runs in which order.

A model, a workload, a machine and a parallelism come in.
A plan of passes, the memory that it needs, and a program of tasks for the engine go out.
"""
