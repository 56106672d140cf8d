"""Validation: measured times are read, predicted by the model and compared.

A file of measurements comes in; its columns tell which format it has (`formats`).
Points (measured, predicted), scores and a plot go out; a row that cannot be priced says why.
"""
