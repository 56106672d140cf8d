"""Closed forms of a model alone: how many weights, how many cached elements per token.

All functions count elements; `kv_bytes_per_token` alone turns them into bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from workloads.model import Attention, Dense, Embedding, Experts, Layer, Model, NormKind, Stack
from workloads.precision import packed


class Projection(NamedTuple):
    """A weight matrix of `inputs` x `outputs`, with `outputs` biases if `bias`."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs + self.outputs * self.bias


def attention_projections(attention: Attention, hidden: int) -> tuple[Projection, ...]:
    """The matrices of an attention. In MLA, `bias_q` and `bias_k` are those of `q_a`, `kv_a`.

    Source of the latent form: DeepSeek-V2, arXiv 2405.04434, section 2.1.
    """
    queries = attention.heads * attention.head_dim
    out = Projection("out", attention.heads * attention.value_dim, hidden, attention.bias_out)
    latent = attention.latent
    if latent is None:
        keys = attention.kv_heads * attention.head_dim
        values = attention.kv_heads * attention.value_dim
        return (
            Projection("q", hidden, queries, attention.bias_q),
            Projection("k", hidden, keys, attention.bias_k),
            Projection("v", hidden, values, attention.bias_v),
            out,
        )
    plain = attention.head_dim - latent.rope_dim
    rebuilt = attention.heads * (plain + attention.value_dim)
    query = (
        (
            Projection("q_a", hidden, latent.query_rank, attention.bias_q),
            Projection("q_b", latent.query_rank, queries),
        )
        if latent.query_rank
        else (Projection("q", hidden, queries, attention.bias_q),)
    )
    return (
        *query,
        Projection("kv_a", hidden, latent.kv_rank + latent.rope_dim, attention.bias_k),
        Projection("kv_b", latent.kv_rank, rebuilt),
        out,
    )


def dense_projections(
    inner: int, hidden: int, *, gated: bool, bias: bool = False
) -> tuple[Projection, ...]:
    """The matrices of one feed-forward block: up, gate if `gated`, down."""
    gate = (Projection("gate", hidden, inner, bias),) if gated else ()
    return (
        Projection("up", hidden, inner, bias),
        *gate,
        Projection("down", inner, hidden, bias),
    )


def norm_parameters(kind: NormKind | None, width: int) -> int:
    """Weights of a norm over `width`: a scale, and a shift in a layernorm."""
    return {None: 0, "rmsnorm": 1, "layernorm": 2}[kind] * width


def norms_per_layer(layer: Layer) -> int:
    """One norm a sublayer, or one on each side of it in a sandwich."""
    sublayers = 3 if layer.cross else 2
    return sublayers * (2 if layer.place == "sandwich" else 1)


def attention_parameters(attention: Attention, hidden: int) -> int:
    """Weights of an attention with the norms inside it (over heads, over latents)."""
    norms = 2 * attention.head_dim if attention.qk_norm else 0
    if attention.latent:
        norms += attention.latent.query_rank + attention.latent.kv_rank
    return norms + sum(p.parameters for p in attention_projections(attention, hidden))


def feed_forward_parameters(ffn: Dense | Experts, hidden: int, *, active: bool = False) -> int:
    """Weights of a feed-forward block; with `active`, those that one token visits."""
    if isinstance(ffn, Dense):
        return _dense(ffn.inner, hidden, ffn.gated, ffn.bias)
    expert = _dense(ffn.inner, hidden, ffn.gated)
    shared = _dense(ffn.shared_inner, hidden, ffn.gated)
    router = Projection("router", hidden, ffn.experts, ffn.router_bias).parameters
    return (ffn.top_k if active else ffn.experts) * expert + shared + router


def layer_parameters(layer: Layer, hidden: int, *, active: bool = False) -> int:
    """Weights of one layer; with `active`, those that one token visits."""
    cross = attention_parameters(layer.cross, hidden) if layer.cross else 0
    return (
        attention_parameters(layer.attention, hidden)
        + cross
        + feed_forward_parameters(layer.ffn, hidden, active=active)
        + norms_per_layer(layer) * norm_parameters(layer.norm, hidden)
    )


def embedding_parameters(embedding: Embedding, hidden: int) -> int:
    """Tables (a token table only where it is not the other stack's), norm, convolutions."""
    tokens = 0 if embedding.shared else embedding.tokens
    convolutions = sum(c.channels * c.width * hidden + hidden for c in embedding.convolutions)
    tables = (tokens + embedding.positions + embedding.types) * hidden
    return tables + norm_parameters(embedding.norm, hidden) + convolutions


def head_parameters(stack: Stack, hidden: int) -> int:
    """What follows the layers: final norm, logits unless tied, pooler."""
    head = stack.head
    logits = 0 if head.tied else head.vocab * hidden
    pooler = Projection("pooler", hidden, hidden, True).parameters if head.pooler else 0
    bias = head.vocab if head.bias else 0
    return norm_parameters(stack.final_norm, hidden) + logits + bias + pooler


def stack_parameters(stack: Stack, hidden: int, *, active: bool = False) -> int:
    """Weights of a stack: embedding, layers, relative biases, head."""
    layers = sum(layer_parameters(layer, hidden, active=active) for layer in stack.layers)
    relative = stack.relative_buckets * stack.layers[0].attention.heads
    return (
        embedding_parameters(stack.embedding, hidden)
        + layers
        + relative
        + head_parameters(stack, hidden)
    )


def parameters(model: Model) -> int:
    """All weights of a model; a table that is tied or shared counts once."""
    return sum(stack_parameters(stack, model.hidden) for _, stack in model.stacks)


def active_parameters(model: Model) -> int:
    """Weights that one token visits: `top_k` experts of each layer and all of the rest.

    Token tables and routers count whole, as in the 12.9B that Mixtral states.
    """
    return sum(stack_parameters(stack, model.hidden, active=True) for _, stack in model.stacks)


def kv_elements_per_token(model: Model) -> int:
    """Elements that the decoder's self-attention caches for a token, over all layers.

    A sliding window bounds the tokens that are kept, not this number. 0 without a decoder.
    """
    if model.decoder is None:
        return 0
    return sum(layer.attention.kv_width for layer in model.decoder.layers)


def kv_bytes_per_token(model: Model, kv_bits: int) -> int:
    """Bytes of `kv_elements_per_token` at `kv_bits` bits an element, rounded up."""
    return packed(kv_elements_per_token(model), kv_bits)


def cross_kv_elements_per_token(model: Model) -> int:
    """Elements that the decoder's cross-attention caches for a token of the encoder."""
    if model.decoder is None:
        return 0
    return sum(layer.cross.kv_width for layer in model.decoder.layers if layer.cross)


def _dense(inner: int, hidden: int, gated: bool, bias: bool = False) -> int:
    return sum(p.parameters for p in dense_projections(inner, hidden, gated=gated, bias=bias))
