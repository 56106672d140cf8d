"""What rotary decoders share: grouped attention, a gated feed-forward, one table, one head."""

from __future__ import annotations

from msgspec.structs import replace

from workloads.huggingface._fields import Config, activation, divided, refused
from workloads.model import (
    Attention,
    Dense,
    Depth,
    Embedding,
    Head,
    Layer,
    Model,
    NormPlace,
    Size,
    Stack,
)

SLIDING, FULL = "sliding_attention", "full_attention"


class Rotary(Config, frozen=True, kw_only=True):
    """Keys that all of these share; `num_key_value_heads` null means one for each head."""

    hidden_size: Size
    num_hidden_layers: Depth
    num_attention_heads: Size
    intermediate_size: Size
    vocab_size: Size
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    hidden_act: str = "silu"
    max_position_embeddings: Size = 2048
    tie_word_embeddings: bool = False


def grouped(
    config: Rotary,
    *,
    window: int = 0,
    bias_qkv: bool = False,
    bias_out: bool = False,
    qk_norm: bool = False,
) -> Attention:
    """Causal rotary attention of heads that share keys and values in groups."""
    heads = config.num_attention_heads
    kv_heads = config.num_key_value_heads or heads
    if heads % kv_heads:
        raise refused(
            "num_key_value_heads",
            kv_heads,
            f"must divide num_attention_heads = {heads}",
            "every key/value head serves the same number of query heads",
        )
    width = config.head_dim or divided(
        "hidden_size", config.hidden_size, "num_attention_heads", heads, "or state head_dim"
    )
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        value_dim=width,
        window=window,
        rotary=True,
        qk_norm=qk_norm,
        bias_q=bias_qkv,
        bias_k=bias_qkv,
        bias_v=bias_qkv,
        bias_out=bias_out,
    )


def gated(config: Rotary, act: str = "hidden_act", *, bias: bool = False) -> Dense:
    """The gated feed-forward block; `act` is the key that its activation stands under."""
    kind = activation(act, config.hidden_act)
    return Dense(inner=config.intermediate_size, activation=kind, gated=True, bias=bias)


def decoder_of(config: Rotary, layers: tuple[Layer, ...]) -> Model:
    """A decoder of `layers` between one token table and one head."""
    name = config.model_type
    stack = Stack(
        layers=layers,
        embedding=Embedding(tokens=config.vocab_size),
        head=Head(vocab=config.vocab_size, tied=config.tie_word_embeddings),
        final_norm="rmsnorm",
    )
    return Model(
        name=name,
        architecture=name,
        hidden=config.hidden_size,
        decoder=stack,
        max_tokens=config.max_position_embeddings,
    )


def windowed(
    config: Rotary,
    attention: Attention,
    windows: tuple[int, ...],
    place: NormPlace = "pre",
    act: str = "hidden_act",
) -> Model:
    """A decoder of dense layers that differ in their windows (0 for full) alone."""
    ffn = gated(config, act)
    layers = {
        window: Layer(
            attention=replace(attention, window=window), ffn=ffn, norm="rmsnorm", place=place
        )
        for window in set(windows)
    }
    return decoder_of(config, tuple(layers[window] for window in windows))


def window_sizes(
    layer_types: list[str] | None, window: int | None, slides: list[bool]
) -> tuple[int, ...]:
    """The window of each layer, 0 for full; `layer_types` goes before `slides`."""
    if layer_types is not None:
        if len(layer_types) != len(slides):
            raise refused(
                "layer_types",
                layer_types,
                f"needs num_hidden_layers = {len(slides)} entries",
                f"it has {len(layer_types)}",
            )
        for kind in layer_types:
            if kind not in (SLIDING, FULL):
                raise refused("layer_types", kind, "not a known layer", f"known: {SLIDING}, {FULL}")
        slides = [kind == SLIDING for kind in layer_types]
    return tuple((window or 0) if slide else 0 for slide in slides)
