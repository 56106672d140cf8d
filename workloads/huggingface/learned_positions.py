"""GPT-2 and OPT: decoders with learned positions, layernorm and biases everywhere."""

from __future__ import annotations

import msgspec

from workloads.huggingface._fields import Activation, Config, activation, divided, refused
from workloads.huggingface.encoders import PADDING_ROWS
from workloads.model import Attention, Dense, Depth, Embedding, Head, Layer, Model, Size, Stack


class Gpt2(Config, frozen=True, kw_only=True):
    """Keys of a GPT-2 config.json."""

    n_embd: Size
    n_layer: Depth
    n_head: Size
    vocab_size: Size
    n_inner: Size | None = None
    n_positions: Size = 1024
    activation_function: str = "gelu_new"
    tie_word_embeddings: bool = True
    add_cross_attention: bool = False


class Opt(Config, frozen=True, kw_only=True):
    """Keys of an OPT config.json."""

    hidden_size: Size
    num_hidden_layers: Depth
    num_attention_heads: Size
    ffn_dim: Size
    vocab_size: Size
    max_position_embeddings: Size = 2048
    activation_function: str = "relu"
    word_embed_proj_dim: Size | None = None
    do_layer_norm_before: bool = True
    enable_bias: bool = True
    layer_norm_elementwise_affine: bool = True
    remove_final_layer_norm: bool = msgspec.field(default=False, name="_remove_final_layer_norm")
    tie_word_embeddings: bool = True


def gpt2(config: Gpt2) -> Model:
    """GPT-2, Radford et al. 2019."""
    if config.add_cross_attention:
        raise refused("add_cross_attention", True, "GPT-2 is read as a decoder alone", "use false")
    width = divided("n_embd", config.n_embd, "n_head", config.n_head)
    layer = Layer(
        attention=_attention(config.n_head, width, bias=True),
        ffn=_ffn(
            config.n_inner or 4 * config.n_embd,
            activation("activation_function", config.activation_function),
            bias=True,
        ),
    )
    stack = Stack(
        layers=(layer,) * config.n_layer,
        embedding=Embedding(tokens=config.vocab_size, positions=config.n_positions),
        head=Head(vocab=config.vocab_size, tied=config.tie_word_embeddings),
        final_norm="layernorm",
    )
    return Model(
        name="gpt2",
        architecture="gpt2",
        hidden=config.n_embd,
        decoder=stack,
        max_tokens=config.n_positions,
    )


def opt(config: Opt) -> Model:
    """OPT, arXiv 2205.01068."""
    narrow = config.word_embed_proj_dim
    if narrow not in (None, config.hidden_size):
        raise refused(
            "word_embed_proj_dim",
            narrow,
            f"must equal hidden_size = {config.hidden_size}",
            "embeddings narrower than the layers (OPT-350M) are not modelled",
        )
    if not config.layer_norm_elementwise_affine:
        raise refused(
            "layer_norm_elementwise_affine", False, "a layernorm here has weights", "use true"
        )
    heads = config.num_attention_heads
    width = divided("hidden_size", config.hidden_size, "num_attention_heads", heads)
    before = config.do_layer_norm_before
    layer = Layer(
        attention=_attention(heads, width, bias=config.enable_bias),
        ffn=_ffn(
            config.ffn_dim,
            activation("activation_function", config.activation_function),
            bias=config.enable_bias,
        ),
        place="pre" if before else "post",
    )
    stack = Stack(
        layers=(layer,) * config.num_hidden_layers,
        embedding=Embedding(
            tokens=config.vocab_size,
            positions=config.max_position_embeddings + PADDING_ROWS,
        ),
        head=Head(vocab=config.vocab_size, tied=config.tie_word_embeddings),
        final_norm="layernorm" if before and not config.remove_final_layer_norm else None,
    )
    return Model(
        name="opt",
        architecture="opt",
        hidden=config.hidden_size,
        decoder=stack,
        max_tokens=config.max_position_embeddings,
    )


def _attention(heads: int, width: int, *, bias: bool) -> Attention:
    return Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=width,
        value_dim=width,
        bias_q=bias,
        bias_k=bias,
        bias_v=bias,
        bias_out=bias,
    )


def _ffn(inner: int, kind: Activation, *, bias: bool) -> Dense:
    return Dense(inner=inner, activation=kind, bias=bias)
