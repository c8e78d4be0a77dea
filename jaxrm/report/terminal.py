"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns in line, the first to the left and the others to the right, under a ruled head."""
    every = [head, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    lines = [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in pairs)
        for pairs in (enumerate(zip(row, widths, strict=True)) for row in every)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
