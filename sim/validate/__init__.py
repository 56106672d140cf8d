"""Validation: measured times read, predicted by the model used everywhere else, and compared.

    file  ->  Source (told by its columns)  ->  Points (measured, predicted)  ->  scores, plot

A format is one function that walks the rows of a table and prices each; it lives in the module of
its subject and is named in `sim.validate.formats`. A row that cannot be priced says why.
"""
