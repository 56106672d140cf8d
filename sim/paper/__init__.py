"""The tables and figures of the founding papers, recomputed and held against what they print.

from sim.paper import print_report, reproduce

report = reproduce(Path("out"))
report.ok  # every value that should match does
"""

from sim.paper.cells import Cell, Section
from sim.paper.report import PaperReport, print_report, reproduce

__all__ = ["Cell", "PaperReport", "Section", "print_report", "reproduce"]
