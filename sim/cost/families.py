"""Which kernel family prices which kind of operator."""

from __future__ import annotations

KINDS = {
    "projection": "gemm",
    "ffn": "gemm",
    "head": "gemm",
    "router": "gemm",
    "experts": "experts",
    "norm": "elementwise",
    "activation": "elementwise",
    "residual": "elementwise",
    "rotary": "elementwise",
    "softmax": "elementwise",
    "embedding": "elementwise",
}


def family_of(kind: str) -> str:
    """The kernel family of a kind of operator, or "" where no family has it."""
    return kind if kind in ("attention", "collective") else KINDS.get(kind, "")
