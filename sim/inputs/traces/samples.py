"""Samples of public traces that come with the program, by name.

They are the first rows of each file as it was published. `workloads/samples/samples.toml` states
source, licence and the address of the whole file.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from sim.errors import InputError, hint, quoted
from sim.inputs.documents import convert, read_document
from workloads.model import Record


class Sample(Record, frozen=True, kw_only=True):
    """A sample of a trace. rows: of the sample. whole: where the full trace is published."""

    file: str
    rows: int
    about: str
    source: str
    licence: str
    whole: str


def _folder() -> Path:
    return Path(str(resources.files("workloads"))) / "samples"


def samples() -> dict[str, Sample]:
    """Name -> sample."""
    path = _folder() / "samples.toml"
    return {
        name: convert(table, Sample, f"{path}: [{name}]")
        for name, table in read_document(path).items()
    }


def trace_path(ref: str | Path) -> Path:
    """The file of a trace: of a sample's name, or the path itself.

    Raises InputError for a word that is neither, with the names that are near.
    """
    path, known = Path(ref), samples()
    if str(ref) in known:
        return _folder() / known[str(ref)].file
    if not path.suffix and "/" not in str(ref) and not path.exists():
        raise InputError(f"no trace is called {quoted(str(ref))}{hint(str(ref), known)}")
    return path
