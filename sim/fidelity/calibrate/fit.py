"""What a fit gives, and which function fits which family of kernels.

A fit function takes the rows of one family, one device and one key (a number format; of
collectives a library) in the columns of the measurement files, times in `latency_us`:

    gemm         m, n, k, batch
    prefill      batch, q_len, kv_len, num_heads, num_kv_heads, head_dim, window, kv_dtype
    decode       the same with q_len = 1
    mixed        prefill_chunk, kv_prefill, n_decode, kv_decode, num_heads, num_kv_heads, head_dim
    encoder      batch, seq_len, num_heads, head_dim
    elementwise  op, rows, width, read, written (elements per row)
    experts      num_tokens, hidden, inter, topk, num_experts, moe_tp, moe_ep, routing
    collectives  op, num_gpus, bytes, mode
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

import msgspec
import polars as pl

from hw_models.device import Device
from hw_models.efficiency import KernelTerms


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of one family at one key, as its rows determine them.

    family: the field of `Efficiency` that they belong to, e.g. "gemm".
    key: number format, or library.
    undetermined: why the rows cannot tell a term, which kept its default, by term.
    rows: how many the fit used.
    """

    family: str
    key: str
    terms: KernelTerms
    undetermined: dict[str, str] = msgspec.field(default_factory=dict)
    rows: int


FitFunction = Callable[[pl.DataFrame, Device, str], Fit]
F = TypeVar("F", bound=FitFunction)
FITS: dict[str, FitFunction] = {}
# Modules of this package that hold fit functions, by family; imported when asked for.
MODULES: dict[str, str] = {
    "gemm": "gemm",
    "prefill": "attention",
    "decode": "attention",
    "mixed": "attention",
    "encoder": "attention",
    "elementwise": "elementwise",
    "experts": "experts",
    "collectives": "collectives",
}


def fitter(family: str) -> Callable[[F], F]:
    """Decorator: this function fits `family`."""

    def register(function: F) -> F:
        FITS[family] = function
        return function

    return register


def fit_function(family: str) -> FitFunction | None:
    """The fit function of a family, or None if it has no terms to fit."""
    if family not in FITS and family in MODULES:
        import_module(f"sim.fidelity.calibrate.{MODULES[family]}")
    return FITS.get(family)
