"""The pictures of the pages, drawn again, and the data behind them.

    .venv/bin/python scripts/pictures.py [RECIPE ...]

A recipe is a command of memorywall, a study of this folder, or the paper. Its pictures go to
`.pictures`, and its data to `.pictures/data.json`: small tables and documents as they are, of large
ones the number of rows and a digest. `tests/test_pictures.py` computes the data again and compares
them. The loop needs a machine to measure; `study_loop.py` draws its picture.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".pictures"
DATA = FOLDER / "data.json"
COMMAND = Path(sys.executable).with_name("memorywall")
LARGE = 6000  # characters of data that are kept as a digest
DROPPED = ("version", "memorywall")  # a new version does not change a picture
MEASURED = {"loop": "scripts/study_loop.py"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How pictures come about.

    pictures: name in `.pictures` -> name in the folder of the result. files: those with the data.
    """

    how: str
    pictures: Mapping[str, str]
    files: tuple[str, ...] = ()
    slow: bool = True

    @property
    def study(self) -> str:
        """The module of the study, or ""."""
        return self.how if self.how.startswith("study_") else ""

    def make(self, folder: Path, draw: bool) -> dict[str, Any]:
        """Compute the data, and draw the pictures into a folder if asked to."""
        if self.study:
            module = importlib.import_module(self.study)
            found = module.compute()
            if draw:
                module.draw(found, folder)
            return {"drawn": kept(module.described(found))}
        if self.how == "paper":
            from sim.studies.paper import reproduce

            sections = reproduce(folder if draw else None, draw).sections
            shown = ("Fig 4", "Fig 5", "Fig 6", "Fig 9")
            return {
                name: kept({f"{c.row}, {c.column}": [c.ours, c.printed] for c in one.cells})
                for one in sections
                if (name := one.title.partition(":")[0]) in shown
            }
        words = [*shlex.split(self.how), "--out", str(folder)]
        pictures = [] if draw else ["--no-pictures"]
        subprocess.run([COMMAND, *words, *pictures], check=True, stdout=subprocess.DEVNULL)
        return {name: kept(read(folder / name)) for name in self.files}


RECIPES = {
    "pipeline": Recipe(
        how="run llama-3.1-70b --on hgx-h100 --tp 4 --pp 2 --microbatches 4 --batch 8 "
        "--prompt 1024 --output 16",
        pictures={"timeline": "timeline", "account": "account", "roofline": "roofline"},
        files=("summary.json", "passes.csv", "account.csv", "ops.csv"),
    ),
    "serve": Recipe(
        how="serve llama-2-7b --on a100-sxm-80gb --trace azure-conv-2023-sample --rate-scale 1.5 "
        "--slo-ttft 1 --slo-tpot 0.05",
        pictures={f"serve-{name}": name for name in ("latencies", "time", "requests")},
        files=("summary.json", "requests.csv", "steps.csv"),
    ),
    "what-if-compare": Recipe(
        how="compare llama-3.1-70b --on hgx-h100 --with tp=4 --with batch=16 --with prompt=4096 "
        "--with output=8 --tp 8",
        pictures={"what-if-compare": "compare"},
        files=("compare.csv",),
        slow=False,
    ),
    "what-if-sensitivity": Recipe(
        how="sensitivity llama-3.1-70b --on hgx-h100 --tp 8 --batch 16 --prompt 4096 --output 8",
        pictures={"what-if-sensitivity": "sensitivity"},
        files=("sensitivity.json",),
    ),
    "what-if-pruning": Recipe(
        how="what-if run pruning",
        pictures={"what-if-pruning": "pruning"},
        files=("pruning.json",),
    ),
    "what-if-speculative": Recipe(
        how="what-if run speculative",
        pictures={"what-if-speculative": "speculative"},
        files=("speculative.json",),
    ),
    "what-if-trend": Recipe(
        how="trend --on h100-sxm --flops 3.0 --hbm 1.6 --link 1.4 --years 10",
        pictures={"what-if-trend": "trend"},
        files=("trend.csv",),
    ),
    "sweep-map": Recipe(
        how="map llama-3.1-8b --on h100-sxm --grid batch=1:1024:x2 --grid prompt=128:8192:x2 "
        "--grid output=2 --phase decode",
        pictures={"sweep-map": "map"},
        files=("map.json",),
        slow=False,
    ),
    "paper": Recipe(
        how="paper",
        pictures={name: name for name in ("paper-figures-4-5-6", "paper-figure-9")},
    ),
    **{
        f"study-{name}": Recipe(
            how=f"study_{name}", pictures={picture: picture for picture in pictures}
        )
        for name, pictures in (
            ("bandwidth", ("study-bandwidth",)),
            ("timeline", ("study-timeline", "study-timeline-layer")),
            ("splits", ("study-splits", "study-front")),
            ("wall", ("study-wall",)),
        )
    },
}


def read(path: Path) -> Any:
    """The rows of a table, or a document."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))
    return json.loads(path.read_text(encoding="utf-8"))


def kept(data: Any) -> Any:
    """Small data as they are, of large ones their length and a digest."""
    text = json.dumps(rounded(data), ensure_ascii=False, separators=(",", ":"))
    if len(text) <= LARGE:
        return json.loads(text)
    return {"entries": len(data), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def rounded(data: Any) -> Any:
    """Numbers to nine digits, for another processor may add in another order; no versions."""
    if isinstance(data, float):
        return float(f"{data:.9g}")
    if isinstance(data, dict):
        return {str(key): rounded(value) for key, value in data.items() if key not in DROPPED}
    if isinstance(data, list | tuple):
        return [rounded(value) for value in data]
    return data


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def draw(names: list[str]) -> None:
    """Draw the pictures of some recipes and write their data."""
    written = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    for name in names:
        recipe = RECIPES[name]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "result"
            data = recipe.make(folder, draw=True)
            for ours, theirs in recipe.pictures.items():
                shutil.copyfile(folder / f"{theirs}.png", FOLDER / f"{ours}.png")
        pictures = {f"{one}.png": digest(FOLDER / f"{one}.png") for one in recipe.pictures}
        written[name] = {"how": recipe.how, "pictures": pictures, "data": data}
        print(f"drawn: {', '.join(pictures)}", flush=True)
    for name, how in MEASURED.items():
        picture = f"{name}.png"
        written[name] = {"how": how, "pictures": {picture: digest(FOLDER / picture)}}
    ordered = {name: written[name] for name in (*RECIPES, *MEASURED) if name in written}
    DATA.write_text(laid_out(ordered) + "\n", encoding="utf-8")


def laid_out(data: Any, depth: int = 0) -> str:
    """JSON with one line per table, document or curve."""
    if not isinstance(data, dict) or depth == 4:
        return json.dumps(data, ensure_ascii=False)
    pad = " " * (depth + 1)
    lines = [f"{pad}{json.dumps(k)}: {laid_out(v, depth + 1)}" for k, v in data.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"


if __name__ == "__main__":
    unknown = sorted(set(sys.argv[1:]) - set(RECIPES))
    if unknown:
        sys.exit(f"no recipe {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    draw(sys.argv[1:] or list(RECIPES))
