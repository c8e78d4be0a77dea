"""What experiments.process_reward trains and measures on: sums worked out in steps, and labels.

Everything is drawn by the toy world's author, who slips (`jaxrm.toy.steps`): solutions, and
the completions that roll-outs need, because nothing is sampled from a model.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, Message, join_steps
from jaxrm.errors import require
from jaxrm.methods import process_labels
from jaxrm.toy import steps
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.steps import Solution

TOGETHER = 4
"""Solutions of a question that are packed together, and that a choice on `val` is among."""
PARTS = {"text": range(4), "train": range(4, 7), "val": range(7, 8), "test": range(8, 10)}
"""Which tenths of all sums each part of the data has."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is drawn for each seed."""

    numbers: int = 3
    """The largest number in a sum, which begins with 1."""
    questions: int = 1200
    """Of `process`, each with 4 solutions."""
    roll_outs: int = 8
    """Completions from each step."""
    judge: float = 0.8
    """How often the judge sees the true first error."""
    epochs: int = 3
    items: int = 60
    """Questions of the test; `val` has half as many."""
    candidates: int = 64
    """Solutions to each of them."""

    def __post_init__(self):
        for name in ("numbers", "questions", "roll_outs", "epochs"):
            value = getattr(self, name)
            require(value >= 1, f"--sizes.{name.replace('_', '-')}", "at least 1", value)
        require(self.items >= 2, "--sizes.items", "at least 2", self.items)
        require(0 <= self.judge <= 1, "--sizes.judge", "in [0, 1]", self.judge)
        whole = self.candidates >= TOGETHER and self.candidates % TOGETHER == 0
        require(whole, "--sizes.candidates", f"a multiple of {TOGETHER}", self.candidates)


@dataclasses.dataclass(frozen=True)
class Worked:
    """A question, the sum in it, and solutions of the author's."""

    question: str
    sum: str
    solutions: tuple[Solution, ...]

    def texts(self, solution: Solution) -> list[str]:
        """The solution's steps, each written out: "4 plus 2 is 6"."""
        first, *rest = self.sum.split()
        before = (first, *solution.steps)
        each = zip(before, rest[::2], rest[1::2], solution.steps, strict=False)
        return [f"{total} {word} {number} is {new}" for total, word, number, new in each]


def draw(part: str, seed: int, n: int, solutions: int, numbers: int) -> list[Worked]:
    """The first n questions of a part of the data, and solutions to each."""
    words, found = LEXICONS["report"].words, []
    for i in range(n):
        rng = random.Random(f"{part} {seed} {i}")
        asked = ""
        while not asked or zlib.crc32(asked.encode()) % 10 not in PARTS[part]:
            asked = steps.draw_sum(range(1, numbers + 1), rng)
        asker = f"{rng.choice(words['person'])} of {rng.choice(words['place'])}"
        count = len(steps.solution(asked).steps)
        worked = (steps.solution(asked, steps.draw_slips(count, rng)) for _ in range(solutions))
        found.append(Worked(f"{asker}: work out {asked}.", asked, tuple(worked)))
    return found


def completions(asked: str, given: Solution, t: int, n: int, rng: random.Random) -> list[bool]:
    """Whether the answer is right when the author goes on from step t, n times."""
    right, count = steps.solution(asked), len(given.steps)
    errors = [int(a) - int(b) for a, b in zip(given.steps, right.steps, strict=True)]
    before = {i: errors[i] - (errors[i - 1] if i else 0) for i in range(t + 1)}
    outcomes = []
    for _ in range(n):
        # Two slips need two steps; of a single one, the author's first counts.
        later = steps.draw_slips(max(count - t - 1, 2), rng)
        slips = before | {t + 1 + i: slip for i, slip in later.items() if t + 1 + i < count}
        outcomes.append(steps.solution(asked, slips).outcome)
    return outcomes


def comparison(worked: Worked, labels: Sequence[Sequence[float]] | None = None) -> Comparison:
    """The solutions as responses in steps."""
    each = labels or [None] * len(worked.solutions)
    joined = [
        join_steps(worked.texts(s), row, ", ")
        for s, row in zip(worked.solutions, each, strict=True)
    ]
    return Comparison(
        (Message("user", worked.question),),
        tuple((Message("assistant", text),) for text, _ in joined),
        steps=tuple(ends for _, ends in joined),
    )


# Labels of steps, NaN for none

Labels = Sequence[Sequence[Sequence[float]]]
"""For each question, for each solution, for each step."""
Labeller = Callable[[Sequence[Worked], Sizes, int], Labels]
"""(questions, sizes, seed) -> labels."""


def of_author(questions: Sequence[Worked], sizes: Sizes, seed: int) -> Labels:
    """Which steps follow, up to the first that does not."""
    return [[without_later(s.labels) for s in worked.solutions] for worked in questions]


def without_later(labels: Sequence[float]) -> list[float]:
    """The labels up to the first error. An author who has slipped rarely slips again, so that later
    labels would teach to take signs of an earlier slip for signs of right steps."""
    known = np.asarray(labels, np.float64)
    return np.where(process_labels.until_first_error(known), known, math.nan).tolist()


def of_outcome(questions: Sequence[Worked], sizes: Sizes, seed: int) -> Labels:
    """The last step has the outcome."""
    return [
        [[math.nan] * (len(s.steps) - 1) + [float(s.outcome)] for s in worked.solutions]
        for worked in questions
    ]


def of_shares(questions: Sequence[Worked], sizes: Sizes, seed: int) -> Labels:
    """The share of completions that come out right."""
    return _rolled_out(questions, sizes, seed, process_labels.share_correct)


def of_roll_outs(questions: Sequence[Worked], sizes: Sizes, seed: int) -> Labels:
    """Whether any does, up to the first step from which none does."""

    def label(outcomes: Sequence[Sequence[bool]]) -> list[float]:
        return without_later(process_labels.any_correct(outcomes))

    return _rolled_out(questions, sizes, seed, label)


def of_consensus(questions: Sequence[Worked], sizes: Sizes, seed: int) -> Labels:
    """Those, of solutions in which the judge sees the same first error."""
    labels, rng = of_roll_outs(questions, sizes, seed), random.Random(f"judge {seed}")
    flat = list(itertools.chain.from_iterable(labels))
    truth = itertools.chain.from_iterable(of_author(questions, sizes, seed))
    judged = []
    for row in truth:
        place = process_labels.first_error(row)
        others = [i for i in range(process_labels.NO_ERROR, len(row)) if i != place]
        judged.append(place if rng.random() < sizes.judge else rng.choice(others))
    kept = process_labels.consensus([process_labels.first_error(row) for row in flat], judged)
    each = zip(flat, kept, strict=True)
    known = iter([row if keep else [math.nan] * len(row) for row, keep in each])
    return [[next(known) for _ in rows] for rows in labels]


def _rolled_out(
    questions: Sequence[Worked],
    sizes: Sizes,
    seed: int,
    label: Callable[[Sequence[Sequence[bool]]], Sequence[float]],
) -> Labels:
    rng = random.Random(f"roll-outs {seed}")
    return [
        [
            label([
                completions(worked.sum, s, t, sizes.roll_outs, rng) for t in range(len(s.steps))
            ])
            for s in worked.solutions
        ]
        for worked in questions
    ]  # fmt: skip
