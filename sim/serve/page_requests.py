"""The table of requests in a report; a click on one opens its own time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.output.html.charts import bar_look
from sim.output.html.tables import Column, DataTable, Panel, Part, rounded_rows, spread_out
from sim.serve.live import PARTS
from sim.serve.plots import PART_COLOURS, PART_NAMES

if TYPE_CHECKING:
    import polars as pl

MOST_ROWS = 10_000  # more make the page large and slow
SLOWEST = 2000  # of these, if there are more requests
# Column of the table -> (head, units per second where it is a time). Times have their unit there.
SHOWN = {
    "replica": ("replica", 0),
    "arrival_s": ("arrival (s)", 1),
    "prompt_tokens": ("prompt tokens", 0),
    "output_tokens": ("output tokens", 0),
    "ttft_s": ("TTFT (ms)", 1000),
    "tpot_s": ("TPOT (ms)", 1000),
    "e2e_s": ("E2E (ms)", 1000),
    "queuing_delay_s": ("queuing delay (ms)", 1000),
    "preemptions": ("preemptions", 0),
    "prefix_hit_tokens": ("prefix hits (tokens)", 0),
}


def request_table(requests: pl.DataFrame) -> DataTable:
    """A row a request. Of a large run: the slowest, and others at equal distances."""
    shown = requests if requests.height <= MOST_ROWS else _some(requests)
    named = "id" in shown.columns
    heads = [Column("request"), *([Column("id")] if named else [])]
    heads += [Column(head) for head, _ in SHOWN.values()]
    first = len(heads)
    heads += [Column(f"{PART_NAMES[p]} (ms)", hidden=True) for p in PARTS]
    parts = [Part(first + i, PART_NAMES[p], PART_COLOURS[p]) for i, p in enumerate(PARTS)]
    columns = [shown["index"], *([shown["id"].cast(str).fill_null("")] if named else [])]
    columns += [shown[n] * per if per else shown[n] for n, (_, per) in SHOWN.items()]
    columns += [shown[f"{p}_s"] * 1000 for p in PARTS]
    note = "Click a row for the request's own time. TPOT is 0 for a request of one token."
    if shown.height < requests.height:
        note += (
            f" The table holds {shown.height:,} of {requests.height:,} requests: the "
            f"{SLOWEST:,} with the longest E2E, and others at equal distances."
        )
    return DataTable(
        "requests",
        heads,
        rounded_rows(zip(*(c.to_list() for c in columns), strict=True)),
        note,
        panel=Panel("Request", "ms", parts, bar_look("from arrival to the last token (ms)")),
    )


def _some(requests: pl.DataFrame) -> pl.DataFrame:
    """The slowest requests and some of the others, in their order."""
    ordered = requests.sort("e2e_s", descending=True)
    others = ordered[SLOWEST:].sort("index")
    kept = others[list(spread_out(others.height, MOST_ROWS - SLOWEST))]
    return ordered[:SLOWEST].extend(kept).sort("index")
