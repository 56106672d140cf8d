"""Traces: every format read exactly, every broken file told in one sentence."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.inputs.traces import FORMATS, Selection, read_trace
from workloads.request import Request
from workloads.synthetic import ClosedLoop, Constant, Piecewise, Poisson

SAMPLES = Path(__file__).parents[2] / "shared/data/traces"
sampled = pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/data/traces is not here")
S = 10**12


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of this test."""

    def write(content: str | bytes, name: str = "trace.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def short(requests: Any) -> list[tuple[int, int, int]]:
    return [(r.arrival, r.prompt, r.output) for r in requests]


# Samples of published traces ---------------------------------------------------------------


@sampled
@pytest.mark.parametrize(
    ("name", "form", "count", "first"),
    [
        (
            "AzureLLMInferenceTrace_code.csv",
            "azure",
            8819,
            [(0, 4808, 10), (52_000_000_000, 3180, 8), (98_189_000_000, 110, 27)],
        ),
        (
            "AzureLLMInferenceTrace_conv.csv",
            "azure",
            19366,
            [(0, 374, 44), (4_314_579_000_000, 396, 109), (4_541_877_000_000, 879, 55)],
        ),
        ("mooncake_conversation_head4000.jsonl", "mooncake", 4000, [(0, 6758, 500)]),
        (
            "vidur_splitwise_code.csv",
            "vidur",
            8819,
            [(0, 4808, 10), (52_000_000_000, 3180, 8), (98_189_000_000, 110, 27)],
        ),
        ("vidur_splitwise_conv.csv", "vidur", 19366, [(0, 374, 44), (4_314_579_000_000, 396, 109)]),
        (
            "vidur_arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv",
            "vidur-lengths",
            28257,
            [(0, 3772, 54), (S // 4, 2015, 156)],
        ),
    ],
)
def test_samples(name: str, form: str, count: int, first: list[tuple[int, int, int]]) -> None:
    trace = read_trace(SAMPLES / name, arrivals=None if FORMATS[form].timed else Constant(4))
    requests = list(trace)
    assert trace.format == form
    assert (len(requests), trace.skipped, trace.failures) == (count, 0, 0)
    assert short(requests[: len(first)]) == first
    assert [r.index for r in requests] == list(range(count))
    assert all(a.arrival <= b.arrival for a, b in pairwise(requests))
    assert list(trace) == requests


@sampled
def test_vidur_copy_of_azure_agrees_to_a_tick() -> None:
    """The copy holds floats; rounded to a tick they are the original's decimals again."""
    for kind in ("code", "conv"):
        azure = read_trace(SAMPLES / f"AzureLLMInferenceTrace_{kind}.csv")
        vidur = read_trace(SAMPLES / f"vidur_splitwise_{kind}.csv")
        assert list(azure) == list(vidur)


@sampled
def test_mooncake_hashes_fill_the_prompt() -> None:
    for r in read_trace(SAMPLES / "mooncake_conversation_head4000.jsonl"):
        assert r.hash_tokens == 512
        assert len(r.hashes) == -(-r.prompt // 512)


# Each format -------------------------------------------------------------------------------

CASES: dict[str, tuple[str, str, list[tuple[int, int, int]]]] = {
    "azure": (
        "t.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-12-31 23:59:59.9999999,10,2\r\n2024-01-01 00:00:00,11,3",
        [(0, 10, 2), (100_000, 11, 3)],
    ),
    "azure 2024, with a zone": (
        "t.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-12 00:00:00+00:00,10,2\n"
        "2024-05-12 02:00:00.003530+02:00,11,3\n2024-05-12T00:00:01Z,11,3\n",
        [(0, 10, 2), (3_530_000_000, 11, 3), (S, 11, 3)],
    ),
    "azure 2025, with images": (
        "t.csv",
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 10:00:00.5,1,1500,9\n",
        [(0, 1500, 9)],
    ),
    "mooncake": (
        "t.jsonl",
        '{"timestamp": 5, "input_length": 513, "output_length": 2, "hash_ids": [0, 7]}\n',
        [(5 * 10**9, 513, 2)],
    ),
    "burstgpt": (
        "t.csv",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,"
        "Total tokens,Log Type\n"
        "19440110.0,a-b,43,GPT-4,906,446,1352,Conversation log\n"
        "19440111.5,c,4,ChatGPT,36,0,36,Conversation log\n"
        '19440161.25,,2,"Chat,GPT",36,29,65,API log\n',
        [(0, 906, 446), (51_250_000_000_000, 36, 29)],
    ),
    "burstgpt, first files": (
        "t.csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n",
        [(0, 472, 18), (40 * S, 1087, 230)],
    ),
    "splitwise": (
        "t.csv",
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size"
        "\n0,2,0,0.0123,1,2,3\n1,2,0,1e1,1,4,5\n",
        [(12_300_000_000, 2, 3), (10 * S, 4, 5)],
    ),
    "vidur": (
        "t.csv",
        "arrived_at,num_prefill_tokens,num_decode_tokens\n5.8926549999999995,91,16.0\n",
        [(5_892_655_000_000, 91, 16)],
    ),
    "vidur-lengths": (
        "t.csv",
        "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n3772,54,3826,69.85\n",
        [(0, 3772, 54)],
    ),
    "llmservingsim": (
        "t.jsonl",
        '{"input_toks": 3, "output_toks": 4, "arrival_time_ns": 4059740, "input_tok_ids": [1]}\n',
        [(4_059_740_000, 3, 4)],
    ),
    "distserve": (
        "t.json",
        '[{"start_time": 7.25, "prompt_len": 3, "output_len": 4, "token_timestamps": [7.5]},\n'
        '{"start_time": 7.35, "prompt_len": 5, "output_len": 6}]',
        [(0, 3, 4), (S // 10, 5, 6)],
    ),
    "distserve, in an object": (
        "t.json",
        '{"config": {"rate": 1.5}, "gpus": [0, 1], "requests": [\n{"start_time": 7, "prompt_len": '
        '3, "output_len": 4}, {"start_time": 8, "prompt_len": 5, "output_len": 6}], "x": 1}',
        [(0, 3, 4), (S, 5, 6)],
    ),
    "sharegpt": ("t.json", '[{"prompt_len": 3, "output_len": 4}]', [(0, 3, 4)]),
    "sharegpt, turns": (
        "t.json",
        '[{"id": "x", "conversations": [{"from": "human", "num_tokens": 8}, {"num_tokens": 9}, '
        '{"num_tokens": 1}]}]',
        [(0, 8, 9)],
    ),
    "memorywall": (
        "t.csv",
        "\ufeffid,arrival_s,prompt_tokens,output_tokens,priority\na,0.5,3,4,-2\nb, .75 ,5,0,\n",
        [(S // 2, 3, 4), (3 * S // 4, 5, 0)],
    ),
    "vllm-run": (
        "t.csv",
        "request_id,arrival_s,input_tokens,output_tokens,ttft_ms\na,2,3,4,9\n",
        [(2 * S, 3, 4)],
    ),
    "memorywall-lengths": ("t.csv", "prompt_tokens,output_tokens\n3,4\n", [(0, 3, 4)]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("packed", [False, True])
def test_formats(put: Callable[..., Path], case: str, packed: bool) -> None:
    name, content, expected = CASES[case]
    form = case.split(",")[0].split(" ")[0]
    path = (
        put(gzip.compress(content.encode()), name + ".gz")
        if packed
        else put(content.encode(), name)
    )
    trace = read_trace(path, arrivals=None if FORMATS[form].timed else Constant(4))
    assert trace.format == form
    assert short(trace) == expected
    assert trace.skipped == 0


def test_every_format_has_a_case() -> None:
    assert {case.split(",")[0].split(" ")[0] for case in CASES} == set(FORMATS)


def test_fields_beside_the_lengths(put: Callable[..., Path]) -> None:
    ours = list(read_trace(put(CASES["memorywall"][1])))
    assert [(r.id, r.priority, r.kind) for r in ours] == [("a", -2, "generate"), ("b", 0, "encode")]
    burst = read_trace(put(CASES["burstgpt"][1]))
    assert [r.session for r in burst] == ["a-b", ""]
    assert (burst.failures, burst.skipped) == (1, 0)
    moon = next(iter(read_trace(put(CASES["mooncake"][1], "m.jsonl"))))
    assert (moon.hashes, moon.hash_tokens) == ((0, 7), 512)


def test_sessions_chain_their_calls(put: Callable[..., Path]) -> None:
    calls = [
        {"input_toks": 10, "output_toks": 1, "tool_duration_ns": 5},
        {"input_toks": 20, "output_toks": 2},
        {"input_toks": 30, "output_toks": 3, "tool_duration_ns": 9},
    ]
    rows = [
        {"input_toks": 1, "output_toks": 1, "arrival_time_ns": 1},
        {"session_id": "s", "arrival_time_ns": 2, "sub_requests": calls},
        {"input_toks": 2, "output_toks": 2, "arrival_time_ns": 3},
    ]
    path = put("".join(json.dumps(row) + "\n" for row in rows), "t.jsonl")
    found = [(r.index, r.arrival, r.prompt, r.after, r.delay) for r in read_trace(path)]
    assert found == [
        (0, 1000, 1, -1, 0),
        (1, 2000, 10, -1, 0),
        (2, 2000, 20, 1, 5000),
        (3, 2000, 30, 2, 0),
        (4, 3000, 2, -1, 0),
    ]
    assert [r.index for r in read_trace(path, Selection(limit=3))] == [0, 1, 2]
    # The calls of a session move together.
    for seed in range(6):
        mixed = list(read_trace(path, Selection(shuffle_seed=seed)))
        assert all(mixed[r.after].session == "s" for r in mixed if r.after >= 0)
        assert sorted(r.prompt for r in mixed) == [1, 2, 10, 20, 30]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    n = 70_000
    table = {
        "arrival_s": [i / 10 for i in range(n)],
        "prompt_tokens": [1 + i % 7 for i in range(n)],
        "output_tokens": [float(i % 3) for i in range(n)],
    }
    pl.DataFrame(table).write_parquet(path)
    found = short(read_trace(path))
    assert found == [(i * S // 10, 1 + i % 7, i % 3) for i in range(n)]
    table["prompt_tokens"][66_000] = -1
    pl.DataFrame(table).write_parquet(path)
    with pytest.raises(InputError, match="row 66001: column `prompt_tokens` = -1"):
        list(read_trace(path))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="Parquet"):
        read_trace(path)


@pytest.mark.skipif(
    sys.version_info < (3, 14) and importlib.util.find_spec("zstandard") is None,
    reason="neither Python 3.14 nor the package zstandard is here",
)
def test_zstd(tmp_path: Path) -> None:
    frame = pl.DataFrame({"arrival_s": [0.5] * 5000, "prompt_tokens": 3, "output_tokens": 4})
    path = tmp_path / "t.csv.zst"
    frame.write_csv(path, compression="zstd")
    assert len(list(read_trace(path))) == 5000
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cut short"):
        list(read_trace(path))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 reads zstd by itself")
def test_zstd_without_its_package(
    put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(InputError, match=r"pip install memorywall\[traces\]"):
        read_trace(put(b"\x28\xb5\x2f\xfd\x00", "t.csv.zst"))


# Broken files ------------------------------------------------------------------------------

OWN = "arrival_s,prompt_tokens,output_tokens\n0,1,1\n"
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,1,1\n"
MOON = '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": []}\n'
SPLIT = "arrival_timestamp,batch_size,prompt_size,token_size\n0,1,1,1\n"
TOOLS = '{"arrival_time_ns": 0, "input_toks": 1, "output_toks": 1}\n'
BAD_ROWS: list[tuple[str, str | bytes, str]] = [
    (OWN, "1,x,1", "column `prompt_tokens` = 'x': must be a finite number"),
    (OWN, "1,0,1", "column `prompt_tokens` = '0': must be at least 1"),
    (OWN, "1,-4,1", "column `prompt_tokens` = '-4': must be at least 1"),
    (OWN, "1,4.5,1", "column `prompt_tokens` = '4.5': must be a whole number"),
    (OWN, "1,1_0,1", "column `prompt_tokens` = '1_0'"),
    (OWN, "1,٣,1", "column `prompt_tokens` = '٣'"),
    (OWN, "1,9999999999999,1", "must be a whole number up to"),
    (OWN, "1," + "9" * 5000 + ",1", "column `prompt_tokens` = '999"),
    (OWN, "1,NaN,1", "column `prompt_tokens` = 'NaN': must be a finite number"),
    (OWN, "nan,1,1", "column `arrival_s` = 'nan'"),
    (OWN, "inf,1,1", "column `arrival_s` = 'inf'"),
    (OWN, "-1,1,1", "column `arrival_s` = '-1': must be a time of 0 or later"),
    (OWN, "1e99,1,1", "column `arrival_s` = '1e99'"),
    (OWN, "1e8,1,1", "later than 106 days"),
    (OWN, "1,,1", "column `prompt_tokens` is missing or empty"),
    (OWN, "1,1", "2 cells under a header of 3"),
    (OWN, "1,1,1,1", "4 cells under a header of 3"),
    (OWN, '1,"1,1', "not a line of CSV"),
    (OWN, b"1,\xff,1", "not UTF-8"),
    (OWN, "1,1,1\n0.5,1,1", "line 4: arrives 0.5 s before the row above; sort the trace"),
    (OWN, "1," + "1" * (2**20 + 1), "longer than 1,048,576 bytes"),
    (VIDUR, "1,1,0", "column `num_decode_tokens` = '0': must be at least 1"),
    (AZURE, "2023-11-16 18:17:63.0,1,1", "no time of the calendar"),
    (AZURE, "2023-02-29 18:17:03.0,1,1", "no time of the calendar"),
    (AZURE, "yesterday,1,1", "must be a time such as"),
    (AZURE, "2023-11-16 18:17:03.97,1,1", "before the row above"),
    (SPLIT, "0,2,1,1", "column `batch_size` = '2': must be 1"),
    (MOON, '{"timestamp": 0, "input_length": 1', "not a JSON object"),
    (MOON, "[1]", "not a JSON object"),
    (MOON, "[" * 200_000, "not a JSON object"),
    (MOON, '{"timestamp": 0, "input_length": true, "output_length": 1}', "must be a number"),
    (MOON, '{"timestamp": 0, "input_length": [], "output_length": 1}', "must be a number"),
    (MOON, '{"timestamp": 0, "input_length": 1}', "column `output_length` is missing"),
    (MOON, '{"timestamp": 0, "input_length": NaN, "output_length": 1}', "not a JSON object"),
    (MOON, b'{"timestamp": 0, "input_length": "\xff"}', "not UTF-8"),
    (
        MOON,
        '{"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [1, 2]}',
        "column `hash_ids` = [1, 2]: more blocks of 512 than 512 tokens fill",
    ),
    (
        MOON,
        '{"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [-1]}',
        "column `hash_ids` = [-1]: must be a list of whole numbers",
    ),
    (TOOLS, '{"arrival_time_ns": 0, "sub_requests": []}', "at least one call"),
    (
        TOOLS,
        '{"arrival_time_ns": 0, "sub_requests": [{"input_toks": 1, "output_toks": 1, '
        '"tool_duration_ns": 1e17}]}',
        "beyond 106 days",
    ),
]


@pytest.mark.parametrize(("good", "bad", "rule"), BAD_ROWS)
def test_bad_rows(put: Callable[..., Path], good: str, bad: str | bytes, rule: str) -> None:
    raw = bad if isinstance(bad, bytes) else bad.encode()
    name = "t.jsonl" if good.startswith("{") else "t.csv"
    path = put(good.encode() + raw + b"\n", name)
    with pytest.raises(InputError) as caught:
        list(read_trace(path))
    sentence = str(caught.value)
    line = good.count("\n") + 1 + raw.count(b"\n")
    assert sentence.startswith(f"{path}, line {line}: ")
    assert rule in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400
    trace = read_trace(path, Selection(on_bad_row="skip"))
    kept = list(trace)
    assert len(kept) == 1 + raw.count(b"\n")
    assert trace.skipped == 1
    assert rule in trace.reasons[0]


def test_skip_goes_on_behind_a_bad_row(put: Callable[..., Path]) -> None:
    path = put(OWN + "x,1,1\n2,2,2\n" + "3," + "9" * 2**22 + "\n\n1,1,1\n4,4,4\n")
    trace = read_trace(path, Selection(on_bad_row="skip"))
    assert short(trace) == [(0, 1, 1), (2 * S, 2, 2), (4 * S, 4, 4)]
    assert trace.skipped == 3
    assert [reason.split(": ")[0].split(", ")[1] for reason in trace.reasons] == [
        "line 3",
        "line 5",
        "line 7",
    ]
    assert len(list(trace)) == 3
    assert trace.skipped == 3


def test_truncated_gzip(put: Callable[..., Path]) -> None:
    rows = "".join(f"{i / 8},{1 + i * 7919 % 97},1\n" for i in range(20_000))
    packed = gzip.compress((OWN + rows).encode())
    assert len(list(read_trace(put(packed, "two.gz")))) == 20_001
    path = put(packed[: len(packed) // 2], "t.csv.gz")
    with pytest.raises(InputError, match=r"line \d+: the file ends within its gzip stream"):
        list(read_trace(path))
    trace = read_trace(path, Selection(on_bad_row="skip"))
    assert 5000 < len(list(trace)) < 15_000
    assert trace.skipped == 1
    damaged = packed[:2000] + b"\x00" * 50 + packed[2050:]
    with pytest.raises(InputError):
        list(read_trace(put(damaged, "damaged.gz")))


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("t.csv", "", "empty"),
        ("t.csv", " \n\n", "empty"),
        ("t.json", "[]", "holds no readable entry"),
        ("t.json", "[1]", "entry 1: not a JSON object"),
        ("t.json", '[{"prompt_len": 1,', "cut short"),
        ("t.json", '{"a": [1],\n"b": 2}', "no list of entries"),
        ("t.jsonl", '{"a": 1}', "no format has the columns 'a'"),
        ("t.csv", "a,b\n1,2\n", "no format has the columns 'a, b'"),
        ("t.csv", "a,a\n1,2\n", "names column 'a' twice"),
        ("t.csv", "arrival_s,prompt_tokens,outputs\n", "memorywall lacks `output_tokens`"),
        ("t.csv", "prompt_tokens,output_tokens\n1,1\n", "give an arrival process"),
        ("t.json", '[{"conversations": [{"value": "hi"}, {}]}]', "num_tokens"),
    ],
)
def test_files_that_are_no_trace(
    put: Callable[..., Path], name: str, content: str, rule: str
) -> None:
    path = put(content, name)
    process = Poisson(1.0) if "conversations" in content else None
    with pytest.raises(InputError, match=f"^{path}.*{rule}"):
        list(read_trace(path, arrivals=process))


def test_json_document_errors(put: Callable[..., Path]) -> None:
    good = '{"start_time": 1, "prompt_len": 1, "output_len": 1}'
    path = put(f'[{good}, {{"start_time": 1}}, {good}, 5, {good} oops', "t.json")
    with pytest.raises(InputError, match="entry 2: column `prompt_len` is missing"):
        list(read_trace(path))
    trace = read_trace(path, Selection(on_bad_row="skip"))
    assert len(list(trace)) == 3
    assert [reason.split(": ")[0].split(", ")[1] for reason in trace.reasons] == [
        "entry 2",
        "entry 4",
        "entry 6",
    ]


def test_long_json_document(put: Callable[..., Path]) -> None:
    """Entries that straddle the edges of what is held at a time."""
    many = [{"prompt_len": 1 + i, "output_len": 1, "note": "ä" * (i % 800)} for i in range(9000)]
    text = json.dumps({"date": 123456, "requests": many}, ensure_ascii=False)
    assert len(text) > 2**21
    found = read_trace(put(text, "t.json"), arrivals=Constant(1.0))
    assert [r.prompt for r in found] == [1 + i for i in range(9000)]


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_trace(path)


# Options -----------------------------------------------------------------------------------

TEN = OWN + "".join(f"{i}.3,{i},{i}\n" for i in range(1, 10))


def test_window_and_rate(put: Callable[..., Path]) -> None:
    path = put(TEN)
    assert [r.prompt for r in read_trace(path, Selection(window=(2.3, 5.3)))] == [2, 3, 4]
    assert short(read_trace(path, Selection(window=(2, 4))))[0] == (3 * S // 10, 2, 2)
    assert short(read_trace(path, Selection(window=(2, 4), rate_scale=3.0)))[0] == (S // 10, 2, 2)
    assert [r.arrival for r in read_trace(path, Selection(rate_scale=0.1))][1] == 13 * S
    assert [r.index for r in read_trace(path, Selection(window=(2, None)))] == list(range(8))
    # Half to even: 1.5 and 2.5 ticks become 2.
    tiny = put(OWN + "0.000000000003,1,1\n0.000000000005,1,1\n", "tiny.csv")
    assert [r.arrival for r in read_trace(tiny, Selection(rate_scale=2.0))] == [0, 2, 2]
    assert [r.prompt for r in read_trace(path, Selection(limit=3))] == [1, 1, 2]
    assert list(read_trace(path, Selection(limit=0))) == []


def test_window_stops_reading(put: Callable[..., Path]) -> None:
    trace = read_trace(put(TEN + "garbage\n"), Selection(window=(0, 5)))
    assert len(list(trace)) == 5


def test_wrong_options(put: Callable[..., Path]) -> None:
    path = put(TEN)
    wrong: list[dict[str, Any]] = [
        {"on_bad_row": "skp"},
        {"window": (3, 2)},
        {"window": (-1, 2)},
        {"window": (0, float("nan"))},
        {"rate_scale": 0},
        {"rate_scale": float("nan")},
        {"limit": -1},
        {"shuffle_seed": -1},
    ]
    for options in wrong:
        with pytest.raises(InputError):
            read_trace(path, Selection(**options))
    with pytest.raises(InputError):
        read_trace(path, seed=-1)


def test_shuffle(put: Callable[..., Path]) -> None:
    path = put(OWN + "".join(f"{i},{i + 1},{i + 2}\n" for i in range(1, 500)))
    plain = list(read_trace(path))
    mixed = list(read_trace(path, Selection(shuffle_seed=7)))
    assert mixed == list(read_trace(path, Selection(shuffle_seed=7)))
    assert mixed != plain
    assert mixed != list(read_trace(path, Selection(shuffle_seed=8)))
    assert [(r.index, r.arrival) for r in mixed] == [(r.index, r.arrival) for r in plain]
    assert sorted((r.prompt, r.output) for r in mixed) == [(r.prompt, r.output) for r in plain]
    few = read_trace(path, Selection(shuffle_seed=7, limit=20))
    assert sorted(r.prompt for r in few) == sorted(r.prompt for r in plain[:20])


def test_arrivals_of_a_process(put: Callable[..., Path]) -> None:
    path = put(TEN)
    drawn = read_trace(path, arrivals=Poisson(2.0), seed=3)
    assert [r.arrival for r in drawn] == list(islice(Poisson(2.0).ticks(3), 10))
    assert list(drawn) == list(drawn)
    assert {r.arrival for r in read_trace(path, arrivals=ClosedLoop(4))} == {0}
    assert len(list(read_trace(path, arrivals=Piecewise(((3.0, 1.0),))))) < 10
    with pytest.raises(InputError, match="106 days"):
        list(read_trace(put(OWN + "1,1,1\n" * 10, "long.csv"), arrivals=Constant(1e-6)))


def test_two_readings_do_not_mix(put: Callable[..., Path]) -> None:
    trace = read_trace(put(OWN + "x,1,1\n1,2,2\n"), Selection(on_bad_row="skip"))
    both = list(zip(trace, trace, strict=True))
    assert all(a == b for a, b in both)
    assert trace.skipped == 1


# Laws --------------------------------------------------------------------------------------

streams = st.lists(
    st.tuples(st.integers(0, 10**16), st.integers(1, 10**6), st.integers(1, 10**5)),
    min_size=1,
    max_size=8,
)


def decimal(ticks: int, unit: int) -> str:
    """Ticks in units of 10**unit ticks, exactly."""
    return f"{ticks // 10**unit}.{ticks % 10**unit:0{unit}d}"


def written(form: str, rows: list[tuple[int, int, int]]) -> str:
    """The rows as a file of the format."""
    if form == "mooncake":
        return "".join(
            f'{{"timestamp": {decimal(t, 9)}, "input_length": {p}, "output_length": {o}}}\n'
            for t, p, o in rows
        )
    if form == "llmservingsim":
        return "".join(
            f'{{"arrival_time_ns": {decimal(t, 3)}, "input_toks": {p}, "output_toks": {o}}}\n'
            for t, p, o in rows
        )
    if form == "distserve":
        objects = (
            f'{{"start_time": {decimal(t, 12)}, "prompt_len": {p}, "output_len": {o}}}'
            for t, p, o in rows
        )
        return "[" + ",\n".join(objects) + "]"
    header = {
        "burstgpt": "Timestamp,Model,Request tokens,Response tokens",
        "splitwise": "arrival_timestamp,batch_size,prompt_size,token_size",
        "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens",
        "memorywall": "arrival_s,prompt_tokens,output_tokens",
    }[form]
    middle = {"burstgpt": "GPT-4,", "splitwise": "1,"}.get(form, "")
    return header + "\n" + "".join(f"{decimal(t, 12)},{middle}{p},{o}\n" for t, p, o in rows)


@given(
    rows=streams,
    form=st.sampled_from(
        ["mooncake", "llmservingsim", "distserve", "burstgpt", "splitwise", "vidur", "memorywall"]
    ),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: Any, form: str) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    base = rows[0][0] if FORMATS[form].rebase else 0
    path = tmp_path_factory.getbasetemp() / ("t.jsonl" if "{" in written(form, rows) else "t.csv")
    path = path.with_suffix(".json") if form == "distserve" else path
    path.write_text(written(form, rows))
    trace = read_trace(path)
    assert trace.format == form
    assert short(trace) == [(t - base, p, o) for t, p, o in rows]


def survives(path: Path) -> None:
    """Requests or an InputError of one sentence, nothing else."""
    for mode in ("fail", "skip"):
        try:
            trace = read_trace(path, Selection(on_bad_row=mode), arrivals=None)  # type: ignore[arg-type]
            for request in trace:
                assert isinstance(request, Request)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


starts = st.sampled_from(
    [b"", b"[", b"{", b"[{", b"\x1f\x8b\x08\x00", OWN.encode(), AZURE.encode(), MOON.encode()]
)


@settings(max_examples=300)
@given(start=starts, rest=st.binary(max_size=200), suffix=st.sampled_from(["csv", "jsonl", "json"]))
def test_random_bytes(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"noise.{suffix}"
    path.write_bytes(start + rest)
    survives(path)


@settings(max_examples=300)
@given(data=st.data())
def test_mutated_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    name, content, _ = CASES[data.draw(st.sampled_from(sorted(CASES)))]
    raw = bytearray(content.encode())
    if data.draw(st.booleans()):
        raw = bytearray(gzip.compress(bytes(raw)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        new = data.draw(st.sampled_from([b"", b"-", b"9" * 30, b'"', b"e9", b"\xff", b"\n", b"}"]))
        raw[at : at + data.draw(st.integers(0, 3))] = new
        raw = raw or bytearray(b"\n")
    path = tmp_path_factory.getbasetemp() / ("mutated" + Path(name).suffix)
    path.write_bytes(bytes(raw))
    survives(path)


# Size --------------------------------------------------------------------------------------


def long_trace(path: Path, rows: int) -> Path:
    with path.open("w") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for i in range(rows):
            file.write(f"2023-11-{1 + i // 86400:02d} {i // 3600 % 24:02d}:{i // 60 % 60:02d}:")
            file.write(f"{i % 60:02d}.1234567,{1 + i % 4000},{1 + i % 300}\n")
    return path


def peak(requests: Iterator[Request]) -> int:
    tracemalloc.start()
    try:
        for _ in requests:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    """Three times the rows, the same peak: what is held is a block of them."""
    short_one = peak(iter(read_trace(long_trace(tmp_path / "short.csv", 20_000))))
    long_one = peak(iter(read_trace(long_trace(tmp_path / "long.csv", 60_000))))
    assert long_one < 1.1 * short_one
    assert long_one < 2 * 2**20


@pytest.mark.slow
def test_memory_of_a_json_document(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    objects = (
        {"start_time": i, "prompt_len": 1 + i % 9000, "output_len": 1} for i in range(60_000)
    )
    path.write_text(json.dumps(list(objects)))
    assert path.stat().st_size > 3 * 2**20
    assert peak(iter(read_trace(path))) < 6 * 2**20
