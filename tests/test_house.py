"""The house: no module imports itself by a detour, every package tells what it is for."""

from __future__ import annotations

import ast
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sorted(p.parent for p in (ROOT / "sim").rglob("__init__.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_graph() -> nx.DiGraph:
    """Imports of every module of the three packages, those for type checking included."""
    files = {
        name_of(p): p
        for root in ("sim", "workloads", "hw_models")
        for p in (ROOT / root).rglob("*.py")
    }
    graph = nx.DiGraph()
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in files:
                for alias in node.names:
                    target = f"{node.module}.{alias.name}"
                    graph.add_edge(name, target if target in files else node.module)
            elif isinstance(node, ast.Import):
                graph.add_edges_from((name, a.name) for a in node.names if a.name in files)
    return graph


def test_no_module_imports_itself_by_a_detour() -> None:
    circles = [c for c in nx.strongly_connected_components(module_graph()) if len(c) > 1]
    assert not circles


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_every_package_tells_what_it_is_for(package: Path) -> None:
    """What lives there, what comes in and what goes out."""
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
    assert docstring
    if package != ROOT / "sim":
        assert docstring.count(". ") + docstring.count(".\n") + docstring.endswith(".") >= 3
