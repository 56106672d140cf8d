"""Decoders with a mixture of experts: Mixtral, Qwen3-MoE, DeepSeek-V3."""

from __future__ import annotations

from workloads.huggingface._fields import activation, refused
from workloads.huggingface._rotary import Rotary, decoder_of, gated, grouped
from workloads.model import Attention, Count, Experts, Latent, Layer, Model, Size


class Mixtral(Rotary, frozen=True, kw_only=True):
    num_key_value_heads: Size | None = 8
    max_position_embeddings: Size = 131072
    sliding_window: Size | None = None
    num_local_experts: Size = 8
    num_experts_per_tok: Size = 2


class Qwen3Moe(Rotary, frozen=True, kw_only=True):
    """A layer has experts if it is not in `mlp_only_layers` and every
    `decoder_sparse_step` layers; `num_experts` 0 means none has.
    """

    moe_intermediate_size: Size
    num_key_value_heads: Size | None = 4
    max_position_embeddings: Size = 32768
    num_experts: Count = 128
    num_experts_per_tok: Size = 8
    decoder_sparse_step: Size = 1
    mlp_only_layers: list[Count] | None = None
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: Size | None = 4096


class DeepseekV3(Rotary, frozen=True, kw_only=True):
    """`num_key_value_heads` and `head_dim` have no effect: keys are rebuilt for every head.

    The multi-token prediction module (`num_nextn_predict_layers`) is left out, as in
    `transformers`.
    """

    moe_intermediate_size: Size
    max_position_embeddings: Size = 4096
    attention_bias: bool = False
    n_routed_experts: Size = 256
    n_shared_experts: Count | None = 1
    num_experts_per_tok: Size = 8
    first_k_dense_replace: Count = 3
    moe_layer_freq: Size = 1
    q_lora_rank: Size | None = 1536
    kv_lora_rank: Size = 512
    qk_nope_head_dim: Size = 128
    qk_rope_head_dim: Size = 64
    v_head_dim: Size = 128


def mixtral(config: Mixtral) -> Model:
    """Mixtral, arXiv 2401.04088: experts in every layer."""
    attention = grouped(config, window=config.sliding_window or 0)
    ffn = _experts(
        config,
        config.num_experts_per_tok,
        ("num_local_experts", config.num_local_experts),
        config.intermediate_size,
    )
    layer = Layer(attention=attention, ffn=ffn, norm="rmsnorm")
    return decoder_of(config, (layer,) * config.num_hidden_layers)


def qwen3_moe(config: Qwen3Moe) -> Model:
    """Qwen3 with experts, arXiv 2505.09388."""
    window = config.sliding_window if config.use_sliding_window else None
    bias = config.attention_bias
    attention = grouped(config, window=window or 0, bias_qkv=bias, bias_out=bias, qk_norm=True)
    dense = Layer(attention=attention, ffn=gated(config), norm="rmsnorm")
    if config.num_experts == 0:
        return decoder_of(config, (dense,) * config.num_hidden_layers)
    ffn = _experts(
        config,
        config.num_experts_per_tok,
        ("num_experts", config.num_experts),
        config.moe_intermediate_size,
    )
    sparse = Layer(attention=attention, ffn=ffn, norm="rmsnorm")
    only, step = set(config.mlp_only_layers or ()), config.decoder_sparse_step
    return decoder_of(
        config,
        tuple(
            dense if index in only or (index + 1) % step else sparse
            for index in range(config.num_hidden_layers)
        ),
    )


def deepseek_v3(config: DeepseekV3) -> Model:
    """DeepSeek-V3, arXiv 2412.19437: latent attention, then experts after some dense layers."""
    attention = _latent(config)
    dense = Layer(attention=attention, ffn=gated(config), norm="rmsnorm")
    ffn = _experts(
        config,
        config.num_experts_per_tok,
        ("n_routed_experts", config.n_routed_experts),
        config.moe_intermediate_size,
        shared_inner=(config.n_shared_experts or 0) * config.moe_intermediate_size,
        router_bias=True,
    )
    sparse = Layer(attention=attention, ffn=ffn, norm="rmsnorm")
    first, step = config.first_k_dense_replace, config.moe_layer_freq
    return decoder_of(
        config,
        tuple(
            dense if index < first or index % step else sparse
            for index in range(config.num_hidden_layers)
        ),
    )


def _latent(config: DeepseekV3) -> Attention:
    return Attention(
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=config.qk_nope_head_dim + config.qk_rope_head_dim,
        value_dim=config.v_head_dim,
        rotary=True,
        bias_q=config.attention_bias and config.q_lora_rank is not None,
        bias_k=config.attention_bias,
        bias_out=config.attention_bias,
        latent=Latent(
            query_rank=config.q_lora_rank or 0,
            kv_rank=config.kv_lora_rank,
            rope_dim=config.qk_rope_head_dim,
        ),
    )


def _experts(
    config: Rotary,
    top_k: int,
    experts: tuple[str, int],
    inner: int,
    *,
    shared_inner: int = 0,
    router_bias: bool = False,
) -> Experts:
    key, count = experts
    if top_k > count:
        raise refused(
            "num_experts_per_tok",
            top_k,
            f"must not be more than {key} = {count}",
            "a token cannot visit an expert twice",
        )
    return Experts(
        experts=count,
        top_k=top_k,
        inner=inner,
        activation=activation("hidden_act", config.hidden_act),
        shared_inner=shared_inner,
        router_bias=router_bias,
    )
