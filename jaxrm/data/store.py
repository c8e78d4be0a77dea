"""Token trees on disk: written once, one after another, and read through a memory map.

A data set of half a million comparisons is a few hundred million tokens, which as Python objects
would fill a host's memory. Here memory holds eight bytes per tree, whatever its length, and the
operating system keeps as much of the file at hand as it has room for.
"""

from __future__ import annotations

import array
import dataclasses
import errno
import hashlib
import math
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from jaxrm.data.packing import Branch, TokenTree
from jaxrm.errors import DataError

HEAD = 6
"""Words at the beginning of every record, before the lengths of its branches."""


@dataclasses.dataclass(frozen=True, eq=False)
class TreeStore(Sequence[TokenTree]):
    """A sequence of token trees that lives in a file of its own, and goes when nothing needs it.

    The file has no name: it is this process's alone, and is gone with the last store that shares
    it, or with the process, however that ends. Reading takes no lock and changes nothing, so any
    thread may read. A slice is a store that shares the file.

    A tree is one record of int32 words:

        length of the prompt, K, how many ranks, scores, reference log-probs and attributes each
        branch has (0 where unknown), the length of each branch; then the margin (NaN where unknown)
        and those labels as float64; then the tokens of the prompt and of each branch; and of a tree
        with steps, how many each branch has, where they end, and their labels as float64

    where a token that is a target is stored as its complement, and so is the length of the prompt
    in a tree with steps: ids and lengths are never negative.

    Attributes:
      words: int32, the memory map.
      starts: int64 [trees], where each record begins.
      references: float [responses], log-probs that stand in for the records' own; None without.
      reference_starts: int64 [trees], where each tree's references begin.
    """

    words: np.ndarray
    starts: np.ndarray
    references: np.ndarray | None = None
    reference_starts: np.ndarray | None = None

    @classmethod
    def write(cls, trees: Iterable[TokenTree]) -> TreeStore:
        """A store of all `trees`, which are taken one by one and need not exist together.

        Raises DataError where the temporary directory has no room.
        """
        starts, end = array.array("q"), 0
        try:
            with tempfile.TemporaryFile() as file:
                for tree in trees:
                    record = _record(tree)
                    file.write(record.tobytes())
                    starts.append(end)
                    end += len(record)
                file.flush()
                # The map outlives the open file. An empty file cannot be mapped.
                words = np.memmap(file, np.int32, "r") if end else np.zeros(0, np.int32)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            problem = "no room for the tokenized data: set TMPDIR to a directory that has it"
            raise DataError(f"{tempfile.gettempdir()}: {problem} ({error})") from error
        return cls(np.asarray(words), np.array(starts, np.int64))

    def with_references(self, logps: Sequence[np.ndarray]) -> TreeStore:
        """The same trees and the same file, with `logps[i]` float [K] as tree i's references."""
        counts = self.words[self.starts + 1]
        given = np.array([len(values) for values in logps], np.int64)
        if len(given) != len(counts) or (given != counts).any():
            found = f"{len(given)} trees, {given.sum()} responses"
            raise ValueError(
                f"reference log-probs of {found} for {len(counts)} trees, {counts.sum()} responses"
            )
        values = np.concatenate([np.zeros(0, np.float32), *logps])
        return dataclasses.replace(
            self, references=values, reference_starts=np.cumsum(given) - given
        )

    def key(self) -> str:
        """SHA-256 of every record and where it begins: equal for stores of the same trees."""
        content = hashlib.sha256(np.ascontiguousarray(self.starts, "<i8"))
        content.update(np.ascontiguousarray(self.words))
        return content.hexdigest()

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index):
        if isinstance(index, slice):
            kept = None if self.reference_starts is None else self.reference_starts[index]
            return dataclasses.replace(self, starts=self.starts[index], reference_starts=kept)
        tree = _tree(self.words, int(self.starts[index]))
        if self.references is None:
            return tree
        start = self.reference_starts[index]
        logps = self.references[start : start + len(tree.branches)]
        return dataclasses.replace(tree, reference_logps=tuple(logps.tolist()))


def _record(tree: TokenTree) -> np.ndarray:
    count = len(tree.branches)
    known = (tree.ranks, tree.scores, tree.reference_logps, tree.attributes)
    labels = [np.array(label or (), np.float64).reshape(count, -1) for label in known]
    widths = (label.shape[1] for label in labels)
    lengths = (len(branch.tokens) for branch in tree.branches)
    head = np.array([len(tree.prompt), count, *widths, *lengths], np.int32)
    margin = math.nan if tree.margin is None else tree.margin
    numbers = np.concatenate([[margin], *(label.ravel() for label in labels)])
    tokens = (np.where(branch.targets, ~branch.tokens, branch.tokens) for branch in tree.branches)
    words = [head, numbers.view(np.int32), tree.prompt, *tokens]
    counts = [len(branch.step_ends) for branch in tree.branches]
    if any(counts):
        head[0] = ~head[0]
        step_labels = np.concatenate([branch.step_labels for branch in tree.branches])
        words += [counts, *(branch.step_ends for branch in tree.branches)]
        words += [step_labels.astype(np.float64).view(np.int32)]
    return np.concatenate(words, dtype=np.int32)


def _tree(words: np.ndarray, start: int) -> TokenTree:
    def take(length: int) -> np.ndarray:
        nonlocal start
        start += length
        return words[start - length : start]

    signed, count, *single, wide = take(HEAD).tolist()
    has_steps, length = signed < 0, max(signed, ~signed)
    lengths = take(count).tolist()
    numbers = take(2 * (1 + count * (sum(single) + wide)))
    # Copied, since a float64 of the map may lie across its natural boundaries.
    margin, *labels = numbers.copy().view(np.float64).tolist()
    rest = iter(labels)
    ranks, scores, logps = (tuple(islice(rest, count)) if width else None for width in single)
    attributes = tuple(tuple(islice(rest, wide)) for _ in range(count)) if wide else None
    prompt = take(length)
    stored = [take(length) for length in lengths]
    branches = [Branch(np.where(tokens < 0, ~tokens, tokens), tokens < 0) for tokens in stored]
    if has_steps:
        counts = take(count).tolist()
        ends = [take(steps) for steps in counts]
        labels = take(2 * sum(counts)).copy().view(np.float64)
        each = zip(branches, ends, np.split(labels, np.cumsum(counts)[:-1]), strict=True)
        branches = [Branch(b.tokens, b.targets, *steps) for b, *steps in each]
    return TokenTree(
        prompt,
        tuple(branches),
        ranks=None if ranks is None else tuple(int(rank) for rank in ranks),
        scores=scores,
        margin=None if math.isnan(margin) else margin,
        attributes=attributes,
        reference_logps=logps,
    )
