"""Rows of a run as packed columns: cheap to append, and sorted tables at the end.

A row is a run of 64-bit integers in one buffer, so a million requests take 160 MB and no object
is kept. `spill` bounds that: full chunks go to Parquet parts, and `collect` puts parts and buffer
together a window of indices at a time. Both ways give the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sim.clock import TICKS_PER_SECOND
from sim.errors import InputError, one_line
from sim.output.cells import safe_frame
from sim.output.files import atomic_write
from sim.serve.live import PARTS, Finished, StageRow, StepRow
from sim.states import STATES

if TYPE_CHECKING:
    import polars as pl

Column = NDArray[np.int64]

WINDOW = 100_000  # rows that are put together at a time, and rows of a Parquet row group
CHUNK = 200_000  # rows of a part
_NEVER = 2**63

PART_COLUMNS = tuple(f"{part}_ps" for part in PARTS)
STATE_COLUMNS = tuple(f"{state}_ps" for state in STATES[:5])
_TIMES = ("arrival", "scheduled", "first_token", "last_token")
_COUNTS = ("prompt_tokens", "output_tokens", "preemptions", "prefix_hit_tokens")
_REQUEST = (
    *("index", "replica", *(f"{t}_ps" for t in _TIMES), *_COUNTS),
    *("device_share_ps", *PART_COLUMNS),
)
_STEP = (
    *("start_ps", "duration_ps", "prefill_tokens", "decode_tokens"),
    *("running", "waiting", "kv_blocks", *STATE_COLUMNS, "flops", "hbm_bytes"),
)
_STAGE = (
    *("step", "stage", "start_ps", "duration_ps"),
    *(*STATE_COLUMNS, "flops", "hbm_bytes"),
)


def _packer(count: int) -> Callable[..., bytes]:
    """A function from `count` whole numbers of 64 bits to their bytes: packing a whole row at once
    is three times as fast as an append a column. It raises InputError for a larger number."""
    pack = struct.Struct(f"{count}q").pack

    def packed(*numbers: int) -> bytes:
        try:
            return pack(*numbers)
        except struct.error:
            raise InputError(
                "a time of the run is beyond 106 days, or a step beyond 2^63 FLOPs or bytes; lower "
                "the work or check the rates"
            ) from None

    return packed


_PACK_REQUEST, _PACK_STEP, _PACK_STAGE = (_packer(len(n)) for n in (_REQUEST, _STEP, _STAGE))


class Rows(Protocol):
    """Columns of whole numbers: of a run at hand, or of a table that was read back."""

    def column(self, name: str) -> Column:
        """One column of all rows."""
        ...


class StepRows(Rows, Protocol):
    """The steps of one replica."""

    replica: int


class _Store:
    """A buffer of packed rows, and the parts that were written of it."""

    names: tuple[str, ...] = ()
    stem = "part"

    def __init__(self) -> None:
        self.rows = bytearray()
        self.parts: list[Path] = []
        self.folder: Path | None = None
        self.limit = _NEVER  # bytes of a full chunk
        self.spilled = 0  # rows in parts

    def __len__(self) -> int:
        return self.spilled + len(self.rows) // (8 * len(self.names))

    def spill(self, folder: Path, rows: int = CHUNK) -> None:
        """From now on, write every `rows` rows into a part in `folder`, which is this store's
        own until `collect` has read it; the caller removes it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.limit = folder, 8 * len(self.names) * rows

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, Column]]:
        """Columns of some rows at a time, in the order of appending; at least one block."""
        if self.parts:
            import polars as pl
        for part in self.parts:
            table = pl.read_parquet(part, columns=list(names))
            yield {name: table[name].to_numpy() for name in names}
        rows = self._buffer()
        yield {name: rows[:, self.names.index(name)].copy() for name in names}

    def column(self, name: str) -> Column:
        """One column of all rows, in the order of appending."""
        return np.concatenate([block[name] for block in self.blocks([name])])

    def frame(self) -> pl.DataFrame:
        """The finished table: requests sorted by index, steps in order; times in seconds and in
        picoseconds."""
        import polars as pl

        return pl.concat(list(self.frames()))

    def frames(self) -> Iterator[pl.DataFrame]:
        """`frame()` piece by piece; at least one, if only for its columns."""
        raise NotImplementedError

    def _buffer(self) -> Column:
        """A view of the rows in memory. It must not live on: a viewed buffer cannot grow."""
        return np.frombuffer(self.rows, np.int64).reshape(-1, len(self.names))

    def _table(self) -> pl.DataFrame:
        """The rows in memory, in the order of appending."""
        import polars as pl

        rows = self._buffer()
        return pl.DataFrame({n: rows[:, i].copy() for i, n in enumerate(self.names)})

    def _write(self) -> None:
        """Move the rows in memory into a part."""
        import polars as pl

        assert self.folder is not None
        path = self.folder / f"{self.stem}-{len(self.parts):06d}.parquet"
        table = self._table()
        try:
            table.write_parquet(path)
        except pl.exceptions.ComputeError as error:  # how polars tells of a full disk
            raise InputError(
                f"{self.folder}: finished rows cannot be kept there ({one_line(str(error))}); make "
                "room, or name another folder in TMPDIR"
            ) from None
        self.parts.append(path)
        self.spilled += table.height
        self._clear()

    def _clear(self) -> None:
        self.rows = bytearray()


