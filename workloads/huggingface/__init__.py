"""A Hugging Face `config.json`, as it is, becomes a `Model`.

To add an architecture: write a record of its keys and a function from that record to a
`Model`, and name both in `_FAMILIES` under the `model_type` of config.json.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from workloads.huggingface import decoders, encoder_decoders, encoders, experts, learned_positions
from workloads.huggingface._fields import Config, quantised, read, shown, weight_format
from workloads.model import Model
from workloads.rules import rule_in_words

_FAMILIES: dict[str, tuple[type[Config], Callable[[Any], Model]]] = {
    "bert": (encoders.Bert, encoders.bert),
    "roberta": (encoders.Bert, encoders.roberta),
    "gpt2": (learned_positions.Gpt2, learned_positions.gpt2),
    "opt": (learned_positions.Opt, learned_positions.opt),
    "llama": (decoders.Llama, decoders.llama),
    "mistral": (decoders.Mistral, decoders.mistral),
    "qwen2": (decoders.Qwen2, decoders.qwen2),
    "qwen3": (decoders.Qwen3, decoders.qwen3),
    "gemma2": (decoders.Gemma2, decoders.gemma2),
    "phi3": (decoders.Phi3, decoders.phi3),
    "mixtral": (experts.Mixtral, experts.mixtral),
    "qwen3_moe": (experts.Qwen3Moe, experts.qwen3_moe),
    "deepseek_v3": (experts.DeepseekV3, experts.deepseek_v3),
    "t5": (encoder_decoders.T5, encoder_decoders.t5),
    "switch_transformers": (encoder_decoders.Switch, encoder_decoders.switch),
    "whisper": (encoder_decoders.Whisper, encoder_decoders.whisper),
}

ARCHITECTURES = tuple(sorted(_FAMILIES))


def model_from_config(
    config: dict[str, Any], *, name: str, source: str = "", strict: bool = False
) -> Model:
    """The model that a config.json describes; its `model_type` picks the family.

    Keys that the family does not use are passed over, or refused with a hint where
    `strict`. Weights are taken as bf16 where no `dtype` or `torch_dtype` is stated.
    Defaults are those of `transformers` (src/transformers/models/*/configuration_*.py).

    Raises ValueError: an unknown `model_type`, a missing size, a value that breaks a rule.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        known = ", ".join(ARCHITECTURES)
        what = "is missing" if model_type is None else f"{shown(model_type)} is not known"
        raise ValueError(f"architecture (model_type) {what}; known: {known}")
    kind, build = _FAMILIES[model_type]
    fields = read(config, kind, strict=strict)
    plain, products = weight_format(fields), quantised(fields)
    model = msgspec.structs.replace(
        build(fields),
        name=name,
        source=source,
        dtype=products or plain,
        kv_dtype=plain if products else "",
    )
    _check_bounds(model)
    return model


def known_keys(model_type: object) -> tuple[str, ...]:
    """The keys of config.json that a family looks at; none for a family that is not known."""
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        return ()
    return tuple(f.encode_name for f in msgspec.structs.fields(_FAMILIES[model_type][0]))


def _check_bounds(model: Model) -> None:
    """Hold the sizes that were derived (4 n_embd, shared experts) to the bounds of a Model."""
    try:
        msgspec.convert(msgspec.to_builtins(model), Model)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        raise ValueError(
            f"a size that follows from the config is out of bounds: {place or 'the model'} "
            f"{rule_in_words(what)}; look for a mistyped digit"
        ) from None
