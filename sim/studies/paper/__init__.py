"""The tables and figures of the founding papers, recomputed beside the printed values.

The catalogue's models and devices come in; each section recomputes one table or figure.
A report of cells goes out: printed value, computed value, and whether they agree.
"""

from sim.studies.paper.cells import Cell, Section
from sim.studies.paper.report import PaperReport, print_report, reproduce

__all__ = ["Cell", "PaperReport", "Section", "print_report", "reproduce"]
