"""What training leaves out, and how much of it.

A comparison that cannot teach a preference is dropped, and counted under the first reason that
holds. Evaluation does not come here: it scores every row.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import TokenTree, longest_branch, tree_length


@dataclasses.dataclass(frozen=True)
class Tally:
    """How many comparisons were read, how many of them used, and why the others were not."""

    read: int
    used: int
    dropped: Mapping[str, int]

    def __str__(self) -> str:
        line = f"read {self.read}, used {self.used}, dropped {self.read - self.used}"
        ordered = sorted(self.dropped.items(), key=lambda item: -item[1])
        reasons = ", ".join(f"{count} {reason}" for reason, count in ordered)
        return f"{line}: {reasons}" if reasons else line


def for_training(
    comparisons: Sequence[Comparison],
    trees: Sequence[TokenTree],
    max_length: int,
    row_length: int,
) -> tuple[list[int], Tally]:
    """Indices of the comparisons that a preference loss can learn from, and the tally.

    Dropped are comparisons with, in this order,

    - single: fewer than two responses;
    - unranked: no order;
    - tie: no two responses of different rank;
    - empty: a blank user or assistant message, or a blank response of raw text;
    - identical: two responses that are the same tokens;
    - over-length: a prompt and response of more than `max_length` tokens together;
    - over-row: a prompt with all its responses of more than `row_length` tokens together.

    Args:
        comparisons: the rows read.
        trees: the same rows as tokens, in the same order.
        max_length: the longest prompt + response that is trained on, in tokens.
        row_length: tokens of a packed row, which no comparison in training may cross.
    """
    reasons = [
        _reason(comparison, tree, max_length, row_length)
        for comparison, tree in zip(comparisons, trees, strict=True)
    ]
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    dropped = Counter(reason for reason in reasons if reason is not None)
    return kept, Tally(read=len(reasons), used=len(kept), dropped=dict(dropped))


def _reason(
    comparison: Comparison, tree: TokenTree, max_length: int, row_length: int
) -> str | None:
    if len(comparison.responses) < 2:
        return "single"
    if comparison.ranks is None:
        return "unranked"
    if len(set(comparison.ranks)) == 1:
        return "tie"
    if not all(text.strip() for text in _texts(comparison)):
        return "empty"
    if len({branch.tokens.tobytes() for branch in tree.branches}) < len(tree.branches):
        return "identical"
    if longest_branch(tree) > max_length:
        return "over-length"
    return "over-row" if tree_length(tree) > row_length else None


def _texts(comparison: Comparison) -> Iterable[str]:
    """What must not be blank. Raw text may lie wholly in the responses; a system turn says none."""
    if isinstance(comparison.prompt, str):
        return comparison.responses
    messages = [comparison.prompt, *comparison.responses]
    return (m.content for turns in messages for m in turns if m.role != "system")
