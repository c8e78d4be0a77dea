"""Numbers in a hand-written page that a command measured: one column of a table, filled by name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jaxrm.errors import DataError


def fill(page: str, column: str, values: Mapping[str, str]) -> str:
    """The page with `values` in one column of its Markdown tables.

    A row is known by the first `name` in backticks in its first cell. Other rows, and tables
    without the column, stay as they are.

    Raises:
      DataError: a name that no row has.
    """
    lines, place, filled = page.splitlines(), None, set()
    for i, line in enumerate(lines):
        if not line.startswith("|"):
            place = None
            continue
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        if place is None:
            heads = [cell.strip() for cell in cells]
            place = heads.index(column) if column in heads else -1
            continue
        name = re.search(r"`([^`]+)`", cells[0])
        if place >= 0 and name and name[1] in values:
            cells[place] = f" {values[name[1]]} "
            lines[i] = f"|{'|'.join(cells)}|"
            filled.add(name[1])
    if missing := sorted(values.keys() - filled):
        raise DataError(f"no row of a table with a column '{column}' names {', '.join(missing)}")
    return "\n".join(lines) + "\n"
