"""The formats of public traces: the columns that tell one, and how a row is read.

A new format is one function from a row to an `Entry` and one line in `FORMATS`. Columns of
the sources: Azure/AzurePublicDataset, microsoft/vidur, Mutinifni/splitwise-sim,
kvcache-ai/Mooncake, HPMLL/BurstGPT, casys-kaist/LLMServingSim, LLMServe/DistServe.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import NamedTuple

import msgspec

from sim.clock import LONGEST
from sim.errors import quoted
from sim.inputs.traces.values import (
    MILLISECONDS,
    NANOSECONDS,
    SECONDS,
    BadRow,
    Row,
    integer,
    text,
    time,
    tokens,
    wall_clock,
)

MOONCAKE_BLOCK = 512


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What a row holds: one request, or the calls of a session, the later ones in `then`.

    time: ticks on the clock of the trace, None if it has none.
    delay: ticks from the end of the call before (of a later call).
    """

    time: int | None
    prompt: int
    output: int
    hashes: tuple[int, ...] = ()
    hash_tokens: int = 0
    priority: int = 0
    id: str = ""
    session: str = ""
    delay: int = 0
    then: tuple[Entry, ...] = ()


class Format(NamedTuple):
    """A format of traces.

    parse: a row as an entry; None for a request that the trace records as failed.
    columns: sets of columns, one of which a file must have.
    timed: whether rows say when their request came.
    rebase: whether the clock starts anywhere, so that the first row is time 0.
    """

    parse: Callable[[Row], Entry | None]
    columns: tuple[frozenset[str], ...]
    timed: bool = True
    rebase: bool = False


def azure(row: Row) -> Entry:
    """Images of the 2025 multimodal trace are already in the context's tokens."""
    return Entry(
        wall_clock(row, "TIMESTAMP"), tokens(row, "ContextTokens"), tokens(row, "GeneratedTokens")
    )


def mooncake(row: Row) -> Entry:
    """Hash ids name blocks of 512 prompt tokens; the last block may be partial."""
    prompt = tokens(row, "input_length")
    ids = row.get("hash_ids", [])
    if not isinstance(ids, list) or not all(type(i) is int and -1 < i < 2**63 for i in ids):
        raise BadRow("must be a list of whole numbers from 0 on", "hash_ids", ids)
    if (len(ids) - 1) * MOONCAKE_BLOCK >= prompt:
        raise BadRow(f"more blocks of 512 than {prompt} tokens fill", "hash_ids", ids)
    return Entry(
        time(row, "timestamp", MILLISECONDS),
        prompt,
        tokens(row, "output_length"),
        tuple(ids),
        MOONCAKE_BLOCK,
    )


def burstgpt(row: Row) -> Entry | None:
    """No response tokens mark a failed request; its session is kept where there is one."""
    output = tokens(row, "Response tokens", least=0)
    if output == 0:
        return None
    return Entry(
        time(row, "Timestamp", SECONDS),
        tokens(row, "Request tokens"),
        output,
        session=text(row, "Session ID"),
    )


def splitwise(row: Row) -> Entry:
    """A row is one sequence; batches of several are refused."""
    if row.get("batch_size") and integer(row, "batch_size") != 1:
        raise BadRow("must be 1, a row is one sequence", "batch_size", row["batch_size"])
    return Entry(
        time(row, "arrival_timestamp", SECONDS),
        tokens(row, "prompt_size"),
        tokens(row, "token_size"),
        id=text(row, "request_id"),
    )


def vidur(row: Row) -> Entry:
    return Entry(
        time(row, "arrived_at", SECONDS),
        tokens(row, "num_prefill_tokens"),
        tokens(row, "num_decode_tokens"),
    )


def vidur_lengths(row: Row) -> Entry:
    return Entry(None, tokens(row, "num_prefill_tokens"), tokens(row, "num_decode_tokens"))


def llmservingsim(row: Row) -> Entry:
    """A request, or a session: calls of which each comes a tool's time after the last one.

    Token ids are not read.
    """
    at = time(row, "arrival_time_ns", NANOSECONDS)
    if "sub_requests" not in row:
        return Entry(at, tokens(row, "input_toks"), tokens(row, "output_toks"))
    calls = row["sub_requests"]
    if not isinstance(calls, list) or not calls or not all(isinstance(c, dict) for c in calls):
        raise BadRow("must be a list of at least one call", "sub_requests", calls)
    session = text(row, "session_id")
    # A call states the time after itself; an entry states the time before itself.
    delays = [0, *(_tool_time(call) for call in calls)]
    first, *rest = (
        Entry(at, tokens(c, "input_toks"), tokens(c, "output_toks"), session=session, delay=d)
        for c, d in zip(calls, delays, strict=False)
    )
    return msgspec.structs.replace(first, then=tuple(rest))


