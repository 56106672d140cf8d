"""A config.json as it is becomes a Model, or a ValueError that says why not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.counts import parameters
from workloads.huggingface import ARCHITECTURES, model_from_config
from workloads.model import Experts, Model

Config = dict[str, Any]

LLAMA_LIKE: Config = {
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.0",
    "use_cache": True,
}
BERT: Config = {
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


def llama_like(model_type: str, shape: str, **more: Any) -> Config:
    """`shape` is "hidden layers heads kv_heads inner vocab"."""
    keys = (
        "hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
        "intermediate_size vocab_size"
    )
    sizes = dict(zip(keys.split(), map(int, shape.split()), strict=True))
    return {**LLAMA_LIKE, "model_type": model_type, **sizes, **more}


# 24 self- and 12 cross-attentions, 12 dense and 12 x 8 expert feed-forwards, 12 routers, one
# table, 62 norms and two tables of 32 relative positions for 12 heads.
SWITCH_BASE_8 = 768 * (36 * 4 * 768 + (12 + 96) * 2 * 3072 + 12 * 8 + 32128 + 62) + 2 * 32 * 12

# fmt: off
CONFIGS: list[tuple[Config, int]] = [
    (BERT, 109_482_240),
    ({**BERT, "architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "pad_token_id": 1,
      "max_position_embeddings": 514, "type_vocab_size": 1, "vocab_size": 50265}, 124_645_632),
    ({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
      "bos_token_id": 50256, "embd_pdrop": 0.1, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
      "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
      "resid_pdrop": 0.1, "summary_type": "cls_index", "vocab_size": 50257,
      "task_specific_params": {"text-generation": {"do_sample": True}}}, 124_439_808),
    ({"_remove_final_layer_norm": False, "activation_function": "relu", "dropout": 0.1,
      "do_layer_norm_before": True, "ffn_dim": 3072, "hidden_size": 768, "model_type": "opt",
      "max_position_embeddings": 2048, "num_attention_heads": 12, "num_hidden_layers": 12,
      "prefix": "</s>", "torch_dtype": "float16", "vocab_size": 50272,
      "word_embed_proj_dim": 768}, 125_239_296),
    (llama_like("llama", "4096 32 32 8 14336 128256", attention_bias=False, mlp_bias=False,
                max_position_embeddings=131072, pretraining_tp=1,
                rope_scaling={"factor": 8.0, "rope_type": "llama3"}), 8_030_261_248),
    (llama_like("mistral", "4096 32 32 8 14336 32000", sliding_window=4096), 7_241_732_096),
    (llama_like("qwen2", "896 24 14 2 4864 151936", tie_word_embeddings=True,
                max_window_layers=24, use_sliding_window=False), 494_032_768),
    (llama_like("qwen3", "5120 64 64 8 25600 151936", head_dim=128, sliding_window=None,
                attention_bias=False, max_window_layers=64), 32_762_123_264),
    (llama_like("gemma2", "3584 42 16 8 14336 256000", tie_word_embeddings=True, head_dim=256,
                hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh",
                attn_logit_softcapping=50.0, query_pre_attn_scalar=256), 9_241_705_984),
    (llama_like("phi3", "3072 32 32 32 8192 32064", sliding_window=2047, resid_pdrop=0.0,
                auto_map={"AutoConfig": "configuration_phi3.Phi3Config"}), 3_821_079_552),
    (llama_like("mixtral", "4096 32 32 8 14336 32000", num_experts_per_tok=2,
                num_local_experts=8, router_aux_loss_coef=0.02, sliding_window=None),
     46_702_792_704),
    (llama_like("qwen3_moe", "2048 48 32 4 6144 151936", head_dim=128, num_experts=128,
                num_experts_per_tok=8, moe_intermediate_size=768, decoder_sparse_step=1,
                mlp_only_layers=[], norm_topk_prob=True), 30_532_122_624),
    (llama_like("deepseek_v3", "7168 61 128 128 18432 129280", moe_intermediate_size=2048,
                n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8, n_group=8,
                first_k_dense_replace=3, q_lora_rank=1536, kv_lora_rank=512, v_head_dim=128,
                qk_nope_head_dim=128, qk_rope_head_dim=64, num_nextn_predict_layers=1,
                quantization_config={"quant_method": "fp8", "fmt": "e4m3",
                                     "weight_block_size": [128, 128]}),
     671_026_419_200),
    ({"architectures": ["T5ForConditionalGeneration"], "d_ff": 4096, "d_kv": 64, "d_model": 1024,
      "decoder_start_token_id": 0, "is_encoder_decoder": True, "model_type": "t5",
      "n_positions": 512, "num_heads": 16, "num_layers": 24, "relative_attention_num_buckets": 32,
      "task_specific_params": {"summarization": {"num_beams": 4}}, "vocab_size": 32128},
     737_668_096),
    ({"architectures": ["SwitchTransformersForConditionalGeneration"], "d_ff": 3072, "d_kv": 64,
      "d_model": 768, "decoder_sparse_step": 2, "encoder_sparse_step": 2, "expert_capacity": 64,
      "is_encoder_decoder": True, "model_type": "switch_transformers", "num_decoder_layers": 12,
      "num_experts": 8, "num_heads": 12, "num_layers": 12, "num_sparse_encoder_layers": 6,
      "relative_attention_num_buckets": 32, "router_bias": False, "vocab_size": 32128},
     SWITCH_BASE_8),
    ({"activation_function": "gelu", "architectures": ["WhisperForConditionalGeneration"],
      "begin_suppress_tokens": [220, 50257], "d_model": 1280, "decoder_attention_heads": 20,
      "decoder_ffn_dim": 5120, "decoder_layers": 32, "encoder_attention_heads": 20,
      "encoder_ffn_dim": 5120, "encoder_layers": 32, "is_encoder_decoder": True,
      "max_source_positions": 1500, "max_target_positions": 448, "model_type": "whisper",
      "num_hidden_layers": 32, "num_mel_bins": 128, "scale_embedding": False,
      "torch_dtype": "float16", "vocab_size": 51866}, 1_543_490_560),
]
# fmt: on
BY_TYPE: dict[str, Config] = {config["model_type"]: config for config, _ in CONFIGS}


def read(config: Config, **change: Any) -> Model:
    return model_from_config({**config, **change}, name="x")


@pytest.mark.parametrize(("config", "count"), CONFIGS, ids=BY_TYPE)
def test_a_real_config_as_it_is(config: Config, count: int) -> None:
    model = model_from_config(json.loads(json.dumps(config)), name="mine", source="hub")
    assert (model.name, model.source, model.architecture) == ("mine", "hub", config["model_type"])
    assert parameters(model) == count


def test_every_architecture_is_tried() -> None:
    assert tuple(sorted(BY_TYPE)) == ARCHITECTURES


@pytest.mark.parametrize("model_type", ["mamba", "", None, 7, ["bert"], {}])
def test_an_unknown_architecture_is_refused_with_the_list(model_type: object) -> None:
    with pytest.raises(ValueError, match=r"known: bert, deepseek_v3, .*, t5, whisper") as caught:
        read(BERT, model_type=model_type)
    assert model_type is None or repr(model_type) in str(caught.value)


@pytest.mark.parametrize(
    ("stated", "dtype"),
    [
        ({}, "bf16"),
        ({"torch_dtype": "float32"}, "fp32"),
        ({"torch_dtype": "float16"}, "fp16"),
        ({"dtype": "bfloat16"}, "bf16"),
        ({"dtype": "torch.float16"}, "fp16"),
    ],
)
def test_dtype(stated: Config, dtype: str) -> None:
    assert read(BERT, **stated).dtype == dtype


@pytest.mark.parametrize(
    ("model_type", "tokens"),
    [("bert", 512), ("roberta", 512), ("gpt2", 1024), ("opt", 2048), ("t5", 512), ("whisper", 448)],
)
def test_max_tokens_leave_out_padding_rows(model_type: str, tokens: int) -> None:
    assert read(BY_TYPE[model_type]).max_tokens == tokens


def windows(model: Model) -> list[int]:
    assert model.decoder is not None
    return [layer.attention.window for layer in model.decoder.layers]


def test_windows_follow_the_rules_of_each_family() -> None:
    qwen2, gemma2 = BY_TYPE["qwen2"], BY_TYPE["gemma2"]
    slid = read(qwen2, use_sliding_window=True, sliding_window=64, max_window_layers=20)
    assert windows(slid) == [0] * 20 + [64] * 4
    assert windows(read(gemma2, num_hidden_layers=3)) == [4096, 0, 4096]
    full, sliding = "full_attention", "sliding_attention"
    assert windows(read(gemma2, num_hidden_layers=2, layer_types=[full, sliding])) == [0, 4096]
    assert windows(read(BY_TYPE["mistral"], sliding_window=None)) == [0] * 32


def sparse(model: Model) -> list[int]:
    assert model.decoder is not None
    layers = enumerate(model.decoder.layers)
    return [index for index, layer in layers if isinstance(layer.ffn, Experts)]


def test_which_layers_have_experts() -> None:
    qwen = {**BY_TYPE["qwen3_moe"], "num_hidden_layers": 6}
    assert sparse(read(qwen)) == [0, 1, 2, 3, 4, 5]
    assert sparse(read(qwen, decoder_sparse_step=2, mlp_only_layers=[3])) == [1, 5]
    assert sparse(read(qwen, num_experts=0)) == []
    assert sparse(read(BY_TYPE["deepseek_v3"], num_hidden_layers=6)) == [3, 4, 5]


@pytest.mark.parametrize("model_type", ["t5", "gpt2", "llama", "whisper"])
def test_an_untied_head_is_one_more_table(model_type: str) -> None:
    config = BY_TYPE[model_type]
    untied = parameters(read(config, tie_word_embeddings=False))
    tied = parameters(read(config, tie_word_embeddings=True))
    assert untied - tied == config["vocab_size"] * read(config).hidden


def test_other_shapes() -> None:
    opt = read(BY_TYPE["opt"], do_layer_norm_before=False).decoder
    assert opt is not None
    assert (opt.layers[0].place, opt.final_norm) == ("post", None)
    t5 = read(BY_TYPE["t5"], feed_forward_proj="gated-gelu", num_decoder_layers=6)
    assert t5.decoder is not None
    assert len(t5.decoder.layers) == 6
    assert t5.decoder.layers[0].ffn.activation == "gelu"
    plain = read(BY_TYPE["deepseek_v3"], q_lora_rank=None).decoder
    assert plain is not None
    assert plain.layers[0].attention.latent is not None
    assert plain.layers[0].attention.latent.query_rank == 0


@pytest.mark.parametrize(
    ("model_type", "change", "said"),
    [
        (
            "bert",
            {"hidden_size": None},
            r"hidden_size = null: must be a whole number, not nothing",
        ),
        (
            "bert",
            {"hidden_size": "768"},
            r"hidden_size = '768': must be a whole number, not text",
        ),
        ("bert", {"hidden_size": -1}, r"hidden_size = -1: must be at least 1; sizes"),
        ("bert", {"hidden_size": 0}, r"hidden_size = 0: must be at least 1; sizes"),
        ("bert", {"vocab_size": 2**70}, r"vocab_size = \d+: must be at most 2147483648; sizes"),
        ("bert", {"num_attention_heads": 7}, r"num_attention_heads = 7: must divide hidden_size"),
        ("bert", {"position_embedding_type": "relative_key"}, r"must be 'absolute'"),
        ("bert", {"is_decoder": True}, r"is_decoder = true: BERT is read as an encoder"),
        ("bert", {"hidden_act": "gulu"}, r"hidden_act = 'gulu': not a known activation; known"),
        ("bert", {"torch_dtype": "int3"}, r"torch_dtype = 'int3': not a known format; known"),
        ("roberta", {"max_position_embeddings": 2}, r"must be more than 2"),
        ("gpt2", {"n_embd": 2**31, "n_head": 1}, r"out of bounds: .*ffn.inner.*mistyped"),
        ("opt", {"word_embed_proj_dim": 512}, r"must equal hidden_size = 768"),
        (
            "llama",
            {"num_attention_heads": 24},
            r"must divide hidden_size = 4096; or state head_dim",
        ),
        ("llama", {"num_key_value_heads": 5}, r"num_key_value_heads = 5: must divide num_att"),
        ("llama", {"tie_word_embeddings": "no"}, r"tie_word_embeddings = 'no': .*true or false"),
        ("gemma2", {"layer_types": ["full_attention"]}, r"needs num_hidden_layers = 42 entries"),
        ("gemma2", {"layer_types": ["full"] * 42}, r"layer_types = 'full': not a known layer"),
        ("gemma2", {"hidden_activation": "x"}, r"hidden_activation = 'x': not a known"),
        ("mixtral", {"num_experts_per_tok": 9}, r"must not be more than num_local_experts = 8"),
        ("t5", {"feed_forward_proj": "gated-silu-x"}, r"must be NAME or gated-NAME"),
    ],
)
def test_what_is_wrong_is_told(model_type: str, change: Config, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(BY_TYPE[model_type], **change)


def test_a_missing_size_is_told_with_what_was_found() -> None:
    config = {key: value for key, value in BERT.items() if key != "hidden_size"}
    with pytest.raises(ValueError, match=r"hidden_size is missing.*take config.json as it is"):
        read(config)
    with pytest.raises(ValueError, match=r"hidden_size is missing.*found 'hiden_size'"):
        read(config, hiden_size=768)


def test_strict_refuses_a_key_that_the_family_does_not_know() -> None:
    config: Config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9}
    assert model_from_config(config, name="x", strict=True).hidden == 8
    with pytest.raises(ValueError, match=r"unknown key 'n_iner'; did you mean 'n_inner'\?"):
        model_from_config({**config, "n_iner": 16}, name="x", strict=True)
    with pytest.raises(ValueError, match="unknown key 'zzz'; known: activation_function, "):
        model_from_config({**config, "zzz": 16}, name="x", strict=True)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-2, 300)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["gelu", "gated-silu", "full_attention", "float16"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(data=st.data(), config=st.sampled_from(list(BY_TYPE.values())), strict=st.booleans())
def test_any_change_gives_a_model_or_a_value_error(
    data: st.DataObject, config: Config, strict: bool
) -> None:
    keys = st.sampled_from(sorted(config)) | st.text(max_size=12)
    changed = {**config, **data.draw(st.dictionaries(keys, json_values, max_size=3))}
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), max_size=2)):
        changed.pop(key, None)
    try:
        model = model_from_config(changed, name="x", strict=strict)
    except ValueError:
        return
    assert parameters(model) > 0
