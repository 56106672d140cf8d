"""Flags of a command laid over the document of a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from sim.errors import InputError, hint
from sim.inputs.catalogue import catalogue
from sim.inputs.documents import convert, read_document


def overlay(model: str, flags: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The document of a scenario file, or of a model's name, with the given flags over it.

    Flags that are None are left out. Raises InputError if the file does not exist or nothing says
    what the model runs on.
    """
    path = Path(model)
    if path.suffix == ".toml" and not path.exists():
        raise InputError(
            f"{model}: no such file; give the TOML of a scenario, or a model of `models list`"
        )
    base: dict[str, Any] = {"model": model}
    if path.suffix == ".toml" and path.is_file():
        document = read_document(path)
        if "on" in document or ("model" in document and "architecture" not in document):
            on = flags.get("on") or document.get("on")
            base = msgspec.to_builtins(convert({**document, "on": on}, kind, str(path)))
            for key in ("model", "on"):  # files named in a scenario lie beside it
                beside = path.parent / str(base[key])
                if beside.exists():
                    base[key] = str(beside)
    for key, value in _given(flags).items():
        base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
    if not base.get("on") and not path.exists() and model not in catalogue("model"):
        raise InputError(
            f"{model}: no file, folder or model has this name{hint(model, catalogue('model'))}"
        )
    if not base.get("on"):
        raise InputError(f"{model}: say what it runs on, e.g. --on h100-sxm or --on hgx-h100")
    return base


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    given = {k: _given(v) if isinstance(v, dict) else v for k, v in flags.items()}
    return {k: v for k, v in given.items() if v is not None and v != {}}
