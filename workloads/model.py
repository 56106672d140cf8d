"""A transformer as the shapes that cost time: widths, heads, layers, tables.

A `Model` is plain data. It knows no hardware and no batch. Rules that a shape must
keep are checked on construction; a broken rule is a ValueError that states the
value, the rule and a hint.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

# Bounds refuse hostile or mistyped sizes; they lie far above any model in use.
Size = Annotated[int, msgspec.Meta(gt=0, le=2**31)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Depth = Annotated[int, msgspec.Meta(gt=0, le=4096)]
MOST_EXPERTS = 65536  # of a layer: routing looks at each
NormKind = Literal["layernorm", "rmsnorm"]
NormPlace = Literal["pre", "post", "sandwich"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the frozen, keyword-only, strictly loaded records."""


class Latent(Record, frozen=True, kw_only=True):
    """Multi-head latent attention: keys and values are rebuilt from one short vector.

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1. `query_rank` 0 means that the
    query is projected directly.
    """

    query_rank: Count = 0
    kv_rank: Size
    rope_dim: Size


class Attention(Record, frozen=True, kw_only=True):
    """One attention of `heads` query heads over `kv_heads` key/value heads.

    `head_dim` is the width of a query or key, `value_dim` that of a value (in MLA they
    differ). `window` 0 means full attention. `core` names what attends between the projections
    (`workloads.attention.CORES`); empty means that the lowering decides.
    """

    heads: Size
    kv_heads: Size
    head_dim: Size
    value_dim: Size
    causal: bool = True
    window: Count = 0
    rotary: bool = False
    qk_norm: bool = False
    bias_q: bool = False
    bias_k: bool = False
    bias_v: bool = False
    bias_out: bool = False
    latent: Latent | None = None
    core: str = ""

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}; "
                "every key/value head serves the same number of query heads"
            )
        if self.latent and self.latent.rope_dim >= self.head_dim:
            raise ValueError(
                f"rope_dim = {self.latent.rope_dim} must be smaller than head_dim = "
                f"{self.head_dim}, which is its rotary plus its plain part"
            )

    @property
    def kv_width(self) -> int:
        """Cached elements per token in this layer: keys and values, or one latent."""
        if self.latent:
            return self.latent.kv_rank + self.latent.rope_dim
        return self.kv_heads * (self.head_dim + self.value_dim)


class Dense(Record, frozen=True, kw_only=True, tag="dense", tag_field="kind"):
    """A feed-forward block: up (and gate), activation, down."""

    inner: Size
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    gated: bool = False
    bias: bool = False


class Experts(Record, frozen=True, kw_only=True, tag="experts", tag_field="kind"):
    """A mixture of experts: a router picks `top_k` of `experts` for each token.

    `shared_inner` is the total inner width of the experts that every token visits.
    """

    experts: Size
    top_k: Size
    inner: Size
    activation: Literal["gelu", "relu", "silu"] = "silu"
    gated: bool = True
    shared_inner: Count = 0
    router_bias: bool = False

    def __post_init__(self) -> None:
        if self.experts > MOST_EXPERTS:
            raise ValueError(f"experts = {self.experts}: a layer has {MOST_EXPERTS:,} at most")
        if self.top_k > self.experts:
            raise ValueError(
                f"top_k = {self.top_k} is more than experts = {self.experts}; "
                "a token cannot visit an expert twice"
            )


class Layer(Record, frozen=True, kw_only=True):
    """One transformer layer: self-attention, cross-attention if any, feed-forward."""

    attention: Attention
    cross: Attention | None = None
    ffn: Dense | Experts
    norm: NormKind = "layernorm"
    place: NormPlace = "pre"


class Convolution(Record, frozen=True, kw_only=True):
    """A 1-d convolution that turns `channels` x `length` into `hidden` x `length`/stride."""

    channels: Size
    width: Size
    stride: Size = 1


class Embedding(Record, frozen=True, kw_only=True):
    """Tables that turn ids into vectors. A table with 0 rows does not exist."""

    tokens: Count = 0
    positions: Count = 0
    types: Count = 0
    norm: NormKind | None = None
    convolutions: tuple[Convolution, ...] = ()
    shared: bool = False  # the token table belongs to the other stack (T5's encoder)


class Head(Record, frozen=True, kw_only=True):
    """What follows the last layer: a pooler on one row, or logits over a vocabulary."""

    vocab: Count = 0
    tied: bool = True
    bias: bool = False
    pooler: bool = False


class Stack(Record, frozen=True, kw_only=True):
    """A run of layers with what stands before and behind them.

    `relative_buckets` counts the rows of a table of relative position biases
    (one per stack, buckets x heads, as in T5).
    """

    layers: Annotated[tuple[Layer, ...], msgspec.Meta(min_length=1, max_length=4096)]
    embedding: Embedding
    head: Head = msgspec.field(default_factory=Head)
    final_norm: NormKind | None = None
    relative_buckets: Count = 0


class Model(Record, frozen=True, kw_only=True):
    """An encoder, a decoder, or both, of width `hidden`."""

    name: str
    architecture: str
    hidden: Size
    encoder: Stack | None = None
    decoder: Stack | None = None
    dtype: str = "bf16"  # as `workloads.precision.parse_precision` takes it
    kv_dtype: str = ""  # of the cache where it does not follow `dtype`
    max_tokens: Count = 0  # longest context that the model is designed for; 0 if not stated
    source_tokens: Count = 0  # fixed encoder length (Whisper's 1500 frames); 0 when free
    source: str = ""

    def __post_init__(self) -> None:
        if self.encoder is None and self.decoder is None:
            raise ValueError("a model needs an encoder, a decoder or both; this one has neither")

    @property
    def stacks(self) -> tuple[tuple[str, Stack], ...]:
        pairs = (("encoder", self.encoder), ("decoder", self.decoder))
        return tuple((name, stack) for name, stack in pairs if stack is not None)

    @property
    def num_layers(self) -> int:
        return sum(len(stack.layers) for _, stack in self.stacks)
