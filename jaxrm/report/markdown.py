"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[Any], rows: Iterable[Iterable[Any]], left: int | None = None) -> str:
    """A Markdown table of anything that has a text.

    Args:
      left: how many columns are aligned left, the others right; all of them without it.
    """
    left = len(head) if left is None else left
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [head, rule, *rows])
