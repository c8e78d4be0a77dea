"""Sums that the author worked out, as responses in steps, and how he would have gone on.

Nothing here is sampled from a model: solutions are the author's, who slips (`jaxrm.toy.steps`), and
so are the completions from a step on, which roll-outs need.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import zlib
from collections.abc import Sequence

from jaxrm.data.comparison import Comparison, Message, join_steps
from jaxrm.toy import steps
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.steps import Solution

PARTS = {"text": range(4), "train": range(4, 7), "val": range(7, 8), "test": range(8, 10)}
"""Which tenths of all sums each part of the data has."""


@dataclasses.dataclass(frozen=True)
class Worked:
    """A question, the sum in it, and a solution of the author's."""

    question: str
    sum: str
    solution: Solution

    @property
    def texts(self) -> list[str]:
        """The steps, each written out: "4 plus 2 is 6"."""
        first, *rest = self.sum.split()
        totals = itertools.pairwise((first, *self.solution.steps))
        each = zip(totals, rest[::2], rest[1::2], strict=True)
        return [f"{total} {word} {number} is {new}" for (total, new), word, number in each]

    def outcomes(self, n: int, rng: random.Random) -> list[list[bool]]:
        """For each step, whether the answer is right when the author goes on from there, n times:
        roll-outs."""
        return [[self._goes_on(t, rng) for _ in range(n)] for t in range(len(self.solution.steps))]

    def _goes_on(self, t: int, rng: random.Random) -> bool:
        count = len(self.solution.steps)
        # Two slips need two steps; of a single one, the author's first counts.
        later = steps.draw_slips(max(count - t - 1, 2), rng)
        slips = {i: slip for i, slip in self._slips.items() if i <= t}
        slips |= {t + 1 + i: slip for i, slip in later.items() if t + 1 + i < count}
        return steps.solution(self.sum, slips).outcome

    @functools.cached_property
    def _slips(self) -> dict[int, int]:
        """By how much each step comes out wrong, given the one before."""
        totals = zip(self.solution.steps, steps.solution(self.sum).steps, strict=True)
        errors = [int(total) - int(right) for total, right in totals]
        return {i: b - a for i, (a, b) in enumerate(itertools.pairwise([0, *errors]))}


def draw(part: str, n: int, seed: int, *, solutions: int, largest: int) -> list[Worked]:
    """The first n questions of a part of the data, so many solutions to each in a row.

    Args:
      part: of `PARTS`, which share no sum.
      largest: number of a sum; the least is 1.
    """
    words, drawn = LEXICONS["report"].words, []
    for i in range(n):
        rng = random.Random(f"{part} {seed} {i}")
        asked = ""
        while not asked or zlib.crc32(asked.encode()) % 10 not in PARTS[part]:
            asked = steps.draw_sum(range(1, largest + 1), rng)
        question = (
            f"{rng.choice(words['person'])} of {rng.choice(words['place'])}: work out {asked}."
        )
        count = len(steps.solution(asked).steps)
        for _ in range(solutions):
            solution = steps.solution(asked, steps.draw_slips(count, rng))
            drawn.append(Worked(question, asked, solution))
    return drawn


def comparisons(
    worked: Sequence[Worked],
    together: int,
    labels: Sequence[Sequence[float]] | None = None,
) -> list[Comparison]:
    """Each `together` solutions in a row, of one question, as a comparison of responses in steps.

    Args:
      labels: a number for each step of each solution, NaN for none.
    """
    rows = [None] * len(worked) if labels is None else labels
    joined = [join_steps(w.texts, row, ", ") for w, row in zip(worked, rows, strict=True)]
    parts = (slice(i, i + together) for i in range(0, len(worked), together))
    return [
        Comparison(
            (Message("user", worked[part][0].question),),
            tuple((Message("assistant", text),) for text, _ in joined[part]),
            steps=tuple(ends for _, ends in joined[part]),
        )
        for part in parts
    ]
