"""The training set: comparisons as token trees on disk, less what training leaves out, counted.

A comparison that cannot teach a preference is dropped, and counted under the first reason that
holds:

- single: fewer than two responses;
- unranked: no order;
- tie: no two responses of different rank;
- empty: a blank user or assistant message, or a blank response of raw text;
- identical: two responses that are the same tokens;
- over-length: a prompt and response of more than `max_length` tokens together;
- over-row: a prompt with all its responses of more than `row_length` tokens together.

Where asked to, a comparison that is too long loses the beginning of its prompt instead. Evaluation
does not come here: it scores every row, whole.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import itertools
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np

from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, has_blank
from jaxrm.data.packing import TokenTree, longest_branch, tree_length
from jaxrm.data.store import TreeStore
from jaxrm.data.tally import LIMITS, Tally
from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.errors import DataError

log = logging.getLogger(__name__)

CHUNK = 512
"""Comparisons that are read, tokenized and written together."""

SHOWN = 3
"""Rows that are named of those left out for one reason: the first."""

MEANS = {
    "single": "fewer than two responses, so that none is better than another",
    "unranked": "nothing says which response is better: chosen and rejected would, or ranks",
    "tie": "no response is labelled better than another",
    "empty": "a response, or a user or assistant message of the prompt, is blank",
    "identical": "two responses are the same tokens",
    "over-length": "the tokens of the prompt and one response",
    "over-row": "the tokens of the prompt and all its responses",
}
"""What a reason says of a comparison; of those in `LIMITS`, what it is that exceeds one."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSet:
    """What a preference loss can learn from.

    Attributes:
        trees: n comparisons as tokens, in the order read.
        tally: what was read, used and left out.
        weights: float64 [n], how often one epoch shows each tree.
        prompts: int64 [n], equal for trees whose prompts were the same tokens when read. Trees
            with no prompt (nothing, or a BOS alone) share theirs with exact copies only.
    """

    trees: TreeStore
    tally: Tally
    weights: np.ndarray
    prompts: np.ndarray

    def key(self) -> str:
        """SHA-256 of the trees and their weights: equal for the same data, however it was read."""
        return hashlib.sha256(self.trees.key().encode() + self.weights.tobytes()).hexdigest()


def training_set(
    sources: Iterable[tuple[Iterable[Comparison], float]],
    tokenizer: ChatTokenizer,
    *,
    max_length: int,
    row_length: int,
    truncate_prompt: bool = False,
    keeps: Collection[str] = (),
) -> TrainingSet:
    """Tokenizes, filters and stores comparisons as they are read, never all of them in memory.

    What is left out is logged: of each reason what it means, what option changes it, and the first
    rows.

    Args:
        sources: comparisons, each with how often one epoch shows every one of them (above 0).
        tokenizer: the model's.
        max_length: the longest prompt + response that is trained on, in tokens.
        row_length: tokens of a packed row, which no comparison in training may cross.
        truncate_prompt: a comparison that is too long loses the oldest tokens of its prompt, as
            many as it must; a BOS at its head stays, because models degrade without one, and so
            does one token more. What is still too long then is dropped.
        keeps: reasons for which nothing is left out, because the method has a use for what they
            name: "single", "unranked", "tie".

    Raises:
        DataError: nothing is left to train on, or a weight is not a finite number above 0.
        TokenizerError: as `chat.tokenize` raises it.
    """
    bos = tokenizer.hf.bos_token_id
    dropped = _Dropped({"over-length": max_length, "over-row": row_length}, truncate_prompt)
    read = truncated = folded = 0
    weights, prompts = array.array("d"), array.array("q")

    def usable() -> Iterator[TokenTree]:
        nonlocal read, truncated, folded
        for comparisons, weight in sources:
            if not (math.isfinite(weight) and weight > 0):
                raise DataError(f"a data set's weight must be finite and above 0, found {weight}")
            for chunk in _chunks(comparisons):
                before, read = read, read + len(chunk)
                chunk = chat.settled(chunk, tokenizer)
                folded += tokenizer.folded(chunk)
                trees = chat.tokenize(chunk, tokenizer)
                for number, (comparison, whole) in enumerate(
                    zip(chunk, trees, strict=True), start=before + 1
                ):
                    tree = whole
                    if truncate_prompt:
                        tree = _truncate(whole, max_length, row_length, bos)
                    if reason := _reason(comparison, tree, max_length, row_length, keeps):
                        dropped.add(reason, comparison.where or f"comparison {number}", tree)
                        continue
                    truncated += tree is not whole
                    weights.append(weight)
                    prompts.append(_prompt_number(whole, bos))
                    yield tree

    trees = TreeStore.write(usable())
    tally = Tally(read, len(trees), dict(dropped.counts), truncated, folded)
    if not len(trees):
        raise DataError("\n  ".join([f"nothing left to train on: {tally}", *dropped.lines()]))
    for line in dropped.lines():
        log.info("left out of training: %s", line)
    return TrainingSet(trees, tally, np.array(weights), np.array(prompts))


