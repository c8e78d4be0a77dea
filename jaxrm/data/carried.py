"""Columns: numbers that some data have and others do not, and what stands in a batch without them.

A loss that takes 0 for a log-prob that nobody computed trains without a word. So a batch carries a
column only where every comparison has it, which its shape says, and a loss that is written against
another one fails when it is traced, before the first step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxrm.errors import DataError

if TYPE_CHECKING:
    from jaxrm.data.packing import TokenTree


@dataclasses.dataclass(frozen=True)
class Column:
    """Numbers under a name, from comparisons to batches.

    Attributes:
      name: what a loss asks for.
      per: whether each response has its own, or a pair has one.
      width: 0 for one number, or how many a response has. Raises ValueError for several of a pair.
    """

    name: str
    per: Literal["response", "pair"] = "response"
    width: int = 0

    def __post_init__(self):
        if self.width < 0 or (self.width and self.per == "pair"):
            raise ValueError(f"a column of width {self.width} per {self.per}")

    def shape(self, responses: int) -> tuple[int, ...]:
        """That of a comparison's values: (), [K] or [K, width]."""
        whole = (responses, self.width) if self.width else (responses,)
        return whole if self.per == "response" else ()

    @classmethod
    def of_values(cls, name: str, values: ArrayLike, responses: int) -> Column:
        """What values of so many responses are; ValueError where they have no column's shape."""
        shape = np.shape(values)
        column = cls(name, "response" if shape else "pair", *shape[1:2])
        if shape != column.shape(responses):
            raise ValueError(f"{name} of shape {list(shape)} for {responses} responses")
        return column


SCORE = Column("response_score")
REFERENCE = Column("reference_logps")
MARGIN = Column("margin", "pair")

FIELDS = {column.name: column for column in (SCORE, REFERENCE, MARGIN)}
"""The columns that are fields of a batch, whatever the data; it holds all others by name."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Absent:
    """In a batch's place of an array: any use of it is a DataError. It has no leaves."""

    name: str
    why: str = dataclasses.field(compare=False)

    def refuse(self, way: str) -> NoReturn:
        """Raises DataError: what is missing, why, and what else there is to do."""
        raise DataError(f"this batch has no {self.name}: {self.why}: {way}")

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        self.refuse("give every comparison one, or take a loss that needs none")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # what Python, JAX and notebooks look for in any object
            raise AttributeError(name)
        self._refuse()

    __array__ = __jax_array__ = __iter__ = __len__ = __getitem__ = __bool__ = __float__ = _refuse
    __add__ = __sub__ = __mul__ = __truediv__ = __pow__ = __matmul__ = __neg__ = __abs__ = _refuse
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rpow__ = __rmatmul__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __and__ = __or__ = __invert__ = _refuse


def lack(tree: TokenTree, column: Column) -> str:
    """Why the tree has no such column, in words; "" where it has."""
    name, count = column.name, len(tree.branches)
    if name not in tree.columns:
        return f"has no {name}"
    shape = np.shape(tree.columns[name])
    if shape != column.shape(count):
        return f"has {name} of shape {list(shape)} and not {list(column.shape(count))}"
    if column.per == "pair" and count > 2:
        return f"has {count} responses, and {name} is of a pair"
    return ""


class Census:
    """What all of some trees have, which are counted one by one.

    Attributes:
      widths: numbers of attributes that responses have, where they have any.
    """

    def __init__(self, trees: Iterable[TokenTree] = ()):
        self.widths: set[int] = set()
        self._count = 0
        self._columns: dict[str, Column] = {}
        self._lacking: dict[str, str] = {}
        for tree in trees:
            self.add(tree)

    def add(self, tree: TokenTree) -> TokenTree:
        """Counts one more tree. Raises ValueError for a column of no column's shape."""
        for name in tree.columns.keys() - self._columns:
            usual, values = FIELDS.get(name), tree.columns[name]
            self._columns[name] = usual or Column.of_values(name, values, len(tree.branches))
            if self._count:
                self._lacking[name] = f"comparison 0, counting from 0, has no {name}"
        for name, column in self._columns.items():
            if name not in self._lacking and (problem := lack(tree, column)):
                self._lacking[name] = f"comparison {self._count}, counting from 0, {problem}"
        self.widths |= {len(grades) for grades in tree.attributes or ()}
        self._count += 1
        return tree

    def columns(self) -> tuple[Column, ...]:
        """What a batch of any of these trees can carry, by name."""
        return tuple(self._columns[name] for name in sorted(self._columns.keys() - self._lacking))

    def absent(self) -> tuple[tuple[str, str], ...]:
        """What no batch of these trees can carry, by name, and why: columns that one tree lacks,
        attributes where no tree has any, since they have a mask."""
        absent = {name: f"no comparison has {name}" for name in FIELDS.keys() - self._columns}
        if not self.widths:
            absent["attributes"] = "no comparison has any"
        return tuple(sorted((absent | self._lacking).items()))
