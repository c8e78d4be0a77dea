"""Comparisons made by hand, and scorers whose every habit is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, Message, plain_text
from jaxrm.evaluate.scorers import Scorer


def pair(question: str, better: str, worse: str, **known) -> Comparison:
    return Comparison.pair((Message("user", question),), better, worse, **known)


def by_text(reward: Callable[[str], float]) -> Scorer:
    """A scorer that reads the answer alone."""

    def scorer(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        return [np.array([reward(plain_text(r)) for r in c.responses]) for c in comparisons]

    return scorer
