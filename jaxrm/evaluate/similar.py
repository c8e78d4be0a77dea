"""Which texts are alike: cosines of any vectors, by default those of the words that they hold.

TF-IDF needs no model and sees words alone, not what they mean; where a sentence encoder (SimCSE and
its kin) is at hand, its vectors take the place of `tf_idf`'s.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.sparse

from jaxrm.data.audit.overlap import words
from jaxrm.data.comparison import Comparison, Conversation, fault, plain_text

Vectors = np.ndarray | scipy.sparse.csr_array
"""Float [n, d], one row for each text, of any length."""

Embed = Callable[[Sequence[str]], Vectors]
"""Texts -> vectors, in order."""

CELLS = 1 << 24
"""Cosines held at once: 128 MiB of them."""

DECIMALS = 12
"""Cosines are rounded to so many, so that neither ties nor the ends of a band depend on the order
in which a matrix product is summed."""


LOW, HIGH = 0.2, 0.8
"""A band for TF-IDF: in HHH, LLMBar and other sets of a few hundred prompts the nearest other one
has a cosine of .15 to .4 mostly, and from about .8 on it is the same one in other words. (SEAM's
band is [.8, .9), of SimCSE, whose cosines are higher throughout.)"""


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """The texts most like one text: their `indices` int [m] and `cosines` float64 [m], the most
    similar first, ties by index."""

    indices: np.ndarray
    cosines: np.ndarray


def tf_idf(texts: Sequence[str]) -> scipy.sparse.csr_array:
    """Float64 [texts, words]: how often a word is there, times log((1 + n) / (1 + n with it)) + 1.

    That is the smoothed weight of common use (scikit-learn's default). Words are those by which
    `jaxrm.data.audit.overlap` compares texts; a text without any is a row of zeros.
    """
    vocabulary: dict[str, int] = {}
    columns, counts, ends = [], [], [0]
    for text in texts:
        counted = collections.Counter(words(text))
        columns += [vocabulary.setdefault(word, len(vocabulary)) for word in counted]
        counts += counted.values()
        ends.append(len(columns))
    of_words = np.array(columns, np.int64)
    with_word = np.bincount(of_words, minlength=len(vocabulary))
    weights = np.log((1 + len(texts)) / (1 + with_word)) + 1
    values = np.array(counts, np.float64) * weights[of_words]
    return scipy.sparse.csr_array((values, of_words, ends), shape=(len(texts), len(vocabulary)))


def neighbours(vectors: Vectors, k: int, low: float = 0.0, high: float = 1.0) -> list[Neighbours]:
    """For each vector up to k others whose cosine with it lies in [low, high).

    Args:
      vectors: `tf_idf(texts)`, or an encoder's, of any length; the cosine with zeros is 0.
      k: how many at most.
      low, high: the band. One that ends below 1 leaves out copies.
    """
    return [Neighbours(near.indices[:k], near.cosines[:k]) for near in ranked(vectors, low, high)]


def ranked(vectors: Vectors, low: float, high: float) -> Iterator[Neighbours]:
    """`neighbours` without a limit, one vector after another: for a caller that skips some."""
    n = vectors.shape[0]
    unit = _unit(vectors)
    block = max(1, CELLS // max(n, 1))
    for start in range(0, n, block):
        product = unit[start : start + block] @ unit.T
        dense = product.toarray() if scipy.sparse.issparse(product) else product
        for i, cosines in enumerate(np.round(dense, DECIMALS), start):
            inside = (cosines >= low) & (cosines < high)
            inside[i] = False
            indices = np.flatnonzero(inside)
            order = np.argsort(-cosines[indices], kind="stable")
            yield Neighbours(indices[order], cosines[indices[order]])


def borrowed(
    comparisons: Sequence[Comparison],
    k: int,
    *,
    embed: Embed = tf_idf,
    low: float = LOW,
    high: float = HIGH,
) -> list[list[int]]:
    """For each comparison the places of up to k others whose best response is to a similar prompt.

    What they lend is a good answer to another question. So none has the comparison's own prompt,
    none has its best response, and no two have the same one.

    Args:
      comparisons: with ranks, all of messages or all of raw text.
      embed: of prompts as plain text; which band is a good one depends on it.
      low, high: as for `neighbours`; the defaults suit `tf_idf`.

    Returns:
      Places in `comparisons`, the most similar prompt first; fewer than k where the band has no
      more.

    Raises:
      DataError: a comparison has no ranks, or messages and raw text meet.
    """
    best = [best_response(comparison) for comparison in comparisons]
    forms = [isinstance(comparison.prompt, str) for comparison in comparisons]
    if len(set(forms)) > 1:
        odd = comparisons[forms.index(not forms[0])]
        raise fault(odd.where, "prompt", "messages and raw text cannot lend each other responses")
    vectors = embed([plain_text(comparison.prompt) for comparison in comparisons])

    def lenders(i: int, near: Neighbours) -> Iterator[int]:
        taken = {best[i]}
        for j in near.indices:
            other = comparisons[j]
            if other.prompt != comparisons[i].prompt and best[j] not in taken:
                taken.add(best[j])
                yield int(j)

    return [
        list(itertools.islice(lenders(i, near), k))
        for i, near in enumerate(ranked(vectors, low, high))
    ]


def best_response(comparison: Comparison) -> Conversation | str:
    """The first response of the best rank; raises DataError where there are no ranks."""
    if comparison.ranks is None:
        raise fault(comparison.where, "ranks", "missing, and the best response is asked for")
    return comparison.responses[comparison.ranks.index(min(comparison.ranks))]


def _unit(vectors: Vectors) -> Vectors:
    """The same directions at length 1; zeros stay zeros."""
    if not scipy.sparse.issparse(vectors):
        vectors = np.asarray(vectors, np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1.0)
    lengths = np.sqrt(vectors.multiply(vectors).sum(axis=1))
    scale = scipy.sparse.diags_array(1 / np.where(lengths > 0, lengths, 1.0))
    return (scale @ vectors).tocsr()