def _tool_time(call: Row) -> int:
    if "tool_duration_ns" not in call:
        return 0
    duration = time(call, "tool_duration_ns", NANOSECONDS)
    if duration >= LONGEST:
        raise BadRow("is beyond 106 days", "tool_duration_ns", call["tool_duration_ns"])
    return duration


def distserve(row: Row) -> Entry:
    return Entry(
        time(row, "start_time", SECONDS), tokens(row, "prompt_len"), tokens(row, "output_len")
    )


def sharegpt(row: Row) -> Entry:
    """Lengths alone: given as such, or as `num_tokens` of the first two turns.

    Those two are what serving benchmarks take of a conversation.
    """
    if "prompt_len" in row:
        return Entry(None, tokens(row, "prompt_len"), tokens(row, "output_len"))
    turns = row.get("conversations")
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(t, dict) for t in turns):
        raise BadRow("must be a list of at least two turns", "conversations", turns)
    if "num_tokens" not in turns[0]:
        raise BadRow("turns need `num_tokens`; count them with the model's tokenizer first")
    return Entry(
        None, tokens(turns[0], "num_tokens"), tokens(turns[1], "num_tokens"), id=text(row, "id")
    )


def vllm_run(row: Row) -> Entry:
    """The requests of a vLLM run, with the times that were measured beside them."""
    return Entry(
        time(row, "arrival_s", SECONDS),
        tokens(row, "input_tokens"),
        tokens(row, "output_tokens"),
        id=text(row, "request_id"),
    )


def own(row: Row) -> Entry:
    """Our own columns; 0 output tokens are a pass through an encoder."""
    return _own(row, time(row, "arrival_s", SECONDS))


def own_lengths(row: Row) -> Entry:
    return _own(row, None)


def _own(row: Row, at: int | None) -> Entry:
    return Entry(
        at,
        tokens(row, "prompt_tokens"),
        tokens(row, "output_tokens", least=0),
        priority=0 if row.get("priority") in (None, "") else integer(row, "priority"),
        id=text(row, "id"),
        session=text(row, "session"),
    )


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split(","))


FORMATS: dict[str, Format] = {
    "azure": Format(azure, (_set("TIMESTAMP,ContextTokens,GeneratedTokens"),), rebase=True),
    "mooncake": Format(mooncake, (_set("timestamp,input_length,output_length"),)),
    "burstgpt": Format(
        burstgpt, (_set("Timestamp,Model,Request tokens,Response tokens"),), rebase=True
    ),
    "splitwise": Format(splitwise, (_set("arrival_timestamp,prompt_size,token_size"),)),
    "vidur": Format(vidur, (_set("arrived_at,num_prefill_tokens,num_decode_tokens"),)),
    "vidur-lengths": Format(
        vidur_lengths, (_set("num_prefill_tokens,num_decode_tokens"),), timed=False
    ),
    "llmservingsim": Format(
        llmservingsim,
        (_set("arrival_time_ns,input_toks,output_toks"), _set("arrival_time_ns,sub_requests")),
    ),
    "distserve": Format(distserve, (_set("start_time,prompt_len,output_len"),), rebase=True),
    "sharegpt": Format(
        sharegpt, (_set("prompt_len,output_len"), _set("conversations")), timed=False
    ),
    "vllm-run": Format(vllm_run, (_set("arrival_s,input_tokens,output_tokens"),)),
    "memorywall": Format(own, (_set("arrival_s,prompt_tokens,output_tokens"),)),
    "memorywall-lengths": Format(own_lengths, (_set("prompt_tokens,output_tokens"),), timed=False),
}


def tell(columns: frozenset[str]) -> str:
    """The name of the format with these columns; the one that uses most of them.

    Raises ValueError, naming the nearest format, if there is none.
    """
    known = [(needed, name) for name, form in FORMATS.items() for needed in form.columns]
    fitting = [(len(needed), name) for needed, name in known if needed <= columns]
    if fitting:
        return max(fitting)[1]
    share = [(len(needed & columns) / len(needed), name, needed) for needed, name in known]
    most, name, needed = max(share, key=lambda item: item[0])
    # A file of something else shows no more than its first words.
    shown = quoted(", ".join(sorted(columns))) if columns else "none"
    if most == 0:
        first = min(columns, default="")[:40]
        near = get_close_matches(first, {c for n, _ in known for c in n}, n=1)
        tip = f" (did you mean `{near[0]}`?)" if near else ""
        raise ValueError(f"no format has the columns {shown}{tip}; known: {', '.join(FORMATS)}")
    missing = ", ".join(f"`{column}`" for column in sorted(needed - columns))
    raise ValueError(f"no format has the columns {shown}; {name} lacks {missing}")
