"""Runs of vLLM from strangers: any meta.json and any table give predictions or a sentence."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_rows import cells, judged

META = {
    "model": "gpt2",
    "engine_kwargs": {
        "model": "gpt2",
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "dtype": "auto",
        "kv_cache_dtype": "auto",
        "quantization": None,
    },
    "kv_cache": {"num_gpu_blocks": 100, "block_size": 16, "gpu_memory_utilization": 0.9},
    "hardware": {"device_name": "NVIDIA GeForce RTX 4090"},
}
REQUESTS = """arrival_s,input_tokens,output_tokens,scheduled_s,ttft_ms,tpot_ms,latency_ms
0.0,16,4,0.0,5.0,2.0,12.0
0.1,16,4,0.1,5.0,2.0,12.0
"""
DENSE = "layer,tokens,time_us\nqkv_proj,8,20.0\nsampler,8,1.0\n"
ATTENTION = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n16,0,0,0,9.0\n0,0,4,64,9.0\n"


def run_folder(folder: Path, meta: Any = META, **files: str) -> Path:
    """A run with the given contents of its files."""
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "kernels_tp1").mkdir()
    (folder / "requests.csv").write_text(files.get("requests", REQUESTS))
    (folder / "kernels_tp1" / "dense.csv").write_text(files.get("dense", DENSE))
    (folder / "kernels_tp1" / "attention.csv").write_text(files.get("attention", ATTENTION))
    return folder


def test_a_whole_run_is_predicted(tmp_path: Path) -> None:
    points = judged(run_folder(tmp_path))
    assert points is not None
    assert points["predicted_s"].is_not_null().sum() == 1 + 2 + 3 * 2 + 3
    assert points["reason"].drop_nulls().to_list()[0].startswith("layer 'sampler' is not modelled")


def places(document: dict[str, Any]) -> list[tuple[str, ...]]:
    inner = [(k, j) for k, v in document.items() if isinstance(v, dict) for j in v]
    return [*((key,) for key in document), *inner]


@settings(max_examples=40)
@given(st.sampled_from(places(META)), st.one_of(cells, st.just({}), st.just([]), st.just("GONE")))
def test_any_meta_gives_predictions_or_a_sentence(place: tuple[str, ...], value: Any) -> None:
    meta: Any = copy.deepcopy(META)
    *path, last = place
    inner = meta[path[0]] if path else meta
    if value == "GONE":
        del inner[last]
    else:
        inner[last] = value
    with tempfile.TemporaryDirectory() as folder:
        judged(run_folder(Path(folder), meta))


FILES = {"requests": REQUESTS, "dense": DENSE, "attention": ATTENTION}


@settings(max_examples=40)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 2), st.integers(0, 6), cells)
def test_any_file_of_a_run_gives_predictions_or_a_sentence(
    name: str, line: int, column: int, value: Any
) -> None:
    lines = [text.split(",") for text in FILES[name].splitlines()]
    lines[line][column % len(lines[line])] = str(value).replace("\n", " ")
    text = "\n".join(",".join(cells) for cells in lines)
    with tempfile.TemporaryDirectory() as folder:
        judged(run_folder(Path(folder), **{name: text}))


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("text", ["", "\n", "a,b\n1,2\n", "HEADER", "\x00\x00"])
def test_an_empty_or_other_file_of_a_run_is_a_sentence(
    tmp_path: Path, name: str, text: str
) -> None:
    text = FILES[name].splitlines()[0] + "\n" if text == "HEADER" else text
    points = judged(run_folder(tmp_path, **{name: text}))
    assert points is None or len(points) < 12
