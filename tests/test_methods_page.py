"""docs/methods.md against the code: every loss and every compared method has a row, and every file
that a row names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from jaxrm.methods.library import METHODS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "methods.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "method |" not in line]


def test_every_public_loss_is_named():
    for path in (ROOT / "jaxrm" / "losses").glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert re.search(rf"\b{node.name}\b", PAGE), f"{path.name}: {node.name}"


def test_every_compared_method_has_a_row():
    named = [re.search(r"`(\w+)`", row.split("|")[1]) for row in ROWS]
    names = [found[1] for found in named if found]
    assert len(names) == len(set(names))
    assert set(names) == {*METHODS}


def test_every_file_is_there():
    named = re.findall(
        r"`((?:jaxrm|experiments|losses|models|methods|read|evaluate)/[\w/]+\.py)", PAGE
    )
    assert len(named) > 50
    for name in named:
        assert (ROOT / name).is_file() or (ROOT / "jaxrm" / name).is_file(), name
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    for link in links:
        assert (ROOT / "docs" / link).resolve().is_file(), link