class RequestColumns(_Store):
    """What became of the requests, of one replica or of many."""

    names = _REQUEST
    stem = "requests"

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.named = False  # some request has an id

    def append(self, row: Finished) -> None:
        self.rows += _PACK_REQUEST(
            row.index,
            row.replica,
            row.arrival,
            row.scheduled,
            row.first_token,
            row.last_token,
            row.prompt,
            row.output,
            row.preemptions,
            row.prefix_hit_tokens,
            row.device_share,
            *row.account,
        )
        self.ids.append(row.id)
        if len(self.rows) >= self.limit:
            self._write()

    def absorb(self, other: RequestColumns) -> None:
        """Take over the rows and parts of another store, e.g. of another process."""
        self.rows += other.rows
        self.ids += other.ids
        self.parts += other.parts
        self.spilled += other.spilled
        self.named |= other.named

    def collect(self, path: Path) -> Path:
        """Write `frame()` as CSV or Parquet, by the name of the file, in bounded memory."""
        return _sink(self.frames, path)

    def frames(self) -> Iterator[pl.DataFrame]:
        """`frame()` in windows of indices."""
        import polars as pl

        named = self.named or any(self.ids)
        here = self._table().sort("index", maintain_order=True)
        parts = pl.scan_parquet(self.parts) if self.parts else None
        tops = [here["index"].max()] if here.height else []
        if parts is not None:
            tops.append(parts.select(pl.max("index")).collect().item())
        top = max((int(t) for t in tops if isinstance(t, int)), default=0)
        index = here["index"].to_numpy()
        for low in range(0, top + 1, WINDOW):
            begin, end = np.searchsorted(index, (low, low + WINDOW))
            rows = here[int(begin) : int(end)]
            if parts is not None:
                inside = pl.col("index").is_between(low, low + WINDOW, closed="left")
                rows = pl.concat([parts.filter(inside).collect(), rows])
                rows = rows.sort("index", maintain_order=True)
            if rows.height or not low:
                yield _request_columns(rows, named)

    def _table(self) -> pl.DataFrame:
        import polars as pl

        return super()._table().with_columns(pl.Series("id", self.ids, pl.String))

    def _clear(self) -> None:
        super()._clear()
        self.named |= any(self.ids)
        self.ids = []


