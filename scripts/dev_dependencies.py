"""Print the development dependencies of pyproject.toml, one per line."""

import tomllib
from pathlib import Path

pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
print("\n".join(tomllib.loads(pyproject.read_text())["dependency-groups"]["dev"]))
