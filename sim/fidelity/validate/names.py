"""The names that measurements use for devices, models and number formats, as the catalogue's."""

from __future__ import annotations

import re
from functools import lru_cache

from sim.errors import InputError, hint, quoted, shortened
from sim.inputs.catalogue import catalogue, load_machine

# By pattern of the name in lower case with "_" and blanks as "-"; the first that fits counts.
# A bare "a100" or "h100" is the SXM board of its year, which is what vidur, splitwise-sim and
# LLMCompass measured on (DGX nodes).
DEVICES: tuple[tuple[str, str], ...] = (
    (r"gb200", "gb200"),
    (r"b200", "b200"),
    (r"gh200", "gh200"),
    (r"h200", "h200"),
    (r"h20(?!\d)", "h20"),
    (r"h100.*nvl", "h100-nvl"),
    (r"h100.*pcie", "h100-pcie"),
    (r"h100", "h100-sxm"),
    (r"a100.*pcie.*80", "a100-pcie-80gb"),
    (r"a100.*80gb.*pcie", "a100-pcie-80gb"),
    (r"a100.*pcie", "a100-pcie-40gb"),
    (r"a100.*40", "a100-sxm-40gb"),
    (r"a100", "a100-sxm-80gb"),
    (r"rtx-?a6000|(?<![\w])a6000", "rtx-a6000"),
    (r"rtx-?pro-?6000", "rtx-pro-6000"),
    (r"4090", "rtx-4090"),
    (r"3090", "rtx-3090"),
    (r"l40s", "l40s"),
    (r"(?<![\w])l4(?!\d)", "l4"),
    (r"(?<![\w])a40(?!\d)", "a40"),
    (r"(?<![\w])a10(?!\d)", "a10"),
    (r"v100.*pcie", "v100-pcie"),
    (r"v100", "v100-sxm"),
    (r"(?<![\w])t4(?!\d)", "t4"),
    (r"p100", "p100"),
    (r"(?<![\w])p4(?!\d)", "p4"),
    (r"mi300x", "mi300x"),
    (r"mi250", "mi250-die"),
    (r"mi210", "mi210"),
    (r"mi100", "mi100"),
    (r"tpu-?v4", "tpu-v4"),
    (r"tpu-?v5e", "tpu-v5e"),
)

# Names that are not the catalogue's with other dashes or dots.
MODELS: dict[str, str] = {
    "bert-large-uncased": "bert-large",
    "gpt3-xl": "gpt3-xl-3072",
    "gpt3-27": "gpt3-2.7b",
    "gpt3-2-7b": "gpt3-2.7b",
    "gpt3": "gpt3-175b",
    "opt-13": "opt-1.3b",
    "bloom": "bloom-176b",
    "switchxl4": "switch-xl-4",
    "llama2-70b": "llama-2-70b",
    "llama2-13b": "llama-2-13b",
    "llama2-7b": "llama-2-7b",
    "llama3-8b": "llama-3-8b",
    "llama3-70b": "llama-3-70b",
    "qwen-72b": "qwen1.5-72b",
}
DROPPED = (
    "-v0.1",
    "-v0.3",
    "-v0.2",
    "-v1",
    "-instruct",
    "-hf",
    "-chat",
    "-fp8",
    "-bf16",
    "-base",
    "-it",
    "-dynamic",
)

MOST_NAME = 200  # characters of a name that are looked at
DTYPES: dict[str, str] = {
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "fp16": "fp16",
    "float": "fp32",
    "float32": "fp32",
    "fp32": "fp32",
    "tf32": "tf32",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "float8_e4m3fn": "fp8",
    "fp8_block": "fp8",
    "int8": "int8",
    "int4": "int4",
    "fp4": "fp4",
    "nvfp4": "fp4",
}


def named_device(name: str) -> str:
    """A device that the user names: the catalogue's, or a path as it is. Raises InputError."""
    return name if "/" in name or name.endswith(".toml") else device_of(name)


def device_of(name: str) -> str:
    """The catalogue's device of a name that stands in a file. Raises InputError for any other: a
    stranger's file opens none by its path."""
    known = catalogue("device")
    if name in known:
        return name
    plain = re.sub(r"[\s_]+", "-", name[:MOST_NAME].strip().lower())
    if plain in known:
        return plain
    for pattern, device in DEVICES:
        if re.search(pattern, plain) and device in known:
            return device
    raise InputError(
        f"device {quoted(name)} is not in the catalogue{hint(plain, known)}; say --device"
    )


def model_of(name: str) -> str:
    """The catalogue's model of a name such as `meta-llama/Llama-3.1-70B-Instruct`."""
    known = catalogue("model")
    plain = re.sub(r"[\s_]+", "-", name[-MOST_NAME:].strip().split("/")[-1].lower())
    plain = plain.removeprefix("meta-")
    while plain not in known and plain not in MODELS:
        end = next((d for d in DROPPED if plain.endswith(d)), None)
        if end is None:
            break
        plain = plain.removesuffix(end)
    plain = MODELS.get(plain, plain)
    if plain in known:
        return plain
    squeezed = {re.sub(r"[^a-z0-9]", "", k): k for k in known}
    match = squeezed.get(re.sub(r"[^a-z0-9]", "", plain))
    if match:
        return match
    raise InputError(f"model {quoted(name)} is not in the catalogue{hint(plain, known)}")


def dtype_of(name: str) -> str:
    """A number format by the name that a framework gives it. Raises InputError."""
    known = DTYPES.get(str(name).strip().lower().removeprefix("torch."))
    if known is None:
        raise InputError(f"number format {quoted(name)} is not known{hint(str(name), DTYPES)}")
    return known


@lru_cache(maxsize=1)
def _systems() -> tuple[tuple[str, int, str], ...]:
    """Device, number of devices and name of every system of the catalogue."""
    machines = [(load_machine(name), name) for name in catalogue("system")]
    return tuple((m.device.name, len(m.system.devices), name) for m, name in machines)


def system_of(device: str, gpus: int) -> str:
    """The catalogue's smallest system of `gpus` or more of a device. Raises InputError."""
    fitting = [(size, name) for of, size, name in _systems() if of == device and size >= gpus]
    if not fitting:
        raise InputError(f"no system of {gpus} x {shortened(device)} is in the catalogue")
    return min(fitting)[1]
