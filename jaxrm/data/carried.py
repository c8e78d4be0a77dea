"""Numbers that some data have and others do not, and what stands in a batch that carries none.

A loss that takes 0 for a log-prob that nobody computed trains without a word. So a batch carries a
number only where every comparison has it, which its shape says, and a loss that is written against
another one fails when it is traced, before the first step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

import jax

from jaxrm.errors import DataError

if TYPE_CHECKING:
    from jaxrm.data.packing import TokenTree

Number = Literal["response_score", "reference_logps", "margin"]
NUMBERS: tuple[Number, ...] = get_args(Number)
"""What a batch carries where each of its comparisons has it, by the names of its arrays."""

_FIELDS = {
    "response_score": ("scores", "scores"),
    "reference_logps": ("reference_logps", "reference log-probs"),
    "margin": ("margin", "margin"),
}
"""Of each number: a tree's field, and words for it."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Absent:
    """In a batch's place of an array: any use of it is a DataError. It has no leaves."""

    name: str
    why: str = dataclasses.field(compare=False)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        way = "give every comparison one, or take a loss that needs none"
        raise DataError(f"this batch has no {self.name}: {self.why}: {way}")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # what Python, JAX and notebooks look for in any object
            raise AttributeError(name)
        self._refuse()

    __array__ = __jax_array__ = __iter__ = __len__ = __getitem__ = __bool__ = __float__ = _refuse
    __add__ = __sub__ = __mul__ = __truediv__ = __pow__ = __matmul__ = __neg__ = __abs__ = _refuse
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rpow__ = __rmatmul__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __and__ = __or__ = __invert__ = _refuse


def lack(tree: TokenTree, number: Number) -> str:
    """Why the tree has no such number, in words; "" where it has."""
    field, words = _FIELDS[number]
    if getattr(tree, field) is None:
        return f"has no {words}"
    if number == "margin" and len(tree.branches) > 2:
        return f"has {len(tree.branches)} responses, and a margin is of a pair"
    return ""


class Census:
    """What all of some trees have, which are counted one by one.

    Attributes:
      widths: numbers of attributes that responses have, where they have any.
    """

    def __init__(self, trees: Iterable[TokenTree] = ()):
        self.widths: set[int] = set()
        self._count, self._margins = 0, False
        self._lacking: dict[Number, str] = {}
        self._had: set[Number] = set()
        for tree in trees:
            self.add(tree)

    def add(self, tree: TokenTree) -> None:
        """Counts one more tree."""
        for number in NUMBERS:
            if not (problem := lack(tree, number)):
                self._had.add(number)
            elif number not in self._lacking:
                self._lacking[number] = f"comparison {self._count}, counting from 0, {problem}"
        self._margins |= bool(tree.margin)
        self.widths |= {len(grades) for grades in tree.attributes or ()}
        self._count += 1

    def numbers(self) -> tuple[Number, ...]:
        """What a batch of any of these trees can carry."""
        absent = self.absent()
        return tuple(number for number in NUMBERS if number not in absent)

    def absent(self) -> dict[str, str]:
        """What no batch of these trees can carry, by name, and why.

        A number is absent where one tree lacks it, the margin also where each is 0, which is what
        data without margins say; attributes where no tree has any, since they have a mask.
        """
        absent = {
            number: problem if number in self._had else f"no comparison has {_FIELDS[number][1]}"
            for number, problem in self._lacking.items()
        }
        if not self._margins:
            absent["margin"] = "no comparison has a margin other than 0"
        if not self.widths:
            absent["attributes"] = "no comparison has any"
        return absent
