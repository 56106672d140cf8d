"""Encoder against decoder: where each stands before the memory wall, over batch and length.

    .venv/bin/python scripts/study_wall.py [FOLDER]

BERT-Base and GPT-2 have the same layers. On the CPU of the paper's Figure 9 the encoder leaves the
wall with a few tokens, since every weight that it reads serves all of them; the decoder needs a
batch for that, and behind a long prompt none is large enough, for its cache is read by nobody else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sim.studies.sweep.grid import sweep_of
from sim.studies.sweep.wall import WallMap, map_of, map_wall
from sim.studies.sweep.wall_plot import plot_walls

DEVICE, DTYPE = "xeon-gold-6242", "fp32"


def wall(model: str, phase: str, *grid: str) -> WallMap:
    """The map of a model over the first two axes of the grid."""
    base = {"model": model, "on": DEVICE, "dtype": DTYPE}
    return map_wall(sweep_of("run", base, grid), "memory", phase)


def compute() -> tuple[WallMap, WallMap]:
    """The maps of the encoder and of the decoder."""
    encoder = wall("bert-base", "all", "batch=1:64:x2", "seq=8:1024:x2")
    decoder = wall("gpt2", "decode", "batch=1:256:x2", "prompt=8:1024:x2", "output=2")
    return encoder, decoder


def described(maps: tuple[WallMap, WallMap]) -> list[object]:
    """Both maps as their files hold them."""
    return [map_of(one) for one in maps]


def draw(maps: tuple[WallMap, WallMap], folder: Path) -> list[Path]:
    """Both maps side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    title = f"The memory wall of an encoder and a decoder of the same size · {DEVICE} · {DTYPE}"
    return plot_walls(maps, folder / "study-wall", title)


def main(folder: Path) -> None:
    maps = encoder, decoder = compute()
    for name, found in (("BERT-Base", encoder), ("GPT-2, decode", decoder)):
        for crossing in found.crossings:
            print(f"{name}, {found.sentence(crossing)}")
        free = [y for y, row in zip(found.y.values, found.share, strict=True) if max_of(row) < 0.5]
        held = [y for y, row in zip(found.y.values, found.share, strict=True) if min_of(row) > 0.5]
        print(f"{name}: less than half of the time on memory at any batch: {free or 'nowhere'}")
        print(f"{name}: more than half of the time on memory at every batch: {held or 'nowhere'}")
    for path in draw(maps, folder):
        print(f"written to {path}")


def max_of(row: list[float | None]) -> float:
    return max(v for v in row if v is not None)


def min_of(row: list[float | None]) -> float:
    return min(v for v in row if v is not None)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
