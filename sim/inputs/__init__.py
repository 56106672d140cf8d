"""Documents that users give: scenarios, catalogues, request traces and overlays of flags.

TOML, JSON and CSV files, names of the catalogue and flags come in.
Checked records go out; a mistake is one sentence with the file, the key and the rule.
"""
