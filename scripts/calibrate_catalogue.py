"""Fit the terms that ship: `.venv/bin/python scripts/calibrate_catalogue.py [DATE] [DEVICE]`.

Every device of the catalogue that ../shared/data measures gets its terms from `calibrate`, as
`memorywall calibrate` would write them. What stands in its file above the marker is left alone.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import tomli_w

from hw_models.efficiency import Efficiency
from sim.fidelity.calibrate.calibrate import Calibration, calibrate
from sim.fidelity.calibrate.device_file import flat, plain
from sim.fidelity.calibrate.session import print_calibration
from sim.fidelity.validate.points import MeasuredFile
from sim.fidelity.validate.session import read
from sim.inputs.catalogue import catalogue, load_device
from sim.output.terminal import terminal

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
MARKER = "# Terms of kernel families, written by scripts/calibrate_catalogue.py; do not edit below."
HOLDOUT = 0.25
KERNELS = [
    f"kernels/{name}"
    for name in (
        "gemm.parquet",
        "attention_prefill.parquet",
        "attention_decode.parquet",
        "encoder_attention.parquet",
        "moe.parquet",
        "collectives.csv",
    )
]
# All-reduces within a node are those of an older NCCL; kernels/collectives.csv has newer ones.
NETWORK = "vidur/network.parquet"
MEASURED = {
    "a100-sxm-80gb": [*KERNELS, "vidur/mlp.parquet", NETWORK],
    "a100-pcie-40gb": ["neusight/kernels_fp32.parquet"],
    "h100-sxm": [*KERNELS, "vidur/mlp.parquet", NETWORK, "neusight/kernels_fp32.parquet"],
    "rtx-4090": ["vllm_runs/RTX4090_Llama-3.1-8B"],
}


def main() -> None:
    day = sys.argv[1] if len(sys.argv) > 1 else date.today().isoformat()
    for name in sys.argv[2:] or MEASURED:
        path = catalogue("device")[name]
        above = path.read_text(encoding="utf-8").partition(MARKER)[0].rstrip()
        path.write_text(above + "\n", encoding="utf-8")  # what was fitted must not steer the fit
        sources = list(read([DATA / p for p in MEASURED[name]], name, None, []))
        sources = [newest(one) for one in sources]
        made = calibrate(sources, load_device(name), holdout=HOLDOUT, date=day)
        print_calibration(made, terminal())
        text = flat(tomli_w.dumps({"efficiency": plain(fitted(made))}))
        path.write_text(f"{above}\n\n{MARKER}\n\n{text}", encoding="utf-8")
        load_device(name)


def fitted(made: Calibration) -> Efficiency:
    """The terms that were fitted, without those that the device takes from others."""
    families: dict[str, Any] = {}
    for outcome in made.outcomes:
        if outcome.fit is not None:
            family, key = outcome.fit.family, outcome.fit.key
            terms = getattr(made.device.efficiency, family)[key]
            families.setdefault(family, {})[key] = terms
    neutral: Efficiency = msgspec.structs.replace(Efficiency(), **families)
    return neutral


def newest(source: MeasuredFile) -> MeasuredFile:
    """Without the rows that another file has of a newer library."""
    if source.format != "vidur/network":
        return source
    far = pl.col("devices_per_node") < pl.col("num_workers")
    kept = source.frame.filter(far | (pl.col("op") == "send_recv"))
    return msgspec.structs.replace(source, frame=kept)


if __name__ == "__main__":
    main()
