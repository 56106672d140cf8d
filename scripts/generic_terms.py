"""Make hw_models/generic.toml: `.venv/bin/python scripts/generic_terms.py`.

The terms follow by the rule of `sim.fidelity.calibrate.generic` from those of the measured devices.
To tell how wrong they are on a device without measurements, one measured device is left out: the
generic terms of the others are scored on the published kernel times of the A100 and of the H100.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import tomli_w

from hw_models.efficiency import Efficiency, KernelTerms
from sim.fidelity.calibrate.calibrate import errors, spreads, summary
from sim.fidelity.calibrate.device_file import flat, plain
from sim.fidelity.calibrate.frames import pieces
from sim.fidelity.calibrate.generic import FAMILIES, MEASURED, generally, generic, generic_on
from sim.fidelity.validate.session import read
from sim.inputs.catalogue import load_device, own_terms

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
FILES = (
    "gemm.parquet",
    "attention_prefill.parquet",
    "attention_decode.parquet",
    "encoder_attention.parquet",
    "moe.parquet",
)
SCORED = ("a100-sxm-80gb", "h100-sxm")
SHARE = 8  # every 8th shape is scored
HEADING = """\
# Terms of a GPU without measurements, written by scripts/generic_terms.py by the rule of
# sim/fidelity/calibrate/generic.py. Residuals: terms of the other devices, scored on one left out.
"""


def points_without(name: str) -> dict[tuple[str, str], pl.DataFrame]:
    """Scored rows of a device by family and format, priced by the terms of the others."""
    known = {n: terms_of(n) for n in MEASURED if n != name}
    device = load_device(name)
    terms = generic_on(device, known, "left one out")
    device = msgspec.structs.replace(device, efficiency=terms)
    sources = list(read([DATA / "kernels" / f for f in FILES], name, None, []))
    found, _ = pieces(sources, name)
    return {
        key: errors(device, parts, lambda shape: hash_of(shape) % SHARE == 0)
        for key, parts in found.items()
        if key[0] in FAMILIES
    }


def terms_of(name: str) -> Efficiency:
    """Of a measured device, as the generic set states them."""
    return generally(load_device(name), own_terms(name))


def hash_of(shape: str) -> int:
    """The same number in every process."""
    return sum(ord(c) * 31**i for i, c in enumerate(shape)) % 2**31


def main() -> None:
    scored = [points_without(name) for name in SCORED]
    for name, parts in zip(SCORED, scored, strict=True):
        for (family, key), points in parts.items():
            print(f"{family} {key} on {name}, of the others: {summary(points)} % (median, p90)")
    source = f"geometric means over {', '.join(MEASURED)}: sim/fidelity/calibrate/generic.py"
    made = generic({name: terms_of(name) for name in MEASURED}, source)
    changes: dict[str, Any] = {}
    for family in FAMILIES:
        terms: dict[str, KernelTerms] = dict(getattr(made, family))
        for key in terms:
            points = [p[family, key] for p in scored if (family, key) in p]
            if points:
                residuals = spreads(pl.concat(points))
                terms[key] = msgspec.structs.replace(terms[key], residuals=residuals)
        changes[family] = terms
    whole: Efficiency = msgspec.structs.replace(made, **changes)
    text = flat(tomli_w.dumps(plain(whole)))
    (ROOT / "hw_models" / "generic.toml").write_text(f"{HEADING}\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
