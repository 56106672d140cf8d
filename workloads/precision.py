"""Number formats: how many bits a weight, an activation and a KV entry take.

The three are separate because deployments separate them: W4A16 keeps weights in
4 bits and multiplies in 16, an FP8 KV cache sits beside BF16 activations.
"""

from __future__ import annotations

from typing import Literal

import msgspec

DType = Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4", "int4"]

BITS: dict[str, int] = {
    "fp64": 64,
    "fp32": 32,
    "tf32": 32,
    "bf16": 16,
    "fp16": 16,
    "fp8": 8,
    "int8": 8,
    "fp4": 4,
    "int4": 4,
}


def packed(elements: int, bits: int) -> int:
    """Bytes that hold `elements` numbers of `bits` bits, packed, rounded up."""
    return (elements * bits + 7) // 8


class Precision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The formats of one run. `activations` is also the format that is multiplied in."""

    weights: DType = "bf16"
    activations: DType = "bf16"
    kv: DType = "bf16"

    @property
    def weight_bits(self) -> int:
        return BITS[self.weights]

    @property
    def activation_bits(self) -> int:
        return BITS[self.activations]

    @property
    def table_bits(self) -> int:
        """Bits per weight of the embedding and the LM head, which AWQ, GPTQ and similar methods do
        not quantise."""
        return max(self.weight_bits, self.activation_bits)

    @property
    def for_table(self) -> Precision:
        """The formats of a product whose weights are an embedding table, such as the LM head."""
        wider = self.activations if self.table_bits > self.weight_bits else self.weights
        return msgspec.structs.replace(self, weights=wider)

    @property
    def kv_bits(self) -> int:
        return BITS[self.kv]


def parse_precision(dtype: str, kv: str | None = None) -> Precision:
    """`bf16`, `fp8`, ... for everything, or `w4a16` style for weights and activations.

    W4 is int4; a 16-bit side is bf16, an 8-bit side int8. KV follows the activations
    unless `kv` names a format. Raises ValueError with the formats that are known.
    """
    known = ", ".join(BITS)
    lowered = dtype.lower()
    if lowered in BITS:
        weights = activations = lowered
    else:
        sides = {"4": "int4", "8": "int8", "16": "bf16", "32": "fp32"}
        w, separator, a = lowered.removeprefix("w").partition("a")
        if not (lowered.startswith("w") and separator and w in sides and a in sides):
            raise ValueError(
                f"--dtype {dtype!r} is not known; use one of {known}, or wXaY such as w4a16"
            )
        weights, activations = sides[w], sides[a]
    cache = (kv or activations).lower()
    if cache not in BITS:
        raise ValueError(f"--kv-dtype {kv!r} is not known; use one of {known}")
    return msgspec.convert({"weights": weights, "activations": activations, "kv": cache}, Precision)
