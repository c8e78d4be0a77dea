"""Whatever puts a number on responses: models, ensembles, judges, rules of thumb, recorded scores.

A scorer is a function of comparisons, so that every benchmark, diagnosis and test takes any of
them: how it comes by its numbers is its own affair.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrm.data import chat, rows
from jaxrm.data.audit import floors
from jaxrm.data.comparison import Comparison, fault
from jaxrm.data.fields import get, items
from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.errors import DataError
from jaxrm.models import uncertainty
from jaxrm.read.scoring import Scored, score

Scorer = Callable[[Sequence[Comparison]], list[np.ndarray]]
"""Comparisons -> float [K] for each, in the order of its responses, higher is better; NaN where
there is none to be had."""

Judge = Callable[[Sequence[Comparison]], Sequence[float]]
"""Comparisons of two responses -> for each, from 0 to 1, how likely the first is the better one."""


def of_model(model: Scored, tokenizer: ChatTokenizer, **options: Any) -> Scorer:
    """A reward model's rewards, float32.

    Args:
      model, options: as for `jaxrm.read.scoring.score`.
      tokenizer: the model's own.
    """

    def scorer(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        return score(model, chat.tokenize(comparisons, tokenizer), **options)

    return scorer


def longer(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
    """A scorer: the number of characters."""
    return _split(floors.longer(floors.response_texts(comparisons)), comparisons)


def bag_of_words(train: Sequence[Comparison]) -> Scorer:
    """A linear Bradley-Terry model of a response's words (`jaxrm.data.audit.floors.bag_of_words`).

    Raises DataError where `train` orders nothing that it could learn from.
    """
    fitted = floors.bag_of_words(train)
    if fitted is None:
        raise DataError("no comparison prefers any response: a bag of words has nothing to learn")

    def scorer(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        return _split(fitted(floors.response_texts(comparisons)), comparisons)

    return scorer


def ensemble(
    members: Sequence[Scorer], combine: Callable[[np.ndarray], np.ndarray] = uncertainty.mean
) -> Scorer:
    """Several scorers as one.

    Args:
      members: Bradley-Terry leaves the offset and the scale of each free, so that any way to
        combine them but the mean of differences depends on both: `standardized` members first.
      combine: float [members, K] -> float [K], as those of `jaxrm.models.uncertainty`.
    """

    def scorer(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        scores = [member(comparisons) for member in members]
        return [combine(np.stack(each)) for each in zip(*scores, strict=True)]

    return scorer


def standardized(member: Scorer, offset: float, scale: float) -> Scorer:
    """(score - offset) / scale, as an exported model's card has them (`RewardScale`)."""
    return lambda comparisons: [(values - offset) / scale for values in member(comparisons)]


def of_judge(judge: Judge) -> Scorer:
    """How likely a response is to beat the others of its prompt, their mean, from 0 to 1.

    Every pair is shown in both orders and the two answers are averaged, since judges lean towards a
    place (Zheng et al., arXiv 2306.05685). K responses make K (K - 1) questions; a single one has
    nothing to beat and gets NaN.
    """

    def scorer(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        places = [
            (i, *pair)
            for i, comparison in enumerate(comparisons)
            for pair in itertools.permutations(range(len(comparison.responses)), 2)
        ]
        asked = [
            dataclasses.replace(
                comparisons[i],
                responses=(comparisons[i].responses[a], comparisons[i].responses[b]),
                ranks=None,
                scores=None,
                attributes=None,
            )
            for i, a, b in places
        ]
        sums = [np.zeros(len(comparison.responses)) for comparison in comparisons]
        for (i, a, b), first in zip(places, judge(asked), strict=True):
            sums[i][a] += first
            sums[i][b] += 1 - first
        with np.errstate(invalid="ignore"):
            return [values / (2 * (len(values) - 1)) for values in sums]

    return scorer


def recorded(location: str | Path) -> Scorer:
    """The scores in a file of rows {"id", "rewards"}, as `jaxrm.score` writes; null is NaN.

    Args:
      location: JSON lines or Parquet, as `jaxrm.data.rows` reads.

    Raises (DataError):
      a bad row, by file, row and field; when scoring, a comparison whose id is not there or which
      has another number of responses.
    """
    scores: dict[str, np.ndarray] = {}
    for where, row in rows.rows(str(location)):
        name = get(row, "id", where)
        if name in scores:
            raise fault(where, "id", f"{name!r} has been read before")
        values = items(get(row, "rewards", where), "rewards", where)
        try:
            scores[name] = np.array([np.nan if v is None else v for v in values], np.float64)
        except (TypeError, ValueError) as error:
            raise fault(where, "rewards", f"expected numbers: {error}") from error

    def scorer(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        ordered = []
        for comparison in comparisons:
            rewards = scores.get(comparison.id)
            if rewards is None or len(rewards) != len(comparison.responses):
                held = "no scores" if rewards is None else f"{len(rewards)} scores"
                asked = f"{len(comparison.responses)} responses to {comparison.id!r}"
                raise DataError(f"{location}: {held} for the {asked} ({comparison.where})")
            ordered.append(rewards)
        return ordered

    return scorer


def _split(values: np.ndarray, comparisons: Sequence[Comparison]) -> list[np.ndarray]:
    ends = np.cumsum([len(comparison.responses) for comparison in comparisons])
    return np.split(values, ends)[:-1]
