"""Samples of traces by name, and the profile of a trace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim import InputError
from sim.inputs.traces import FORMATS, read_trace
from sim.inputs.traces.profile import profile_of
from sim.inputs.traces.samples import samples, trace_path
from workloads.request import Request
from workloads.synthetic import Constant, Fixed, Poisson, synthetic

COMMAND = str(Path(sys.executable).with_name("memorywall"))
WHOLE = Path(__file__).parents[2] / "shared" / "data" / "traces"
PUBLISHED = {
    "azure-conv-2023-sample": "AzureLLMInferenceTrace_conv.csv",
    "azure-code-2023-sample": "AzureLLMInferenceTrace_code.csv",
    "mooncake-conversation-sample": "mooncake_conversation_head4000.jsonl",
    "vidur-arxiv-sample": "vidur_arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_sample_has_its_rows_and_states_its_source(name: str) -> None:
    sample = samples()[name]
    requests = list(read_trace(name, lengths_alone=Constant(1.0)))
    assert len(requests) == sample.rows
    assert sample.source
    assert sample.licence
    assert sample.whole.startswith("https://github.com/")


@pytest.mark.parametrize(("name", "file"), PUBLISHED.items())
def test_a_sample_is_the_beginning_of_the_published_file(name: str, file: str) -> None:
    if not (WHOLE / file).exists():
        pytest.skip(f"{file} is not at hand")
    mine = trace_path(name).read_text().splitlines()
    assert (WHOLE / file).read_text().splitlines()[: len(mine)] == mine


def test_a_name_that_is_no_sample_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(InputError, match="did you mean 'azure-co"):
        trace_path("azure-conv")
    assert trace_path("some/file") == Path("some/file")
    assert trace_path("file.csv") == Path("file.csv")


def test_the_profile_of_known_requests() -> None:
    second = 10**12
    rows = [
        Request(0, 0, 100, 10, (1, 2), 64, session="a"),
        Request(1, 1 * second, 200, 20, (1, 2, 3, 4), 64, session="a"),
        Request(2, 4 * second, 300, 30, session="b"),
    ]
    found = profile_of(rows)
    assert (found.requests, found.span_s, found.rate) == (3, 4.0, 0.5)
    assert found.burstiness == pytest.approx(np.std([1, 3]) / 2)
    assert (found.prompt.mean, found.prompt.percentiles[0], found.prompt.largest) == (200, 200, 300)
    assert found.output.mean == 20
    assert found.sessions == 1
    # Blocks of 64 tokens: 64 + 36 of the first, 64 + 64 + 64 + 8 of the second, 64 + 64 seen.
    assert found.shared_prompt == pytest.approx(128 / (100 + 200))
    untimed = profile_of(rows, timed=False)
    assert (untimed.rate, untimed.burstiness) == (None, None)
    with pytest.raises(ValueError, match="holds no request"):
        profile_of([])


@pytest.mark.parametrize(("process", "burstiness"), [(Poisson(5.0), 1.0), (Constant(5.0), 0.0)])
def test_the_burstiness_of_processes(process: Poisson | Constant, burstiness: float) -> None:
    rows = synthetic(20_000, process, Fixed(9), Fixed(3), 1)
    found = profile_of(rows)
    assert found.rate == pytest.approx(5.0, rel=0.03)
    assert found.burstiness == pytest.approx(burstiness, abs=0.03)


def test_the_commands() -> None:
    def memorywall(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, *words], capture_output=True, text=True, check=False)

    listed = memorywall("traces").stdout
    assert all(name in listed for name in samples())
    assert all(len(line) <= 80 for line in listed.splitlines())
    shown = memorywall("traces", "show", "azure-conv-2023-sample")
    for word in ("600 requests", "requests/s, burstiness 1.27", "922.3", "4,107", "CC-BY-4.0"):
        assert word in shown.stdout
    lengths = memorywall("traces", "show", "vidur-arxiv-sample").stdout
    assert "no arrival times; give --arrivals" in lengths
    wrong = memorywall("traces", "show", "azure")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    served = memorywall(
        *("serve", "gpt2", "--on", "h100-sxm", "--trace", "azure-conv-2023-sample", "--limit", "5")
    )
    assert "5 requests" in served.stdout
    assert all(FORMATS[read_trace(name, lengths_alone=Constant(1.0)).format] for name in samples())
