"""Llama and similar models: decoders with rotary positions, rmsnorm and a gated feed-forward."""

from __future__ import annotations

import msgspec

from workloads.huggingface._rotary import (
    Rotary,
    decoder_of,
    gated,
    grouped,
    window_sizes,
    windowed,
)
from workloads.model import Count, Layer, Model, Size


class Llama(Rotary, frozen=True, kw_only=True):
    attention_bias: bool = False
    mlp_bias: bool = False


class Mistral(Rotary, frozen=True, kw_only=True):
    num_key_value_heads: Size | None = 8
    max_position_embeddings: Size = 131072
    sliding_window: Size | None = 4096


class Qwen2(Rotary, frozen=True, kw_only=True):
    """Layers from `max_window_layers` on slide, if `use_sliding_window`."""

    num_key_value_heads: Size | None = 32
    max_position_embeddings: Size = 32768
    use_sliding_window: bool = False
    sliding_window: Size | None = 4096
    max_window_layers: Count = 28
    layer_types: list[str] | None = None


class Qwen3(Qwen2, frozen=True, kw_only=True):
    attention_bias: bool = False
    head_dim: Size | None = 128


class Gemma2(Rotary, frozen=True, kw_only=True):
    """Here the activation is `hidden_activation`; a `hidden_act` beside it has no effect."""

    num_key_value_heads: Size | None = 4
    head_dim: Size | None = 256
    hidden_act: str = msgspec.field(default="gelu_pytorch_tanh", name="hidden_activation")
    max_position_embeddings: Size = 8192
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    sliding_window: Size | None = 4096
    layer_types: list[str] | None = None


class Phi3(Rotary, frozen=True, kw_only=True):
    max_position_embeddings: Size = 4096
    sliding_window: Size | None = None


def llama(config: Llama) -> Model:
    """Llama, arXiv 2302.13971 and 2407.21783."""
    attention = grouped(config, bias_qkv=config.attention_bias, bias_out=config.attention_bias)
    layer = Layer(attention=attention, ffn=gated(config, bias=config.mlp_bias), norm="rmsnorm")
    return decoder_of(config, (layer,) * config.num_hidden_layers)


def mistral(config: Mistral) -> Model:
    """Mistral 7B, arXiv 2310.06825: every layer slides, or none."""
    window = config.sliding_window or 0
    return windowed(config, grouped(config), (window,) * config.num_hidden_layers)


def phi3(config: Phi3) -> Model:
    """Phi-3, arXiv 2404.14219. Its fused QKV and gate-up are counted as their parts."""
    window = config.sliding_window or 0
    return windowed(config, grouped(config), (window,) * config.num_hidden_layers)


def qwen2(config: Qwen2) -> Model:
    """Qwen2, arXiv 2407.10671: biases on the query, key and value."""
    return windowed(config, grouped(config, bias_qkv=True), _qwen_windows(config))


def qwen3(config: Qwen3) -> Model:
    """Qwen3, arXiv 2505.09388: a norm on each query and key head."""
    bias = config.attention_bias
    attention = grouped(config, bias_qkv=bias, bias_out=bias, qk_norm=True)
    return windowed(config, attention, _qwen_windows(config))


def gemma2(config: Gemma2) -> Model:
    """Gemma 2, arXiv 2408.00118: every other layer slides, and norms on both sides."""
    slides = [index % 2 == 0 for index in range(config.num_hidden_layers)]
    windows = window_sizes(config.layer_types, config.sliding_window, slides)
    bias = config.attention_bias
    attention = grouped(config, bias_qkv=bias, bias_out=bias)
    return windowed(config, attention, windows, place="sandwich", act="hidden_activation")


def _qwen_windows(config: Qwen2) -> tuple[int, ...]:
    window = config.sliding_window if config.use_sliding_window else None
    slides = [i >= config.max_window_layers for i in range(config.num_hidden_layers)]
    return window_sizes(config.layer_types, window, slides)
