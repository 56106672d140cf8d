"""The generic terms: what a GPU is taken to be that nobody has measured.

The rule, from the devices that were measured:

* A term is a time, a fraction, or a multiple of what the datasheet says. Rates, cores and cache
  sizes come from the datasheet of the device at hand, inside the formulas; so the term itself is
  carried over: the geometric mean over the measured devices, the arithmetic one where one is 0.
* What products pay on top goes with the work that cores do (`hw_models.carry`): it is brought to
  one device before the mean is taken, and to the device at hand when that is loaded.
* For 16-bit products, the start of every fit (`sim.fidelity.calibrate.gemm.START`) counts as one
  more device. The few measured GPUs are no fair sample: one whose clock rises above that of its
  datasheet seems to reach all of the peak. What most GPUs reach lies between.
* Which tiles, protocols and other kernels there are is taken from the newest of them, MODEL; so are
  terms that only some have, and the regrouping that belongs to FlashAttention-2.
* Formats that run on the same units share terms; fp32 products are taken as those of 16 bits, since
  measured ones contain the host of eager PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from hw_models.carry import carried, stated
from hw_models.device import Device
from hw_models.efficiency import Efficiency, GemmTerms, KernelTerms, terms_for
from sim.fidelity.calibrate.gemm import START

T = TypeVar("T", bound=KernelTerms)
MODEL = "h100-sxm"
MEASURED = ("a100-sxm-80gb", MODEL, "rtx-4090")
FAMILIES = ("gemm", "prefill", "encoder", "decode", "elementwise", "experts")
FORMATS = ("bf16", "fp8")
PRIOR = msgspec.structs.replace(
    GemmTerms(source="where fits start"),
    **{t: v for t, v in START.items() if t != "depth" and not t.startswith("quantise")},
)
OF_MODEL = ("regroup_us", "depth", "tile_rows", "packed", "most_MiB")


def generic_on(device: Device, measured: Mapping[str, Efficiency], source: str) -> Efficiency:
    """The generic terms of `measured`, carried to a device."""
    terms = generic(measured, source)
    return _products(terms, carried, device)


def generally(device: Device, own: Efficiency) -> Efficiency:
    """The terms of a measured device as the generic set states them."""
    return _products(own, stated, device)


def _products(terms: Efficiency, change: Callable[..., Any], device: Device) -> Efficiency:
    numbers = device.cores, device.clock_GHz, device.hbm.bandwidth_GBps
    gemm = {
        key: msgspec.structs.replace(t, **change(msgspec.structs.asdict(t), *numbers))
        for key, t in terms.gemm.items()
    }
    return msgspec.structs.replace(terms, gemm=gemm)


def generic(measured: Mapping[str, Efficiency], source: str) -> Efficiency:
    """The generic terms of devices by name (`generally`); without MODEL the last stands for it."""
    model = measured.get(MODEL) or list(measured.values())[-1]
    others = [e for e in measured.values() if e is not model]
    families: dict[str, Any] = {}
    for family in FAMILIES:
        means = {}
        for key in FORMATS:
            of_model = terms_for(getattr(model, family), key, None)
            rest = [terms_for(getattr(e, family), key, None) for e in others]
            known = [t for t in (of_model, *rest) if t is not None]
            if known and (family, key) == ("gemm", "bf16"):
                known.append(PRIOR)
            if known:
                means[key] = mean(known, source)
        families[family] = means
    products = families["gemm"]
    if "bf16" in products:
        products["fp32"] = products["bf16"]
        products.setdefault("fp8", products["bf16"])
    libraries = {name: plain(t, source) for name, t in model.collectives.items() if name == "nccl"}
    return Efficiency(
        matrix=_between([e.matrix for e in measured.values()]),
        hbm=_between([e.hbm for e in measured.values()]),
        source=source,
        collectives=libraries,
        **families,
    )


def mean(terms: Sequence[T], source: str) -> T:
    """Terms between those of several devices; what is no number is the first one's."""
    first = terms[0]
    changes: dict[str, Any] = {}
    for name in first.__struct_fields__:
        value = getattr(first, name)
        if name in OF_MODEL or isinstance(value, bool | str | tuple) or value is None:
            continue
        if name in ("passes", "walk"):
            tables = [getattr(t, name) for t in terms]
            keys = sorted({key for table in tables for key in table})
            changes[name] = {
                key: _between([table[key] for table in tables if key in table]) for key in keys
            }
        elif isinstance(value, int | float):
            values = [getattr(t, name) for t in terms]
            changes[name] = _between([v for v in values if v is not None])
    return plain(msgspec.structs.replace(first, **changes), source)


def plain(terms: T, source: str) -> T:
    """Terms with another source and without the residuals of one device."""
    return msgspec.structs.replace(terms, source=source, residuals={})


def _between(values: Sequence[float]) -> float:
    if min(values) > 0:
        mean = math.exp(sum(map(math.log, values)) / len(values))
    else:
        mean = sum(values) / len(values)
    return float(f"{mean:.4g}")
