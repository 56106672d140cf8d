"""Counts of the catalogue against what was published, and closed forms by hand."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

import workloads
from sim.errors import InputError
from sim.inputs.documents import convert, read_document
from workloads import counts
from workloads.entry import CatalogueModel, model_from_entry
from workloads.model import Attention, Experts, Latent, Model

FOLDER = Path(workloads.__file__).parent / "catalogue"
ENTRIES = {
    path.stem: convert(read_document(path), CatalogueModel, path.name)
    for path in sorted(FOLDER.glob("*.toml"))
}
MODELS = {stem: model_from_entry(entry) for stem, entry in ENTRIES.items()}

each_model = pytest.mark.parametrize("stem", ENTRIES)


@each_model
def test_a_file_is_named_after_its_model(stem: str) -> None:
    assert ENTRIES[stem].name == MODELS[stem].name == stem
    assert MODELS[stem].source == ENTRIES[stem].source


# Configs of a benchmark, of which nobody has published a count.
UNPUBLISHED = {"gpt3-xl-3072", "switch-xl-4"}


@each_model
def test_counts_are_the_published_ones(stem: str) -> None:
    model, published = MODELS[stem], ENTRIES[stem].published
    if published is None:
        assert stem in UNPUBLISHED
        return
    found = counts.parameters(model)
    assert abs(found - published.parameters) <= published.tolerance * published.parameters
    assert counts.kv_bytes_per_token(model, 16) == (published.kv_bytes_per_token or 0)


@each_model
def test_a_count_is_the_sum_of_its_parts(stem: str) -> None:
    model = MODELS[stem]
    hidden = model.hidden
    whole = 0
    for _, stack in model.stacks:
        whole += counts.embedding_parameters(stack.embedding, hidden)
        whole += sum(counts.layer_parameters(layer, hidden) for layer in stack.layers)
        whole += stack.relative_buckets * stack.layers[0].attention.heads
        whole += counts.head_parameters(stack, hidden)
    assert counts.parameters(model) == whole


@each_model
def test_only_experts_make_active_parameters_fewer(stem: str) -> None:
    model = MODELS[stem]
    sparse = any(isinstance(layer.ffn, Experts) for _, s in model.stacks for layer in s.layers)
    assert (counts.active_parameters(model) < counts.parameters(model)) == sparse


@pytest.mark.parametrize(
    ("stem", "billions", "digits"),
    [
        ("mixtral-8x7b", 12.9, 1),  # arXiv 2401.04088 says 13B; 12.9B on mistral.ai
        ("qwen3-30b-a3b", 3.35, 2),  # arXiv 2505.09388 says 3.3B: cut, not rounded
        ("deepseek-v3", 37.6, 1),  # arXiv 2412.19437 says 37B; 36.6B without the token table
    ],
)
def test_active_parameters(stem: str, billions: float, digits: int) -> None:
    assert round(counts.active_parameters(MODELS[stem]) / 1e9, digits) == billions


def test_deepseek_states_its_active_parameters_without_the_token_table() -> None:
    # README_WEIGHTS.md of the checkpoint: 36.6B, including 0.9B for the output head
    model = MODELS["deepseek-v3"]
    assert round((counts.active_parameters(model) - 129280 * 7168) / 1e9, 1) == 36.6


def test_bert_with_four_heads_has_the_weights_of_bert_base() -> None:
    # The hypothetical encoder of arXiv 2302.14017, table 10.
    entry = ENTRIES["bert-base"]
    four = msgspec.structs.replace(entry, config={**entry.config, "num_attention_heads": 4})
    model = model_from_entry(four)
    assert counts.parameters(model) == counts.parameters(MODELS["bert-base"])
    assert model.encoder is not None
    assert model.encoder.layers[0].attention.head_dim == 192


@pytest.mark.parametrize(
    ("stem", "layers", "hidden", "heads", "inner"),
    [
        ("bert-base", 12, 768, 12, 3072),
        ("bert-large", 24, 1024, 16, 4096),
        ("gpt2", 12, 768, 12, 3072),
    ],
)
def test_table_1_of_the_survey(
    stem: str, layers: int, hidden: int, heads: int, inner: int
) -> None:  # arXiv 2302.14017
    model = MODELS[stem]
    layer = model.stacks[0][1].layers[0]
    shape = (model.num_layers, model.hidden, layer.attention.heads, layer.ffn.inner)
    assert shape == (layers, hidden, heads, inner)


def windows(model: Model) -> list[int]:
    assert model.decoder is not None
    return [layer.attention.window for layer in model.decoder.layers]


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("mistral-7b", [4096] * 32),
        ("gemma-2-9b", [4096, 0] * 21),
        ("qwen2-7b", [0] * 28),
        ("llama-3.1-8b", [0] * 32),
    ],
)
def test_windows(stem: str, expected: list[int]) -> None:
    assert windows(MODELS[stem]) == expected


def test_a_window_does_not_change_what_a_token_takes() -> None:
    entry = ENTRIES["mistral-7b"]
    wide = msgspec.structs.replace(entry, config={**entry.config, "sliding_window": 8192})
    assert counts.kv_elements_per_token(model_from_entry(wide)) == 2 * 32 * 8 * 128


def test_cross_attention_caches_once_for_a_token_of_the_source() -> None:
    assert counts.cross_kv_elements_per_token(MODELS["whisper-large-v3"]) == 2 * 32 * 1280
    assert counts.cross_kv_elements_per_token(MODELS["gpt2"]) == 0
    assert counts.cross_kv_elements_per_token(MODELS["bert-base"]) == 0


@pytest.mark.parametrize(("bits", "expected"), [(16, 131072), (8, 65536), (4, 32768)])
def test_kv_bytes_follow_the_bits(bits: int, expected: int) -> None:
    assert counts.kv_bytes_per_token(MODELS["llama-3.1-8b"], bits) == expected


@pytest.mark.parametrize("query_rank", [0, 24])
def test_latent_attention_by_hand(query_rank: int) -> None:
    latent = Latent(query_rank=query_rank, kv_rank=16, rope_dim=4)
    attention = Attention(heads=2, kv_heads=2, head_dim=12, value_dim=10, latent=latent)
    query = 32 * 24 + 24 + 24 * (2 * 12) if query_rank else 32 * (2 * 12)
    keys_values = 32 * (16 + 4) + 16 + 16 * 2 * (8 + 10)
    out = 2 * 10 * 32
    assert counts.attention_parameters(attention, 32) == query + keys_values + out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": {"hidden_sise": 64}}, "unknown key 'hidden_sise'; did you mean 'hidden_size'?"),
        ({"architecture": "bort"}, "'bort' is not known"),
        ({"config": {"model_type": "gpt2"}}, "contradicts architecture = 'bert'"),
    ],
)
def test_an_entry_is_read_strictly(change: dict[str, Any], said: str) -> None:
    entry = ENTRIES["bert-base"]
    config = {**entry.config, **change.get("config", {})}
    wrong = msgspec.structs.replace(entry, **{**change, "config": config})
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        model_from_entry(wrong)


def test_an_unknown_key_of_the_file_is_refused() -> None:
    document = read_document(FOLDER / "bert-base.toml")
    with pytest.raises(InputError, match="unknown key `publishd`; did you mean 'published'"):
        convert({**document, "publishd": {}}, CatalogueModel, "bert-base.toml")
