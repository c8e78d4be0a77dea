"""Tables in Markdown and for a terminal, and what their cells say.

A figure in a cell is a share in percent, or a gain in points, unless another scale is asked for.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxrm import files
from jaxrm.errors import DataError
from jaxrm.statistics import Paired


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells under a head, anything that has a text; the first `left` columns are words."""

    head: Sequence[Any]
    rows: Sequence[Sequence[Any]]
    left: int = 1

    def markdown(self) -> str:
        """For a Markdown file."""
        return markdown(self.head, self.rows, self.left)

    def text(self) -> str:
        """For a terminal, where **bold** has no stars."""
        rows = [[str(cell).replace("**", "") for cell in row] for row in self.rows]
        return aligned(self.head, rows, self.left)


def markdown(head: Sequence[Any], rows: Iterable[Iterable[Any]], left: int | None = None) -> str:
    """A Markdown table of anything that has a text.

    Args:
      left: how many columns are aligned left, the others right; all of them without it.
    """
    left = len(head) if left is None else left
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [head, rule, *rows])


def aligned(head: Sequence[Any], rows: Iterable[Sequence[Any]], left: int = 1) -> str:
    """A table for a terminal: columns in line, the first `left` ones to the left and the others to
    the right, under a ruled head."""
    every = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in pairs
        )
        for pairs in (enumerate(zip(row, widths, strict=True)) for row in every)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def fill(page: str, column: str, values: Mapping[str, str]) -> str:
    """A hand-written page with `values` in one column of its Markdown tables.

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


# What a cell says


def number(value: float | None, form: str = ".1f", scale: float = 100.0) -> str:
    """A figure; "—" where nothing was measured. What rounds to 0 has no minus."""
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    text = format(scale * value, form)
    return text if float(text) else format(0.0, form)


def between(low: float | None, high: float | None, form: str = ".1f", scale: float = 100.0) -> str:
    """An interval; "—" where there is none, or one that leaves nothing out."""
    if low is None or high is None or math.isnan(low) or (math.isinf(low) and math.isinf(high)):
        return "—"
    return f"{number(low, form, scale)} to {number(high, form, scale)}"


def spread(
    estimate: Mapping[str, Any] | None, scale: float = 100.0, digits: int = 1, mean: str = "mean"
) -> str:
    """A mean ± its `standard_error`, where it has one; "—" where nothing was measured.

    Args:
      mean: what the mean is called, as `accuracy`.
    """
    if estimate is None or estimate.get(mean) is None:
        return "—"
    names = (mean, "standard_error")
    value, error = (number(estimate[name], f".{digits}f", scale) for name in names)
    return value if error == "—" else f"{value} ± {error}"


def interval(gain: Paired | Mapping[str, Any] | None, scale: float = 100.0, digits: int = 1) -> str:
    """A gain with its interval, which fewer than 6 seeds leave open; nothing of None."""
    if gain is None:
        return ""
    mean, *ends = (files.plain(gain)[name] for name in ("mean", "low", "high"))
    shown = [number(end, f"+.{digits}f", scale) for end in ends if end is not None]
    return number(mean, f"+.{digits}f", scale) + (f" [{', '.join(shown)}]" if shown else "")
