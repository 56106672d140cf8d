"""Discrete events on simpy: tasks that run on lanes, and resources that tasks share.

A program of tasks (lanes, durations, dependencies) comes in; no module here knows a transformer.
A timeline of spans in integer picoseconds goes out, together with the reason for each wait.
"""
