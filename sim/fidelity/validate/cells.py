"""What the cells of a measured row may be: the one check in front of every reader of tables.

A row comes from a stranger's file. Sizes that no machine measures would let the model run without
end, and a zero in a divisor would stop it, so each column has its range wherever it occurs. The
sentences name no value, so that rows with the same fault are counted together.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

from sim.errors import InputError

Row = dict[str, Any]


class Range(NamedTuple):
    """The least and the largest whole number of a column."""

    least: int
    most: int


SIZE, COUNT = Range(1, 2**31), Range(0, 2**31)
HEADS, FEW, DEVICES, MANY = Range(1, 2**16), Range(1, 2**12), Range(1, 2**16), Range(1, 2**14)
TOKENS = Range(1, 10**6)
WHOLE: dict[str, Range] = {
    **dict.fromkeys(("b", "m", "n", "k", "batch", "rows", "width", "hidden", "inter"), SIZE),
    **dict.fromkeys(("q_len", "kv_len", "seq_len", "n_embd", "n_expanded_embd"), SIZE),
    **dict.fromkeys(("num_tokens", "tokens", "sequences", "bytes"), SIZE),
    **dict.fromkeys(("read", "written", "window"), COUNT),
    **dict.fromkeys(("prefill_chunk", "kv_prefill", "n_decode", "kv_decode"), COUNT),
    **dict.fromkeys(("num_heads", "num_kv_heads", "head_dim", "n_head", "n_kv_head"), HEADS),
    **dict.fromkeys(("num_experts", "topk"), FEW),
    **dict.fromkeys(("moe_tp", "moe_ep"), Range(0, FEW.most)),  # 0 is 1, as in moe_ep_size
    **dict.fromkeys(("num_gpus", "num_workers"), Range(2, DEVICES.most)),  # of an exchange
    **dict.fromkeys(("devices_per_node", "tp", "pp"), DEVICES),
    **dict.fromkeys(("tensor_parallel", "attention_dp_size"), DEVICES),
    "moe_ep_size": Range(0, 2**16),
    **dict.fromkeys(("batch_size", "concurrency"), MANY),
    **dict.fromkeys(("isl", "osl", "prompt_size", "token_size"), TOKENS),
}
# A benchmark of operators has other sizes than its column's name says elsewhere.
ELSEWHERE: dict[str, dict[str, Range]] = {
    "llmcompass": {"m": Range(0, 2**40), "n": COUNT, "k": COUNT},
}
TIMES = ("latency_us", "latency_ms", "ttft_ms", "tpot_ms", "prompt_time", "token_time", "time_us")
TEXTS = (
    *("device", "network", "hardware", "system", "backend", "model", "op", "layer", "mode"),
    *("dtype", "kv_dtype", "routing", "option", "gemm_quant_mode"),
)
# Where an empty cell means one device.
MAY_BE_EMPTY = {("e2e/silicon", "tp")}
# No more of the first than of the second.
ORDERED = (
    *(
        ("topk", "num_experts"),
        ("moe_ep", "num_experts"),
        ("moe_tp", "inter"),
        ("tp", "n_head"),
        ("tp", "n_expanded_embd"),
        ("n_head", "n_embd"),
    ),
    *(("num_kv_heads", "num_heads"), ("n_kv_head", "n_head"), ("q_len", "kv_len")),
)
MOST_SERVED = 2**27  # tokens that the clients of a closed loop have in flight


def sound(row: Row, form: str, columns: Iterable[str]) -> None:
    """Raise InputError for a row that breaks a rule.

    form: the name of the table's format. columns: those that its reader needs.
    """
    needed = frozenset(columns)
    check_columns(row, columns)
    other = ELSEWHERE.get(form, {})
    for column, value in row.items():
        if value is None:
            if column in needed and (form, column) not in MAY_BE_EMPTY:
                raise InputError(f"column {column!r} has an empty cell")
        elif column in WHOLE:
            _check_whole(column, value, other.get(column, WHOLE[column]))
        elif column in TIMES:
            _check_time(column, value)
        elif column in TEXTS and not isinstance(value, str):
            raise InputError(f"column {column!r} has a cell that is no text")
    for less, more in ORDERED:
        if less in row and more in row and (row[less] or 0) > (row[more] or math.inf):
            raise InputError(f"column {less!r} has a number above that of column {more!r}")
    _check_served(row)


def _check_whole(column: str, value: object, limits: Range) -> None:
    least, most = limits
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"column {column!r} has a cell that is no number")
    if not least <= value <= most:
        raise InputError(f"column {column!r} has a number that is not from {least:,} to {most:,}")
    if value != int(value):
        raise InputError(f"column {column!r} has a number that is not whole")


def _check_time(column: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"column {column!r} has a cell that is no number")
    if not 0 <= value < math.inf:
        raise InputError(f"column {column!r} has a number below 0, or none that is finite")


def _check_served(row: Row) -> None:
    """A closed loop is replayed request by request, so its tokens have an end."""
    clients = row.get("batch_size") or row.get("concurrency") or 0
    if clients * ((row.get("isl") or 0) + (row.get("osl") or 0)) > MOST_SERVED:
        raise InputError(
            f"batch_size (or concurrency) x (isl + osl) is above {MOST_SERVED:,} tokens in flight"
        )


def check_columns(names: Container[str], needed: Iterable[str]) -> None:
    """Raise InputError where a table lacks a column."""
    for column in needed:
        if column not in names:
            raise InputError(f"column {column!r} is missing")
