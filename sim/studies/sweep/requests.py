"""Serving points looked up: what decides the row of one scenario of `memorywall serve`."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from sim.errors import InputError
from sim.inputs.documents import convert
from sim.inputs.traces.samples import trace_path
from sim.serve.config import RequestTraffic, Serving
from sim.serve.host import load_engine
from sim.serve.rate import plain
from sim.studies.sweep.points import looked_up


class Ready(msgspec.Struct, frozen=True):
    """A serving run whose names have been looked up, and what is in its files."""

    serving: Serving
    decides: Any


def prepare(document: dict[str, Any]) -> Ready:
    """A point's serving run, checked and looked up. Raises InputError."""
    serving = plain(convert(document, Serving, "sweep"))
    model, machine = looked_up(serving.model, serving.on, serving.set)
    traffic = serving.traffic
    files = [traffic.file, *(trace_path(p.partition(":")[2]) for p in _drawn(traffic))]
    sources = [_source(name) for name in (serving.scheduler, serving.router)]
    rest = msgspec.structs.replace(serving, model="", on="", set={})
    decides = {
        "serving": rest,
        "model": model,
        "machine": machine,
        "engine": load_engine(serving.engine) if serving.engine else None,
        "files": [_digest(name) for name in (*files, *sources) if name],
    }
    return Ready(serving, decides)


def _drawn(traffic: RequestTraffic) -> list[str]:
    return [text for text in (traffic.prompt, traffic.output) if text.startswith("trace:")]


def _source(name: str) -> str | None:
    """The file of a policy that is named by its import path."""
    module, colon, _ = name.partition(":")
    with suppress(ImportError, ValueError):
        spec = find_spec(module) if colon else None
        return spec.origin if spec else None
    return None


@lru_cache(maxsize=64)
def _digest(name: str | Path) -> str:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
