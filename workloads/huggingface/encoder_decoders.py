"""T5 and Whisper: an encoder, and a decoder whose layers also look at its output."""

from __future__ import annotations

import msgspec

from workloads.huggingface._fields import Activation, Config, activation, divided, refused
from workloads.model import (
    Attention,
    Convolution,
    Count,
    Dense,
    Depth,
    Embedding,
    Experts,
    Head,
    Layer,
    Model,
    Size,
    Stack,
)


class T5(Config, frozen=True, kw_only=True):
    """Keys of a T5 config.json. `n_positions` is what it was trained on, not a table."""

    d_model: Size
    d_ff: Size
    num_layers: Depth
    num_heads: Size
    vocab_size: Size
    d_kv: Size = 64
    num_decoder_layers: Depth | None = None
    feed_forward_proj: str = "relu"
    relative_attention_num_buckets: Size = 32
    n_positions: Count = 0
    tie_word_embeddings: bool = True


class Switch(T5, frozen=True, kw_only=True):
    """Keys of a Switch Transformers config.json: a T5 in which every so many layers are sparse."""

    num_experts: Size
    encoder_sparse_step: Size = 2
    decoder_sparse_step: Size = 2


class Whisper(Config, frozen=True, kw_only=True):
    """Keys of a Whisper config.json."""

    d_model: Size
    encoder_layers: Depth
    encoder_attention_heads: Size
    encoder_ffn_dim: Size
    decoder_layers: Depth
    decoder_attention_heads: Size
    decoder_ffn_dim: Size
    vocab_size: Size
    num_mel_bins: Size = 80
    max_source_positions: Size = 1500
    max_target_positions: Size = 448
    activation_function: str = "gelu"
    tie_word_embeddings: bool = True


def t5(config: T5) -> Model:
    """T5, arXiv 1910.10683: relative positions, rmsnorm, no biases."""
    kind, gated = _feed_forward(config.feed_forward_proj)
    ffn = Dense(inner=config.d_ff, activation=kind, gated=gated)

    def attention(causal: bool) -> Attention:
        return Attention(
            heads=config.num_heads,
            kv_heads=config.num_heads,
            head_dim=config.d_kv,
            value_dim=config.d_kv,
            causal=causal,
        )

    encoder = Stack(
        layers=(Layer(attention=attention(False), ffn=ffn, norm="rmsnorm"),) * config.num_layers,
        embedding=Embedding(tokens=config.vocab_size),
        final_norm="rmsnorm",
        relative_buckets=config.relative_attention_num_buckets,
    )
    layer = Layer(attention=attention(True), cross=attention(False), ffn=ffn, norm="rmsnorm")
    decoder = Stack(
        layers=(layer,) * (config.num_decoder_layers or config.num_layers),
        embedding=Embedding(tokens=config.vocab_size, shared=True),
        head=Head(vocab=config.vocab_size, tied=config.tie_word_embeddings),
        final_norm="rmsnorm",
        relative_buckets=config.relative_attention_num_buckets,
    )
    return Model(
        name="t5",
        architecture="t5",
        hidden=config.d_model,
        encoder=encoder,
        decoder=decoder,
        max_tokens=config.n_positions,
    )


def switch(config: Switch) -> Model:
    """Switch Transformers, arXiv 2101.03961: one expert a token in every other feed-forward."""
    dense = t5(config)
    kind, gated = _feed_forward(config.feed_forward_proj)
    experts = Experts(
        experts=config.num_experts, top_k=1, inner=config.d_ff, activation=kind, gated=gated
    )

    def sparse(stack: Stack | None, step: int) -> Stack | None:
        if stack is None:
            return None
        layers = tuple(
            msgspec.structs.replace(layer, ffn=experts) if i % step == step - 1 else layer
            for i, layer in enumerate(stack.layers)
        )
        return msgspec.structs.replace(stack, layers=layers)

    return msgspec.structs.replace(
        dense,
        name="switch_transformers",
        architecture="switch_transformers",
        encoder=sparse(dense.encoder, config.encoder_sparse_step),
        decoder=sparse(dense.decoder, config.decoder_sparse_step),
    )


def whisper(config: Whisper) -> Model:
    """Whisper, arXiv 2212.04356: two convolutions over mel frames, then 1500 positions."""
    kind = activation("activation_function", config.activation_function)
    hidden = config.d_model

    def attention(heads_key: str, heads: int, *, causal: bool) -> Attention:
        width = divided("d_model", hidden, heads_key, heads)
        return Attention(
            heads=heads,
            kv_heads=heads,
            head_dim=width,
            value_dim=width,
            causal=causal,
            bias_q=True,
            bias_v=True,
            bias_out=True,
        )

    looks = attention("encoder_attention_heads", config.encoder_attention_heads, causal=False)
    encoder_ffn = Dense(inner=config.encoder_ffn_dim, activation=kind, bias=True)
    encoder = Stack(
        layers=(Layer(attention=looks, ffn=encoder_ffn),) * config.encoder_layers,
        embedding=Embedding(
            positions=config.max_source_positions,
            convolutions=(
                Convolution(channels=config.num_mel_bins, width=3),
                Convolution(channels=hidden, width=3, stride=2),
            ),
        ),
        final_norm="layernorm",
    )
    key, heads = "decoder_attention_heads", config.decoder_attention_heads
    layer = Layer(
        attention=attention(key, heads, causal=True),
        cross=attention(key, heads, causal=False),
        ffn=Dense(inner=config.decoder_ffn_dim, activation=kind, bias=True),
    )
    decoder = Stack(
        layers=(layer,) * config.decoder_layers,
        embedding=Embedding(tokens=config.vocab_size, positions=config.max_target_positions),
        head=Head(vocab=config.vocab_size, tied=config.tie_word_embeddings),
        final_norm="layernorm",
    )
    return Model(
        name="whisper",
        architecture="whisper",
        hidden=hidden,
        encoder=encoder,
        decoder=decoder,
        max_tokens=config.max_target_positions,
        source_tokens=config.max_source_positions,
    )


def _feed_forward(stated: str) -> tuple[Activation, bool]:
    """`relu` or `gated-gelu` as (activation, gated)."""
    name = stated.removeprefix("gated-")
    if "-" in name:
        raise refused("feed_forward_proj", stated, "must be NAME or gated-NAME", "try 'relu'")
    return activation("feed_forward_proj", name), name != stated
