"""Rows of measurement tables, cells that do not belong there, and what `validate` makes of both."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import strategies as st

from sim.errors import MemorywallError
from sim.fidelity.calibrate.engines import calibrate_engine
from sim.fidelity.calibrate.frames import pieces
from sim.fidelity.validate.points import PredictionBench
from sim.fidelity.validate.score import table
from sim.fidelity.validate.session import read

ROWS: dict[str, dict[str, Any]] = {
    "e2e/silicon": {
        "backend": "vllm",
        "model": "gpt2",
        "system": "h100_sxm",
        "isl": 32,
        "osl": 4,
        "tp": 1,
        "pp": 1,
        "batch_size": 2,
        "ttft_ms": 3.0,
        "tpot_ms": 2.0,
        "gemm_quant_mode": "float16",
        "backend_version": "0.12.0",
        "moe_ep_size": 1,
    },
    "e2e/splitwise": {
        "model": "gpt2",
        "hardware": "a100-80gb",
        "tensor_parallel": 2,
        "prompt_size": 128,
        "batch_size": 2,
        "token_size": 64,
        "prompt_time": 5.0,
        "token_time": 3.0,
    },
    "neusight passes": {
        "device": "Tesla_T4",
        "model": "gpt2_large",
        "batch": 1,
        "seq_len": 64,
        "latency_ms": 9.0,
        "option": "fusion",
    },
    "moe": {
        "device": "h100_sxm",
        "dtype": "bfloat16",
        "num_tokens": 16,
        "topk": 2,
        "hidden": 2048,
        "num_experts": 8,
        "inter": 512,
        "moe_tp": 1,
        "moe_ep": 2,
        "routing": "power_law_1.2",
        "latency_us": 20.0,
    },
    "attention": {
        "device": "h100_sxm",
        "dtype": "bfloat16",
        "batch": 2,
        "q_len": 1,
        "kv_len": 512,
        "num_heads": 8,
        "num_kv_heads": 2,
        "head_dim": 64,
        "window": 0,
        "kv_dtype": "fp8",
        "latency_us": 20.0,
    },
    "attention_mixed": {
        "device": "h100_sxm",
        "dtype": "bf16",
        "prefill_chunk": 64,
        "kv_prefill": 0,
        "n_decode": 4,
        "kv_decode": 100,
        "num_heads": 8,
        "num_kv_heads": 2,
        "head_dim": 64,
        "latency_us": 20.0,
    },
    "elementwise": {
        "device": "h100_sxm",
        "dtype": "bf16",
        "op": "norm",
        "rows": 8,
        "width": 512,
        "read": 512,
        "written": 512,
        "latency_us": 3.0,
    },
    "encoder_attention": {
        "device": "h100_sxm",
        "dtype": "bf16",
        "batch": 2,
        "seq_len": 64,
        "num_heads": 4,
        "head_dim": 64,
        "latency_us": 9.0,
    },
    "vidur/mlp": {
        "device": "a100",
        "model": "llama",
        "op": "mlp_up_proj",
        "n_head": 32,
        "n_kv_head": 8,
        "n_embd": 4096,
        "n_expanded_embd": 14336,
        "use_gated_mlp": True,
        "num_tokens": 8,
        "tp": 2,
        "latency_us": 30.0,
    },
    "vidur/network": {
        "network": "a100_dgx",
        "op": "all_reduce",
        "num_workers": 4,
        "devices_per_node": 4,
        "bytes": 4096,
        "latency_us": 20.0,
    },
    "collectives": {
        "device": "h100_sxm",
        "mode": "NCCL",
        "op": "all_gather",
        "num_gpus": 8,
        "bytes": 4096,
        "dtype": "half",
        "latency_us": 20.0,
    },
    "neusight": {
        "device": "Tesla_T4",
        "op": "bmm",
        "b": 2,
        "m": 8,
        "n": 64,
        "k": 64,
        "dtype": "fp32",
        "latency_us": 20.0,
    },
    "gemm": {
        "device": "h100_sxm",
        "dtype": "bf16",
        "m": 8,
        "n": 64,
        "k": 64,
        "latency_us": 2.0,
    },
    "llmcompass": {
        "device": "A100x4",
        "op": "matmul_fp16",
        "m": 8,
        "n": 64,
        "k": 64,
        "latency_us": 30.0,
    },
}
WHOLE = [0, -1, 1, 3, 7, 2**16, 50_000_000, 2**31, 2**62, -(2**63)]
FULL_WIDTH = "\uff11"  # a digit of another script
OTHERS = [
    *(None, 1.5, 1e300, -0.0, float("nan"), float("inf"), True, "", "x", FULL_WIDTH, "a" * 999),
    *("/etc/passwd", "../h100-sxm.toml", "h100x9999999", f"A100x{FULL_WIDTH}", "=1+1", "[/red]"),
    *("$\\frac$", "\x1b[2J"),
]
cells = st.one_of(
    st.sampled_from(WHOLE),
    st.sampled_from(OTHERS),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=6),
)


@contextmanager
def no_warning() -> Iterator[None]:
    """A warning is a message that the user cannot read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def said(error: Exception) -> None:
    """Fail where an error is no short sentence."""
    assert 0 < len(str(error)) < 1600
    assert str(error).isprintable()


def judged(folder: Path) -> pl.DataFrame | None:
    """What `validate` and `calibrate` make of a folder; None after a sentence."""
    points = []
    try:
        with no_warning():
            for one in read([folder], None, None, []):
                points.append(table(one.form.read(one, PredictionBench())))
                pieces([one], "h100-sxm")
                if one.format in ("e2e/silicon", "e2e/splitwise"):
                    calibrate_engine(one, "vllm-0.12", holdout=0.0, date="2020-01-01")
    except MemorywallError as error:
        said(error)
    return pl.concat(points) if points else None
