"""RewardFusion (arXiv 2309.16155): a reward averaged over prompts that are nearly the same.

    R_fused(q, y) = (R(q, y) + sum of w_i R(q_i, y)) / (1 + sum of w_i)

with q_i the prompts of a pool that are most like q, and w_i their cosines with it. What a reward
model says of a prompt by accident of its wording is averaged out, at the price of more scoring. So
is a difference between prompts that are alike and do not ask the same: the higher the threshold,
the less of it.

The published code looks up whole texts, question and answer, and averages the rewards of the
neighbours with their OWN answers; here, as in the formula, y is scored under every prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse

from jaxrm.data.comparison import Comparison, Conversation, plain_text
from jaxrm.errors import require
from jaxrm.evaluate.scorers import Scorer
from jaxrm.evaluate.similar import DECIMALS, Embed, Vectors, tf_idf

Prompt = Conversation | str

NEIGHBOURS, THRESHOLD = 5, 0.9
"""The paper's: how many prompts at most, and the least cosine of each."""


def fused(
    scorer: Scorer,
    pool: Sequence[Prompt],
    *,
    embed: Embed = tf_idf,
    k: int = NEIGHBOURS,
    threshold: float = THRESHOLD,
) -> Scorer:
    """A scorer that gives a response the mean of its rewards under its own and similar prompts.

    Args:
      scorer: the rewards that are averaged.
      pool: the prompts to look in, such as those of the training data. Copies count once, and the
        prompt itself is no neighbour of its own.
      embed: of each prompt together with the pool, as plain text (SimCSE in the paper). So the
        vectors of `tf_idf`, which depend on all texts, give a score that depends on nothing scored
        beside it; an encoder should remember the texts that it has seen.
      k: neighbours at most, the most similar first, ties by place in the pool.
      threshold: their least cosine, above 0.

    Returns:
      A scorer, float64; a prompt without neighbours has the rewards of `scorer`. When scoring it
      raises DataError where a prompt of messages finds one of raw text, or the other way round.

    Raises:
      OptionError: k below 1, or a threshold not in (0, 1].
    """
    require(k >= 1, "k", "at least 1", k)
    require(0 < threshold <= 1, "threshold", "in (0, 1]", threshold)
    unique = list(dict.fromkeys(pool))

    def fused_scores(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        similar = {
            prompt: _similar(prompt, unique, embed, k, threshold)
            for prompt in dict.fromkeys(comparison.prompt for comparison in comparisons)
        }
        asked, weights, ends = [], [], []
        for comparison in comparisons:
            for prompt, weight in [(comparison.prompt, 1.0), *similar[comparison.prompt]]:
                asked.append(dataclasses.replace(comparison, prompt=prompt))
                weights.append(weight)
            ends.append(len(asked))
        rewards = scorer(asked)
        parts = zip([0, *ends], ends, strict=False)
        return [np.average(rewards[a:b], axis=0, weights=weights[a:b]) for a, b in parts]

    return fused_scores


def _similar(
    prompt: Prompt, pool: Sequence[Prompt], embed: Embed, k: int, threshold: float
) -> list[tuple[Prompt, float]]:
    """The neighbours of a prompt, and their cosines with it."""
    cosines = _with_first(embed([plain_text(text) for text in (prompt, *pool)]))
    order = np.argsort(-cosines, kind="stable")
    near = [(pool[j], float(cosines[j])) for j in order if cosines[j] >= threshold]
    return [(other, cosine) for other, cosine in near if other != prompt][:k]


def _with_first(vectors: Vectors) -> np.ndarray:
    """Float64 [n - 1]: the cosine of every other vector with the first; 0 with zeros."""
    vectors = scipy.sparse.csr_array(vectors)
    products = (vectors @ vectors[[0]].T).toarray()[:, 0]
    lengths = np.sqrt(vectors.power(2).sum(axis=1))
    both = lengths * lengths[0]
    return np.round(products / np.where(both > 0, both, 1.0), DECIMALS)[1:]
