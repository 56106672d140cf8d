"""BERT and RoBERTa: encoders with learned positions, post-norm and a pooler."""

from __future__ import annotations

from workloads.huggingface._fields import Config, activation, divided, refused
from workloads.model import (
    Attention,
    Count,
    Dense,
    Depth,
    Embedding,
    Head,
    Layer,
    Model,
    Size,
    Stack,
)

PADDING_ROWS = 2  # RoBERTa's and OPT's first token stands in row 2 of the position table


class Bert(Config, frozen=True, kw_only=True):
    """Keys of a BERT or RoBERTa config.json."""

    hidden_size: Size
    num_hidden_layers: Depth
    num_attention_heads: Size
    intermediate_size: Size
    vocab_size: Size
    hidden_act: str = "gelu"
    max_position_embeddings: Size = 512
    type_vocab_size: Count = 2
    position_embedding_type: str | None = "absolute"
    is_decoder: bool = False
    add_cross_attention: bool = False


def bert(config: Bert) -> Model:
    """BERT, arXiv 1810.04805."""
    if config.is_decoder or config.add_cross_attention:
        key = "is_decoder" if config.is_decoder else "add_cross_attention"
        raise refused(key, True, "BERT is read as an encoder", "use false")
    if config.position_embedding_type not in (None, "absolute"):
        raise refused(
            "position_embedding_type",
            config.position_embedding_type,
            "must be 'absolute'",
            "relative positions of BERT are not modelled",
        )
    heads = config.num_attention_heads
    width = divided("hidden_size", config.hidden_size, "num_attention_heads", heads)
    layer = Layer(
        attention=Attention(
            heads=heads,
            kv_heads=heads,
            head_dim=width,
            value_dim=width,
            causal=False,
            bias_q=True,
            bias_k=True,
            bias_v=True,
            bias_out=True,
        ),
        ffn=Dense(
            inner=config.intermediate_size,
            activation=activation("hidden_act", config.hidden_act),
            bias=True,
        ),
        norm="layernorm",
        place="post",
    )
    stack = Stack(
        layers=(layer,) * config.num_hidden_layers,
        embedding=Embedding(
            tokens=config.vocab_size,
            positions=config.max_position_embeddings,
            types=config.type_vocab_size,
            norm="layernorm",
        ),
        head=Head(pooler=True),
    )
    return Model(
        name="bert",
        architecture="bert",
        hidden=config.hidden_size,
        encoder=stack,
        max_tokens=config.max_position_embeddings,
    )


def roberta(config: Bert) -> Model:
    """RoBERTa, arXiv 1907.11692: BERT whose positions begin after the padding rows."""
    rows = config.max_position_embeddings
    if rows <= PADDING_ROWS:
        raise refused(
            "max_position_embeddings",
            rows,
            f"must be more than {PADDING_ROWS}",
            "it counts the padding rows too, as in 514 for 512 tokens",
        )
    built = bert(config)
    return Model(
        name="roberta",
        architecture="roberta",
        hidden=built.hidden,
        encoder=built.encoder,
        max_tokens=rows - PADDING_ROWS,
    )
