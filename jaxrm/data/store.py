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
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxrm.data.carried import Column
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.errors import DataError

HEAD = 5
"""Words at the beginning of every record, before the lengths of its branches."""


class _Beside(NamedTuple):
    """A column of all trees of a store: their numbers one after another, and where each begins."""

    column: Column
    values: np.ndarray
    starts: np.ndarray

    def of_tree(self, index: int, count: int) -> np.ndarray:
        start, shape = self.starts[index], self.column.shape(count)
        return self.values[start : start + math.prod(shape)].reshape(shape)


@dataclasses.dataclass(frozen=True, eq=False)
class TreeStore(Sequence[TokenTree]):
    """A sequence of token trees that lives in a file of its own, and goes when nothing needs it.

    The file has no name: it is this process's alone, and is gone with the last store that shares
    it, or with the process, however that ends. Reading takes no lock and changes nothing, so any
    thread may read. A slice is a store that shares the file.

    A tree is one record of int32 words:

        length of the prompt, K, how many ranks and attributes each branch has (0 where unknown),
        which layout its columns have, the length of each branch; then those labels and the columns
        as float64; then the tokens of the prompt and of each branch; and of a tree with steps, how
        many each branch has, where they end, and their labels as float64

    where a token that is a target is stored as its complement, and so is the length of the prompt
    in a tree with steps: ids and lengths are never negative.

    Attributes:
      words: int32, the memory map.
      starts: int64 [trees], where each record begins.
      layouts: the columns that records hold, one entry for all that hold the same.
      beside: by name, columns that stand in for the records' own or that none of them has.
    """

    words: np.ndarray
    starts: np.ndarray
    layouts: Sequence[tuple[Column, ...]]
    beside: Mapping[str, _Beside] = dataclasses.field(default_factory=dict)

    @classmethod
    def write(cls, trees: Iterable[TokenTree]) -> TreeStore:
        """A store of all `trees`, which are taken one by one and need not exist together.

        Raises DataError where the temporary directory has no room.
        """
        starts, end = array.array("q"), 0
        layouts: dict[tuple[Column, ...], int] = {}
        try:
            with tempfile.TemporaryFile() as file:
                for tree in trees:
                    layout = _layout(tree)
                    record = _record(tree, layout, layouts.setdefault(layout, len(layouts)))
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
        return cls(np.asarray(words), np.array(starts, np.int64), tuple(layouts))

    def key(self) -> str:
        """SHA-256 of all records, columns and where each begins: equal for the same trees."""
        layouts = [[dataclasses.astuple(column) for column in layout] for layout in self.layouts]
        content = hashlib.sha256(repr(layouts).encode())
        content.update(np.ascontiguousarray(self.starts, "<i8"))
        content.update(np.ascontiguousarray(self.words))
        return content.hexdigest()

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index):
        if isinstance(index, slice):
            beside = {k: b._replace(starts=b.starts[index]) for k, b in self.beside.items()}
            return dataclasses.replace(self, starts=self.starts[index], beside=beside)
        tree = _tree(self.words, int(self.starts[index]), self.layouts)
        return _with(tree, index, self.beside) if self.beside else tree


def with_columns(
    trees: Sequence[TokenTree], columns: Mapping[str, Sequence[ArrayLike]]
) -> Sequence[TokenTree]:
    """The same trees with further columns, or with others under their names.

    Args:
      trees: a list, or a store, which stays one over the same file.
      columns: by name, the values of each tree: a float of a pair, [K] or [K, W] of its responses.

    Raises:
      ValueError: there are not as many values as trees or responses, or they are not one column.
    """
    stored = isinstance(trees, TreeStore)
    counts = trees.words[trees.starts + 1].tolist() if stored else [len(t.branches) for t in trees]
    beside = {name: _beside(name, values, counts) for name, values in columns.items()}
    if stored:
        return dataclasses.replace(trees, beside={**trees.beside, **beside})
    return [_with(tree, i, beside) for i, tree in enumerate(trees)]


