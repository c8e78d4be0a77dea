"""How much of a data set was used, and why not the rest.

The reasons are those of `jaxrm.data.training`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

LIMITS = {"over-length": "--max-length", "over-row": "--row-length"}
"""Reasons that lie in an option as much as in the data, under its name in every command."""


@dataclasses.dataclass(frozen=True)
class Tally:
    """How many comparisons were read, how many of them used, and why the others were not.

    Attributes:
        read, used: comparisons.
        dropped: how many for each reason.
        truncated: comparisons among the used whose prompt lost its beginning.
        folded: comparisons read whose system message went into the first user turn, because the
            chat template refuses one.
    """

    read: int
    used: int
    dropped: Mapping[str, int]
    truncated: int = 0
    folded: int = 0

    def __str__(self) -> str:
        line = f"read {self.read}, used {self.used}, dropped {self.read - self.used}"
        ordered = sorted(self.dropped.items(), key=lambda item: -item[1])
        if reasons := ", ".join(f"{count} {_reason(reason)}" for reason, count in ordered):
            line += f": {reasons}"
        if self.truncated:
            line += f"; {_count(self.truncated, 'prompt')} truncated"
        if self.folded:
            line += f"; {_count(self.folded, 'system message')} moved into the first user turn"
        return line


def _reason(reason: str) -> str:
    return f"{reason} ({LIMITS[reason]})" if reason in LIMITS else reason


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