class _Dropped:
    """What is left out, reason by reason.

    Attributes:
        counts: how many comparisons.
        rows: where the first `SHOWN` of them are.
        longest: of those in `LIMITS`, the most tokens of one.
    """

    def __init__(self, limits: Mapping[str, int], truncated: bool):
        """
        Args:
            limits: tokens, for each reason in `LIMITS`.
            truncated: whether prompts were shortened before.
        """
        self.limits, self.truncated = limits, truncated
        self.counts, self.longest = Counter[str](), Counter[str]()
        self.rows: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, where: str, tree: TokenTree) -> None:
        """Counts one comparison."""
        self.counts[reason] += 1
        if len(self.rows[reason]) < SHOWN:
            self.rows[reason].append(where)
        if reason in LIMITS:
            length = longest_branch(tree) if reason == "over-length" else tree_length(tree)
            self.longest[reason] = max(self.longest[reason], length)

    def lines(self) -> Iterator[str]:
        """A line for each reason, the most frequent first."""
        for reason, count in self.counts.most_common():
            rows = "; ".join(self.rows[reason])
            others = f"; and {count - SHOWN:,} more" if count > SHOWN else ""
            yield f"{count:,} {reason}: {self._means(reason)} ({rows}{others})"

    def _means(self, reason: str) -> str:
        if reason not in LIMITS:
            return MEANS[reason]
        option, cure = LIMITS[reason], " or let --truncate-prompt shorten prompts"
        if self.truncated:
            cure = " since a shorter prompt does not make room enough"
        return (
            f"{MEANS[reason]}, up to {self.longest[reason]:,}, exceed {option} "
            f"{self.limits[reason]:,}: raise it,{cure}"
        )


def _reason(
    comparison: Comparison,
    tree: TokenTree,
    max_length: int,
    row_length: int,
    keeps: Collection[str],
) -> str | None:
    """Why the comparison is left out; None where it is used."""
    orders = {
        "single": len(comparison.responses) < 2,
        "unranked": comparison.ranks is None,
        "tie": comparison.is_tie,
    }
    for reason, holds in orders.items():
        if holds and reason not in keeps:
            return reason
    if is_empty(comparison):
        return "empty"
    if len({branch.tokens.tobytes() for branch in tree.branches}) < len(tree.branches):
        return "identical"
    return too_long_for(tree, max_length, row_length)


def too_long_for(tree: TokenTree, max_length: int, row_length: int) -> str | None:
    """Which limit the tree exceeds, over-length before over-row; None where it fits."""
    if longest_branch(tree) > max_length:
        return "over-length"
    return "over-row" if tree_length(tree) > row_length else None


def is_empty(comparison: Comparison) -> bool:
    """Whether a response, or a user or assistant message of the prompt, is blank. Raw text may lie
    wholly in the responses, so that its prompt may be blank."""
    raw = isinstance(comparison.prompt, str)
    return any(map(has_blank, comparison.responses)) or (not raw and has_blank(comparison.prompt))


def _truncate(tree: TokenTree, max_length: int, row_length: int, bos: int | None) -> TokenTree:
    """The tree without the oldest tokens of its prompt; itself where it fits, or never would."""
    excess = max(longest_branch(tree) - max_length, tree_length(tree) - row_length)
    head = _leading_bos(tree, bos)
    if excess <= 0 or excess > len(tree.prompt) - head - 1:
        return tree
    kept = np.concatenate([tree.prompt[:head], tree.prompt[head + excess :]])
    return dataclasses.replace(tree, prompt=kept)


def _prompt_number(tree: TokenTree, bos: int | None) -> int:
    """A hash: that two of a million prompts share one by chance is less likely than 1 in 10^7."""
    identity = [tree.prompt]
    if len(tree.prompt) == _leading_bos(tree, bos):
        identity += [branch.tokens for branch in tree.branches]
    digest = hashlib.blake2b(np.concatenate(identity).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _leading_bos(tree: TokenTree, bos: int | None) -> int:
    """How many tokens of BOS the prompt begins with: 1 or 0."""
    return int(len(tree.prompt) > 0 and tree.prompt[0] == bos)


def _chunks(comparisons: Iterable[Comparison]) -> Iterator[list[Comparison]]:
    comparisons = iter(comparisons)
    while chunk := list(itertools.islice(comparisons, CHUNK)):
        yield chunk
