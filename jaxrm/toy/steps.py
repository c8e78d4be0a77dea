"""Sums worked out step by step, with slips: what process rewards are about."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Solution:
    """A sum worked out.

    Attributes:
      steps: the totals, one after another.
      labels: which of them follow from the one before, whatever that was.
      outcome: whether the last total is right. Two slips may make up for each other.
    """

    steps: tuple[str, ...]
    labels: tuple[bool, ...]
    outcome: bool

    @property
    def text(self) -> str:
        """The steps as one answer."""
        return ", ".join(self.steps)


def draw_sum(numbers: Sequence[int], rng: random.Random) -> str:
    """Three to five additions and subtractions, such as "7 plus 4 minus 2 plus 5"."""
    total = rng.choice(numbers)
    words = [str(total)]
    for _ in range(rng.randint(3, 5)):
        number = rng.choice(numbers)
        minus = number <= total and rng.random() < 0.5
        total += -number if minus else number
        words += ["minus" if minus else "plus", str(number)]
    return " ".join(words)


def solution(question: str, slips: Mapping[int, int] | None = None) -> Solution:
    """The steps of a sum, where step i comes out wrong by slips[i].

    Raises ValueError for text that is no sum.
    """
    slips = slips or {}
    first, *rest = question.split()
    if len(rest) < 2 or len(rest) % 2:
        raise ValueError(f"not a sum: {question!r}")
    right = total = int(first)
    steps, labels = [], []
    for i, (word, number) in enumerate(zip(rest[::2], rest[1::2], strict=True)):
        if word not in ("plus", "minus"):
            raise ValueError(f"not a sum: {question!r}")
        change = int(number) if word == "plus" else -int(number)
        slip = slips.get(i, 0)
        right, total = right + change, total + change + slip
        steps.append(str(total))
        labels.append(slip == 0)
    return Solution(tuple(steps), tuple(labels), total == right)


def draw_slips(count: int, rng: random.Random) -> dict[int, int]:
    """Where an author slips in `count` steps: nowhere, once, or twice with the errors cancelling.

    Half of all solutions come out right, and a fifth of those by two slips.
    """
    chance = rng.random()
    if chance < 0.4:
        return {}
    if chance < 0.9:
        return {rng.randrange(count): rng.choice((-2, -1, 1, 2))}
    first, second = sorted(rng.sample(range(count), 2))
    error = rng.choice((-2, -1, 1, 2))
    return {first: error, second: -error}
