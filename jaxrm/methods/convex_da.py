"""ConvexDA (arXiv 2309.16155): misspelt copies of a pair, of which those that differ most are kept.

A reward model that is steadier under small changes of the text is more consistent on Contrast
Instructions. Five misspelt copies of each pair are made, 5 % of the words of each; of the five, as
points in a plane, only the corners of their convex hull are kept, since they surround the others:

    corners = convex_da(comparisons, embed=encoder)
    training = [*comparisons, *corners]

The published code misspells the chosen response alone, so that to be misspelt becomes a sign of the
better one, and appends one mutable row for all corners of a pair, so that all hold the last of
them. Here all responses of a copy are misspelt, each in its own way, and every corner is its own.

The remedy for inference, RewardFusion, is `jaxrm.evaluate.fusion`; Contrast Instructions are
`jaxrm.evaluate.consistency`.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull

from jaxrm.data.comparison import Comparison, Conversation, plain_text
from jaxrm.errors import require
from jaxrm.evaluate.similar import Embed, best_response, tf_idf
from jaxrm.methods.method import Method
from jaxrm.methods.task import Task

COPIES, SHARE = 5, 0.05
"""The paper's: copies of each pair, and the share of their words that are misspelt."""

SPELLABLE = re.compile(r"[^\W\d_]{2,}")
"""A word that can be misspelt. Numbers are none: with two digits exchanged they say another
thing."""

FLAT = 1e-9
"""The thickness, as a share of the length, from which points are taken to lie on a line."""


def convex_da(
    comparisons: Sequence[Comparison],
    *,
    embed: Embed = tf_idf,
    copies: int = COPIES,
    share: float = SHARE,
    seed: int = 0,
) -> list[Comparison]:
    """Misspelt copies of comparisons, those on the convex hull of each one's copies.

    Args:
      comparisons: with ranks, which copies keep, as all else that is known of them.
      embed: of the copies' best responses, all at once (SimCSE in the paper); two principal
        components of each comparison's own copies make the plane.
      copies: of a comparison, before some are dropped; fewer where two are the same.
      share: of a response's words that are misspelt, at least one.
      seed: the same one gives the same copies, and each comparison's depend on no other
        comparison but through `embed`.

    Returns:
      The copies alone, in order, as "<id>/misspelt-<number>"; none of a comparison whose best
      response holds no word to misspell.

    Raises:
      DataError: a comparison has no ranks.
      OptionError: fewer than one copy, or a share not in (0, 1].
    """
    require(copies >= 1, "copies", "at least 1", copies)
    require(0 < share <= 1, "share", "in (0, 1]", share)
    made = [_copies(c, i, copies, share, seed) for i, c in enumerate(comparisons)]
    texts = [plain_text(best_response(copy)) for of_one in made for copy in of_one]
    if not texts:
        return []
    vectors = embed(texts)
    if scipy.sparse.issparse(vectors):
        vectors = vectors.tocsr()
    kept, start = [], 0
    for of_one in made:
        points = plane(_dense(vectors[start : start + len(of_one)]))
        kept += [of_one[j] for j in vertices(points)]
        start += len(of_one)
    return kept


def misspelt(text: str, rng: random.Random, share: float = SHARE) -> str:
    """The text with a share of its words misspelt, at least one.

    A misspelt word has two neighbouring letters exchanged, one left out, or one doubled. Words of
    one letter and numbers stay as they are.
    """
    words = list(SPELLABLE.finditer(text))
    wrong = rng.sample(words, min(len(words), max(1, round(share * len(words)))))
    for word in sorted(wrong, key=lambda word: -word.start()):
        text = text[: word.start()] + _slip(word.group(), rng) + text[word.end() :]
    return text


def plane(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """The first two principal components, float64; 0 where there are fewer."""
    vectors = np.asarray(vectors, np.float64)
    points = np.zeros((len(vectors), 2))
    if len(vectors) and vectors.shape[1]:
        left, sizes, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
        components = (left * sizes)[:, :2]
        points[:, : components.shape[1]] = components
    return points


def vertices(points: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, " m"]:
    """Places of the corners of the points' convex hull, in order.

    Of points at one place the first stands for all. Points on a line have its two ends as corners;
    a single place has one, and no point none.
    """
    points = np.asarray(points, np.float64)
    if not len(points):
        return np.zeros(0, np.int64)
    across = np.abs(points - points[0]).max()
    _, first = np.unique(np.round(points / (across or 1.0), 9), axis=0, return_index=True)
    first.sort()
    centred = points[first] - points[first].mean(axis=0)
    along, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    if len(first) < 3 or sizes[1] <= FLAT * sizes[0]:
        ends = {int(np.argmin(along[:, 0])), int(np.argmax(along[:, 0]))}
        return np.sort(first[list(ends)])
    return np.sort(first[ConvexHull(centred).vertices])


def _copies(
    comparison: Comparison, place: int, count: int, share: float, seed: int
) -> list[Comparison]:
    """Up to `count` misspelt copies, no two of them with the same best response."""
    rng = random.Random(f"{seed} {comparison.id} {place}")
    best = best_response(comparison)
    made = {best: comparison}
    for number in range(count):
        responses = tuple(_misspelt(response, rng, share) for response in comparison.responses)
        name = f"{comparison.id}/misspelt-{number}"
        copy = dataclasses.replace(comparison, responses=responses, id=name)
        made.setdefault(best_response(copy), copy)
    del made[best]
    return list(made.values())


def _misspelt(response: Conversation | str, rng: random.Random, share: float) -> Conversation | str:
    """The response with its last message misspelt, which is the assistant's."""
    if isinstance(response, str):
        return misspelt(response, rng, share)
    last = response[-1]
    return (*response[:-1], dataclasses.replace(last, content=misspelt(last.content, rng, share)))


def _slip(word: str, rng: random.Random) -> str:
    """The word with one slip of the pen, which always shows."""
    i = rng.randrange(len(word) - 1)
    slips = {
        word[:i] + word[i + 1] + word[i] + word[i + 2 :],
        word[:i] + word[i + 1 :],
        word[:i] + word[i] + word[i:],
    }
    return rng.choice(sorted(slips - {word}))


def _dense(vectors: np.ndarray | scipy.sparse.csr_array) -> np.ndarray:
    return vectors.toarray() if scipy.sparse.issparse(vectors) else np.asarray(vectors)


def with_corners(task: Task) -> list[Comparison]:
    """Every pair, and its misspelt copies on the hull."""
    return [*task.data.comparisons, *convex_da(task.data.comparisons, seed=task.seed)]


CONVEX_DA = Method(
    "ConvexDA: Bradley-Terry on pairs and their misspelt copies (arXiv 2309.16155)",
    prepare=with_corners,
)
