"""Inputs that attack the command line, and the judgement of what it does with them.

Each kind is a function from a scratch folder to attempts. `judge` runs one in this process, with an
earlier result in the folder that the command would write.
"""

from attacks.documents import documents
from attacks.expressions import expressions
from attacks.flags import flags
from attacks.judge import Counts, earlier, judge, total
from attacks.names import names
from attacks.traces import traces

KINDS = {
    "flags": flags,
    "documents": documents,
    "traces": traces,
    "expressions": expressions,
    "names": names,
}

__all__ = ["KINDS", "Counts", "earlier", "judge", "total"]
