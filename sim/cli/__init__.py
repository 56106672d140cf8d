"""The command line: one module per command or group of related commands.

The arguments of a command come in, and lie over the TOML of a scenario if one is given.
The same frozen scenario that a Python caller builds goes out to `sim.simulation`.
"""
