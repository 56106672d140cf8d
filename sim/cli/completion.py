"""Names that the shell completes: models, devices, systems, samples of traces."""

from __future__ import annotations

from collections.abc import Iterator


def models(incomplete: str) -> Iterator[str]:
    """Models of the catalogue that begin so."""
    return _named("model", incomplete)


def machines(incomplete: str) -> Iterator[str]:
    """Devices and systems that begin so."""
    for kind in ("device", "system"):
        yield from _named(kind, incomplete)


def traces(incomplete: str) -> Iterator[str]:
    """Samples of traces that begin so."""
    from sim.inputs.traces.samples import samples

    return (name for name in samples() if name.startswith(incomplete))


def what_ifs(incomplete: str) -> Iterator[str]:
    """Named questions that begin so."""
    from sim.studies.whatif.named import studies

    return (name for name in studies() if name.startswith(incomplete))


def _named(kind: str, incomplete: str) -> Iterator[str]:
    from sim.inputs.catalogue import catalogue

    return (name for name in catalogue(kind) if name.startswith(incomplete))
