"""The model against the machine: measuring kernels, fitting terms and scoring predictions.

Tables of measured times come in, from this machine or as others published them.
Device files with fitted terms, and tables of errors on data that was not fitted, go out.
"""
