"""A file of the catalogue: a config under a name, with what its makers published.

The files are workloads/catalogue/NAME.toml.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from workloads.huggingface import model_from_config
from workloads.model import Model, Record


class Published(Record, frozen=True, kw_only=True):
    """What a source says about a model; the tests hold the model to it.

    `kv_bytes_per_token` is at 16 bits. `tolerance` is relative, for `parameters` that
    were published rounded.
    """

    parameters: Annotated[int, msgspec.Meta(gt=0)]
    kv_bytes_per_token: int | None = None
    tolerance: Annotated[float, msgspec.Meta(ge=0, lt=0.1)] = 0.0
    source: str


class CatalogueModel(Record, frozen=True, kw_only=True):
    """One file; `config` holds keys of config.json and `architecture` its `model_type`."""

    name: str
    architecture: str
    source: str
    config: dict[str, Any]
    published: Published | None = None


def model_from_entry(entry: CatalogueModel) -> Model:
    """The model of a catalogue file, whose config is read strictly.

    Raises ValueError as `model_from_config` does, and for an unknown key.
    """
    config = {"model_type": entry.architecture, **entry.config}
    if config["model_type"] != entry.architecture:
        raise ValueError(
            f"model_type = {config['model_type']!r} in the config contradicts architecture = "
            f"{entry.architecture!r}; leave it out"
        )
    return model_from_config(config, name=entry.name, source=entry.source, strict=True)
