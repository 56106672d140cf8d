"""How a config.json is read: one record per family, one sentence per error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

import msgspec

from workloads.rules import rule_in_words

Activation = Literal["gelu", "relu", "silu"]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_fast": "gelu",
    "gelu_new": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "quick_gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}

_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<key>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<key>[^`]*)`")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the families: keys that it does not name are passed over.

    A size without a default here has to stand in config.json; the other defaults are
    those of `transformers`.
    """

    model_type: str = ""
    dtype: str | None = None
    torch_dtype: str | None = None
    quantization_config: dict[str, Any] | None = None


C = TypeVar("C", bound=Config)


def read(config: dict[str, Any], kind: type[C], *, strict: bool) -> C:
    """`config` as a `kind`. Raises ValueError for a wrong value or a missing key;
    with `strict`, for a key that `kind` does not know as well.
    """
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    unknown = [key for key in config if key not in known]
    if strict and unknown:
        raise ValueError(f"unknown key {unknown[0]!r}{did_you_mean(unknown[0], known)}")
    try:
        return msgspec.convert(config, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error), config, unknown)) from None


def refused(key: str, value: object, rule: str, hint: str) -> ValueError:
    """The one sentence that says what is wrong with a key: value, rule and hint."""
    return ValueError(f"{key} = {shown(value)}: {rule}; {hint}")


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if something like `word` is known, else the list of them."""
    names = sorted(known)
    close = get_close_matches(str(word), names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


def activation(key: str, value: str) -> Activation:
    """The kind of function behind one of the Hugging Face names of it."""
    if value not in ACTIVATIONS:
        raise refused(key, value, "not a known activation", f"known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[value]


def weight_format(config: Config) -> str:
    """The format that the weights are stored in, `bf16` where config.json is silent."""
    stated = config.dtype or config.torch_dtype
    if stated is None:
        return "bf16"
    name = stated.removeprefix("torch.")
    if name not in DTYPES:
        raise refused("torch_dtype", stated, "not a known format", f"known: {', '.join(DTYPES)}")
    return DTYPES[name]


def divided(
    hidden_key: str,
    hidden: int,
    heads_key: str,
    heads: int,
    hint: str = "all heads have the same width",
) -> int:
    """The width of a head where only the hidden size and the heads are stated."""
    if hidden % heads:
        raise refused(heads_key, heads, f"must divide {hidden_key} = {hidden}", hint)
    return hidden // heads


def _explain(message: str, config: dict[str, Any], unknown: list[str]) -> str:
    missing = _MISSING.search(message)
    if missing:
        close = get_close_matches(missing["key"], map(str, unknown), n=1, cutoff=0.6)
        tip = f"found {close[0]!r}, is that it?" if close else "take config.json as it is"
        return f"{missing['key']} is missing, and it has no default; {tip}"
    match = _AT.match(message)
    what, key = (match["what"], match["key"] or "") if match else (message, "")
    name = re.split(r"[.\[]", key, maxsplit=1)[0]
    text = rule_in_words(what)
    if "bool" in what.partition(",")[0]:
        hint = "write true or false"
    elif "int" in what.partition(",")[0]:
        hint = "sizes are whole numbers without quotes, up to 2**31 (layers: 4096)"
    else:
        hint = "take the value as config.json has it"
    return f"{key or 'config'} = {shown(config.get(name, config))}: {text}; {hint}"


def shown(value: object) -> str:
    """A value as JSON spells it, cut to a readable length."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def quantised(config: Config) -> str | None:
    """The format that `quantization_config` states for the products, None if there is none.

    `wXa16` where weights alone are quantised (gptq, awq, bitsandbytes), fp8 for both sides.
    """
    stated = config.quantization_config
    if stated is None:
        return None
    method = stated.get("quant_method")
    bits = stated.get("bits")
    if method in ("fp8", "fbgemm_fp8"):
        return "fp8"
    if method == "mxfp4":
        return "w4a16"
    if method == "bitsandbytes":
        return "w4a16" if stated.get("load_in_4bit") else "w8a16"
    if method in ("gptq", "awq"):
        if bits not in (4, 8):
            raise refused("quantization_config.bits", bits, "must be 4 or 8", "check the file")
        return f"w{bits}a16"
    raise refused(
        "quantization_config.quant_method",
        method,
        "not a known method",
        "known: awq, bitsandbytes, fbgemm_fp8, fp8, gptq, mxfp4; or leave the table out and "
        "give --dtype",
    )