def _with(tree: TokenTree, index: int, beside: Mapping[str, _Beside]) -> TokenTree:
    own = {name: column.of_tree(index, len(tree.branches)) for name, column in beside.items()}
    return dataclasses.replace(tree, columns=tree.columns | own)


def _beside(name: str, values: Sequence[ArrayLike], counts: Sequence[int]) -> _Beside:
    if len(values) != len(counts):
        raise ValueError(f"{name} of {len(values)} trees for {len(counts)} trees")
    kinds = {Column.of_values(name, *both) for both in zip(values, counts, strict=True)}
    if len(kinds) > 1:
        raise ValueError(f"{name} is more than one column: {sorted(map(str, kinds))}")
    column = kinds.pop() if kinds else Column(name)
    parts = [np.zeros(0, np.float32), *map(np.ravel, values)]
    return _Beside(column, np.concatenate(parts), np.cumsum([len(part) for part in parts[:-1]]))


def _layout(tree: TokenTree) -> tuple[Column, ...]:
    count = len(tree.branches)
    return tuple(Column.of_values(name, tree.columns[name], count) for name in sorted(tree.columns))


def _record(tree: TokenTree, layout: Sequence[Column], number: int) -> np.ndarray:
    count = len(tree.branches)
    both = (tree.ranks, tree.attributes)
    labels = [np.array(label or (), np.float64).reshape(count, -1) for label in both]
    widths = (label.shape[1] for label in labels)
    lengths = (len(branch.tokens) for branch in tree.branches)
    head = np.array([len(tree.prompt), count, *widths, number, *lengths], np.int32)
    labels += [tree.columns[column.name] for column in layout]
    numbers = np.concatenate([np.ravel(label) for label in labels], dtype=np.float64)
    tokens = (np.where(branch.targets, ~branch.tokens, branch.tokens) for branch in tree.branches)
    words = [head, numbers.view(np.int32), tree.prompt, *tokens]
    counts = [len(branch.step_ends) for branch in tree.branches]
    if any(counts):
        head[0] = ~head[0]
        step_labels = np.concatenate([branch.step_labels for branch in tree.branches])
        words += [counts, *(branch.step_ends for branch in tree.branches)]
        words += [step_labels.astype(np.float64).view(np.int32)]
    return np.concatenate(words, dtype=np.int32)


def _tree(words: np.ndarray, start: int, layouts: Sequence[Sequence[Column]]) -> TokenTree:
    def take(length: int) -> np.ndarray:
        nonlocal start
        start += length
        return words[start - length : start]

    def floats(length: int) -> np.ndarray:
        # Copied, since a float64 of the map may lie across its natural boundaries.
        return take(2 * length).copy().view(np.float64)

    signed, count, ranked, wide, number = take(HEAD).tolist()
    has_steps, length = signed < 0, max(signed, ~signed)
    lengths = take(count).tolist()
    ranks, grades = floats(count * ranked).tolist(), floats(count * wide).reshape(count, -1)
    shapes = {column.name: column.shape(count) for column in layouts[number]}
    columns = {name: floats(math.prod(shape)).reshape(shape) for name, shape in shapes.items()}
    prompt = take(length)
    stored = [take(length) for length in lengths]
    branches = [Branch(np.where(tokens < 0, ~tokens, tokens), tokens < 0) for tokens in stored]
    if has_steps:
        counts = take(count).tolist()
        ends = [take(steps) for steps in counts]
        labels = floats(sum(counts))
        each = zip(branches, ends, np.split(labels, np.cumsum(counts)[:-1]), strict=True)
        branches = [Branch(b.tokens, b.targets, *steps) for b, *steps in each]
    return TokenTree(
        prompt,
        tuple(branches),
        ranks=tuple(map(int, ranks)) if ranked else None,
        attributes=tuple(map(tuple, grades.tolist())) if wide else None,
        columns=columns,
    )
