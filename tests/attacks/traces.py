"""Request traces with cells, lines, bytes and streams gone wrong."""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import polars as pl

from attacks.commands import QUICK, TINY, Attempt

Content = bytes | Callable[[], bytes]
ROWS: dict[str, tuple[str, str]] = {
    "memorywall": ("arrival_s,prompt_tokens,output_tokens", "{i},16,4"),
    "azure": ("TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:17:0{i}.97,16,4"),
    "burstgpt": (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        "{i},ChatGPT,16,4,20,API log",
    ),
    "splitwise": ("request_id,arrival_timestamp,prompt_size,token_size", "{i},{i},16,4"),
    "vidur": ("arrived_at,num_prefill_tokens,num_decode_tokens", "{i},16,4"),
    "distserve": ("start_time,prompt_len,output_len", "{i},16,4"),
}
BAD_CELLS = (
    *("", " ", "nan", "inf", "-inf", "Infinity", "-1", "1.5", "1e400", "１２", "0x10", "x" * 500),
    *("=1+1", "\x1b[2J", "9" * 4000, "null", '"', "1,1", "2023-13-45 99:99:99", "\xff"),
)
JSON_LINES = (
    '{"timestamp": NaN, "input_length": 16, "output_length": 4}',
    '{"timestamp": 1, "timestamp": 2, "input_length": 16, "output_length": 4}',
    '{"timestamp": 1, "input_length": 1e999, "output_length": 4}',
    '{"timestamp": 1, "input_length": 16, "output_length": 4, "hash_ids": [-1]}',
    '{"timestamp": 1, "input_length": 16, "output_length": 4, "hash_ids": "x"}',
    '{"timestamp": 1, "input_length": 16, "output_length": 4, "unused": Infinity}',
    '{"timestamp": 1, "input_length": 16, "output_length": 4, "a": ' + "[" * 50_000,
    '{"timestamp": 1, "input_length": [16], "output_length": {"a": 4}}',
    '{"timestamp": 1, "input_length": ' + "9" * 5000 + ', "output_length": 4}',
    '{"timestamp": "1", "input_length": true, "output_length": 4}',
    '{"timestamp": 1, "input_length": 16',
    "[1, 2, 3]",
    '"x"',
    "{}",
    "nonsense",
)


def traces(folder: Path) -> Iterator[Attempt]:
    """Trace files with cells, lines, bytes and streams gone wrong."""
    for number, (name, content) in enumerate(_files()):
        path = folder / f"{number}-{name}"
        prepare = partial(_write, path, content)
        for flag in ("fail", "skip"):
            words = ("serve", *TINY, *QUICK, "--trace", str(path), "--on-bad-row", flag)
            yield Attempt(f"trace {number} {name} {flag}", words, prepare)


def _write(path: Path, content: Content) -> None:
    if not path.exists():
        path.write_bytes(content if isinstance(content, bytes) else content())


def _files() -> Iterator[tuple[str, Content]]:
    for name, (header, row) in ROWS.items():
        good = [header, *(row.format(i=i) for i in range(4))]
        for column in range(header.count(",") + 1):
            for bad in BAD_CELLS:
                cells = good[2].split(",")
                cells[column] = bad
                lines = [*good[:2], ",".join(cells), *good[3:]]
                yield f"{name}.csv", "\n".join(lines).encode().replace("\xff".encode(), b"\xff")
        whole = "\n".join(good).encode()
        yield from _damaged(name, whole)
    first = '{"timestamp": 0, "input_length": 16, "output_length": 4}'
    for line in JSON_LINES:
        yield "mooncake.jsonl", f"{first}\n{line}\n".encode()
        yield "mooncake.json", f"[{first},\n{line}]".encode()
    yield from _bombs()


def _damaged(name: str, whole: bytes) -> Iterator[tuple[str, bytes]]:
    yield f"{name}.csv", whole[: len(whole) // 2]
    yield f"{name}.csv", b"\xef\xbb\xbf" + whole
    yield f"{name}.csv", whole.replace(b"\n", b"\r\n")
    yield f"{name}.csv", whole.replace(b"\n", b"\r")
    yield f"{name}.csv", whole.replace(b",", b";")
    yield f"{name}.csv", whole + b"\x00" * 1000
    yield f"{name}.csv", whole.split(b"\n")[0]
    yield f"{name}.csv", whole.split(b"\n", 1)[1]
    packed = gzip.compress(whole)
    yield f"{name}.csv.gz", packed[:-9]
    yield f"{name}.csv.gz", packed[:20] + b"\xff" * 8 + packed[28:]
    yield f"{name}.csv.gz", packed + b"rest"
    yield f"{name}.csv.zst", b"\x28\xb5\x2f\xfd" + whole
    yield f"{name}.parquet", b"PAR1" + whole + b"PAR1"


def _bombs() -> Iterator[tuple[str, Content]]:
    header = b"arrival_s,prompt_tokens,output_tokens\n0,16,4\n"
    for stretch in (b"\n", b" ", b"0", b"\x00", b"[", b'{"a":', b'"', b",", b"\r\n"):
        yield "bomb.csv.gz", partial(_packed, header, stretch)
        yield "bomb.json.gz", partial(_packed, b"[", stretch)
        yield "bomb.csv", header + stretch * (2**22 // len(stretch))
    yield "bomb.parquet", partial(_parquet, {"more": "x"}, 3_000_000)
    yield "long-cell.parquet", partial(_parquet, {"more": "x" * 2_000_000}, 2)
    yield "nested.parquet", partial(_parquet, {"more": [{"a": [math.nan]}]}, 4)
    yield "bomb-twice.csv.gz", lambda: gzip.compress(_packed(header, b"\n"), 1)


def _parquet(more: dict[str, object], rows: int) -> bytes:
    """A trace as Parquet with a column that nobody reads, its cells all alike."""
    good = {"arrival_s": 0, "prompt_tokens": 16, "output_tokens": 4}
    content = io.BytesIO()
    pl.DataFrame({k: [v] * rows for k, v in {**good, **more}.items()}).write_parquet(content)
    return content.getvalue()


def _packed(start: bytes, stretch: bytes) -> bytes:
    """More than a compressed file may grow to, of one stretch repeated."""
    return gzip.compress(start + stretch * (80 * 2**20 // len(stretch)), 1)
