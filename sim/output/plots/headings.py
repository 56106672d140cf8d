"""Headings in lines that fit: measured in the font that draws them, not counted in characters."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sim.errors import printable
from sim.output.plots.style import SLIDE_HEIGHT, WIDTHS, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = 8.5  # points
LINE = 0.14  # inches that a line of a heading takes
_MARGIN = 0.2  # inches of a figure that a heading leaves free
_LEFT = 0.01  # of the width
_HINTED = 1.04  # letters are moved to whole pixels, which may make a line wider


def heading(fig: Figure, text: str, kind: Kind = "paper", bold: bool = False) -> None:
    """Write what a figure is about above everything else, over its whole width. The figure grows
    by the lines after the first; a slide keeps its shape."""
    lines = heading_lines(text, kind, bold)
    width, height = fig.get_size_inches()
    if kind != "slide" or height > SLIDE_HEIGHT:
        fig.set_size_inches(width, height + LINE * (len(lines) - 1))
    weight = "bold" if bold else "normal"
    fig.suptitle("\n".join(lines), x=_LEFT, ha="left", fontsize=SIZE, fontweight=weight)


def heading_lines(text: str, kind: Kind, bold: bool = False) -> list[str]:
    """A heading in lines that a figure of this kind is wide enough for."""
    return lines_of(text, WIDTHS[kind] - _MARGIN, SIZE, bold)


def panel_title(ax: Axes, text: str, size: float = SIZE) -> None:
    """A title of one of several panels, in lines as wide as the panel. The figure must have been
    laid out."""
    inches = ax.get_window_extent().width / ax.figure.dpi
    ax.set_title("\n".join(lines_of(text, inches, size, bold=True)), fontsize=size)


def lines_of(text: str, inches: float, size: float, bold: bool = False) -> list[str]:
    """Text in lines that are at most `inches` wide, ready for matplotlib. A line may end with a
    dot between two parts, not begin with it; a word that is too long is broken."""
    lines: list[str] = []
    for paragraph in printable(text).split("\n"):
        line = ""
        for word in paragraph.replace(" ·", "\u00a0·").split(" "):
            longer = f"{line} {word}" if line else word
            if _width(longer, size, bold) <= inches:
                line = longer
                continue
            if line:
                lines.append(line)
            *pieces, line = _pieces(word, inches, size, bold)
            lines += pieces
        lines.append(line)
    return [line.replace("$", r"\$") for line in lines]


def _pieces(word: str, inches: float, size: float, bold: bool) -> list[str]:
    """A word in pieces that are narrow enough, of one character at least."""
    pieces = [""]
    for character in word:
        if pieces[-1] and _width(pieces[-1] + character, size, bold) > inches:
            pieces.append("")
        pieces[-1] += character
    return pieces


@lru_cache(maxsize=4096)
def _width(text: str, size: float, bold: bool) -> float:
    """Inches that a line takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=["DejaVu Sans"], weight="bold" if bold else "normal", size=size)
    points = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return _HINTED * float(points) / 72