class StepColumns(_Store):
    """The steps of one replica, in order."""

    names = _STEP

    def __init__(self, replica: int) -> None:
        super().__init__()
        self.replica = replica
        self.stem = f"steps-{replica}"

    def append(self, row: StepRow) -> None:
        self.rows += _PACK_STEP(
            row.start,
            row.duration,
            row.prefill_tokens,
            row.decode_tokens,
            row.running,
            row.waiting,
            row.kv_blocks,
            *row.states,
            row.flops,
            row.hbm_bytes,
        )
        if len(self.rows) >= self.limit:
            self._write()

    def frames(self) -> Iterator[pl.DataFrame]:
        """`frame()` part by part."""
        import polars as pl

        for part in self.parts:
            yield _numbered(pl.read_parquet(part), self.replica, self.names)
        here = self._table()
        for low in range(0, max(1, here.height), WINDOW):
            yield _numbered(here[low : low + WINDOW], self.replica, self.names)


class StageColumns(StepColumns):
    """The steps of one replica in each of its pipeline stages, in the order of their start."""

    names = _STAGE

    def __init__(self, replica: int) -> None:
        super().__init__(replica)
        self.stem = f"stages-{replica}"

    def add(self, row: StageRow) -> None:
        self.rows += _PACK_STAGE(
            row.step,
            row.stage,
            row.start,
            sum(row.states),
            *row.states,
            row.flops,
            row.hbm_bytes,
        )
        if len(self.rows) >= self.limit:
            self._write()


def collect_steps(stores: Sequence[StepColumns], path: Path) -> Path:
    """Write the rows of all replicas, in their order, as CSV or Parquet."""
    ordered = sorted(stores, key=lambda store: store.replica) or [StepColumns(0)]
    return _sink(lambda: (frame for store in ordered for frame in store.frames()), path)


def _seconds(table: pl.DataFrame, name: str) -> Column | NDArray[np.float64]:
    # numpy divides; polars multiplies by the inverse, which is off in the last digit.
    return table[f"{name}_ps"].to_numpy() / TICKS_PER_SECOND


def _request_columns(t: pl.DataFrame, named: bool) -> pl.DataFrame:
    import polars as pl

    arrival, scheduled, first, last = (t[f"{name}_ps"].to_numpy() for name in _TIMES)
    gaps = np.maximum(1, t["output_tokens"].to_numpy() - 1)
    spans = {
        "ttft_s": first - arrival,
        "tpot_s": np.where(t["output_tokens"].to_numpy() > 1, (last - first) / gaps, 0.0),
        "e2e_s": last - arrival,
        "queuing_delay_s": scheduled - arrival,
    }
    parts = ("device_share", *PARTS)
    return pl.DataFrame(
        {
            "index": t["index"],
            **({"id": t["id"]} if named else {}),
            "replica": t["replica"],
            **{f"{name}_s": _seconds(t, name) for name in _TIMES},
            **{name: t[name] for name in _COUNTS},
            **{name: ticks / TICKS_PER_SECOND for name, ticks in spans.items()},
            **{f"{name}_s": _seconds(t, name) for name in parts},
            **{f"{name}_ps": t[f"{name}_ps"] for name in (*_TIMES, *parts)},
        }
    )


def _numbered(t: pl.DataFrame, replica: int, names: tuple[str, ...]) -> pl.DataFrame:
    import polars as pl

    times = {f"{name}_s": _seconds(t, name) for name in ("start", "duration")}
    number = np.full(t.height, replica, np.int64)
    return pl.DataFrame({"replica": number, **times, **{n: t[n] for n in names}})


def _sink(frames: Callable[[], Iterator[pl.DataFrame]], path: Path) -> Path:
    """Write frames behind one another; where one ends leaves no mark in the file."""
    with atomic_write(path) as temporary:
        if path.suffix == ".csv":
            with temporary.open("wb") as file:
                for number, frame in enumerate(frames()):
                    safe_frame(frame).write_csv(file, include_header=number == 0)
            return path
        from polars.io.plugins import register_io_source

        def source(*_: object) -> Iterator[pl.DataFrame]:
            return frames()

        schema = next(frames()).schema
        lazy = register_io_source(source, schema=schema)
        lazy.sink_parquet(temporary, maintain_order=True, row_group_size=WINDOW)
    return path
