"""PyTorch without graphs or compilation: its own kernels, one for each call, and the host's time.

Element-wise kernels of a serving engine walk a row per block; PyTorch's take 16 bytes a thread and
move them once. But a model's code calls several where a graph has one operator.
"""

from __future__ import annotations

import msgspec

from hw_models.device import Device
from sim.cost.kernels.rates import rates_of
from sim.cost.kernels.stream import stream_terms
from sim.cost.model import CostModel
from sim.fidelity.validate.points import TICKS_A_SECOND, PredictionBench
from workloads.model import Model
from workloads.ops import Op

# Bytes are moved so often by one call. Softmax reads long rows again: it takes 1.4 to 1.7 times as
# long as GELU of as many elements (llmcompass/ops.csv, rows of 4096 to 32,768 elements on an A100).
SOFTMAX = 1.6
# What the code of a model (Hugging Face transformers 4, eager attention) does to scores between the
# product and the softmax, kernel by kernel: scale (OPT: a bound from below) and mask; T5, whose
# scale is in its weights, adds biases of positions.
USUAL, ON_SCORES = 2, {"t5": 1, "switch_transformers": 1}
# 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) as eight kernels (NewGELUActivation), of which the
# addition and the last product read two tensors.
NEW_GELU = 9.0
# Between the call and the end of waiting for it, beyond the kernel: smallest sizes of
# llmcompass/ops.csv, which were timed by the host's clock. It is the framework's, not the GPU's.
PRODUCT_HOST_US, HOST_US = 24.0, {"softmax": 11.0, "norm": 48.0, "activation": 45.0}


class Eager:
    """Cost models of the devices of a bench with PyTorch's element-wise kernels."""

    def __init__(self, bench: PredictionBench, dtype: str) -> None:
        self.bench, self.dtype = bench, dtype
        self._costs: dict[tuple[str, str], CostModel] = {}

    def costs(self, name: str, model: Model | None = None) -> CostModel:
        """Of a device; of the code of a model, if one is given."""
        key = (name, model.architecture if model else "")
        if key not in self._costs:
            passes = {"softmax": SOFTMAX} | (passes_of(model) if model else {})
            self._costs[key] = CostModel(
                eager(self.bench.load(name), self.dtype, passes), self.dtype
            )
        return self._costs[key]

    def seconds(self, name: str, op: Op) -> float:
        """One operator that the host calls, and waits for."""
        host = PRODUCT_HOST_US if op.gemms else HOST_US[op.kind]
        return host * 1e-6 + self.costs(name)(op).duration / TICKS_A_SECOND


def eager(device: Device, dtype: str, passes: dict[str, float]) -> Device:
    """A device whose element-wise kernels are PyTorch's: bytes pass once, or `passes` times by
    kind. One without terms stays as it is."""
    table = device.efficiency.elementwise
    if not table:
        return device
    terms = stream_terms(rates_of(device, dtype))
    own = msgspec.structs.replace(terms, walk={}, hidden=1.0, row_ns=0.0, passes=passes)
    efficiency = msgspec.structs.replace(device.efficiency, elementwise={**table, dtype: own})
    return msgspec.structs.replace(device, efficiency=efficiency)


def passes_of(model: Model) -> dict[str, float]:
    """How often the model's own code passes over scores and activations."""
    passes = {"softmax": SOFTMAX + ON_SCORES.get(model.architecture, USUAL)}
    if model.architecture == "gpt2":
        passes["activation"] = NEW_GELU
    return passes
