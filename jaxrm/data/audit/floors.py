"""What style alone gets right: baselines that a reward model must beat to have learnt more.

- longer: the response with more characters is better;
- bag of words: a linear Bradley-Terry model of a response's words, reward = sum over words of
  weight * log(1 + count), fitted by L-BFGS with an L2 penalty. It sees length, markup, refusals and
  turns of phrase, but neither the prompt nor the order of words.

Both are strict: two responses of the same score are no win. A comparison counts once, however many
ordered pairs its ranks make, and one without an order (unranked, a single response, all tied) has
nothing to get right and is not among the n.
"""

from __future__ import annotations

import collections
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse
import scipy.special

from jaxrm.data.comparison import Comparison, Conversation, plain_text
from jaxrm.data.ordering import OrderedPairs, ordered_pairs, shares

VOCABULARY = 20_000
"""Words of the bag: those in the most responses."""
PENALTY = 100.0
"""L2 on the weights, against the sum of the losses: of 1, 10, 100 and 1000 the best on the held-out
part of 23,000 real pairs, or within .001 of it."""
HELD_OUT = 5
"""One prompt in so many is held out of the source."""

UNNAMED = "(none)"
"""What the rows without a subset are called where others have one."""

WORD = re.compile(r"\w+|[^\w\s]|\n")
"""Markup is style too: a word is a run of letters and digits, one other mark, or a line's end."""

Scorer = Callable[[Sequence[str]], np.ndarray]
"""Responses as text -> float [responses], higher is better."""


@dataclass(frozen=True)
class Floor:
    """A baseline's strict accuracy over `n` comparisons with an order.

    Attributes:
        low, high: its 95 % interval (Wilson 1927), as if each comparison were of its own prompt. Of
            few comparisons, be they all right, it is wide.
        tied: the share, counted likewise, on which both scores are equal: a coin in their place
            would add half of it.
    """

    accuracy: float
    n: int
    low: float
    high: float
    tied: float


def floors(
    source: Sequence[Comparison], evaluations: Mapping[str, Sequence[Comparison]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Both baselines on a held-out part of the source and on each evaluation set; on all of the
    source, where the bag of words would be scored on what it has learnt from, the longer response.

    The bag of words that is scored on the held-out part has learnt from the rest of the source; the
    one scored on an evaluation set has learnt from all of it. No prompt lies in both parts, but a
    conversation and its continuation are two prompts.

    Returns:
        For "source", "held out" and each evaluation set, all of it under "" and then by subset
        where it has more than one: the number of comparisons, and `longer` and `bag_of_words` as
        the fields of a Floor, or None where no comparison has an order or the bag had nothing to
        learn from.
    """
    held_out = [c for c in source if is_held_out(c.prompt)]
    rest = [c for c in source if not is_held_out(c.prompt)]
    by_split = {
        "source": _by_subset(source, bag=None),
        "held out": _by_subset(held_out, bag_of_words(rest)),
    }
    if evaluations:
        bag = bag_of_words(source)
        by_split |= {name: _by_subset(split, bag) for name, split in evaluations.items()}
    return by_split


def is_held_out(prompt: Conversation | str) -> bool:
    """Whether a prompt is of the fifth that is held out: a function of its text alone."""
    turns = prompt if isinstance(prompt, str) else [message.row() for message in prompt]
    digest = hashlib.sha256(json.dumps(turns).encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT == 0


def response_texts(comparisons: Sequence[Comparison]) -> list[str]:
    """The responses of all comparisons, one after another, as text."""
    return [plain_text(response) for c in comparisons for response in c.responses]


def longer(texts: Sequence[str]) -> np.ndarray:
    """Float [texts]: the number of characters."""
    return np.array([len(text) for text in texts], np.float64)


def bag_of_words(comparisons: Sequence[Comparison]) -> Scorer | None:
    """A linear Bradley-Terry model of these comparisons; None where they order nothing."""
    pairs = ordered_pairs(comparisons)
    if not len(pairs.owner):
        return None
    counts = _counts(response_texts(comparisons))
    responses_with = collections.Counter(word for count in counts for word in count)
    # Alphabetical among equals, so that the vocabulary does not depend on the order of rows.
    common = sorted(responses_with.items(), key=lambda item: (-item[1], item[0]))[:VOCABULARY]
    vocabulary = {word: i for i, (word, _) in enumerate(common)}
    features = _log_counts(counts, vocabulary)
    weight = 1 / pairs.counts[pairs.owner]
    weights = _bradley_terry(features[pairs.better] - features[pairs.worse], weight)

    def score(texts: Sequence[str]) -> np.ndarray:
        return _log_counts(_counts(texts), vocabulary) @ weights

    return score


def _by_subset(comparisons: Sequence[Comparison], bag: Scorer | None) -> dict[str, dict[str, Any]]:
    pairs = ordered_pairs(comparisons)
    texts = response_texts(comparisons)
    verdicts = {"longer": _verdicts(longer(texts), pairs)}
    verdicts["bag_of_words"] = bag and _verdicts(bag(texts), pairs)
    members_of: dict[str, list[int]] = {"": list(range(len(comparisons)))}
    if len({comparison.subset for comparison in comparisons}) > 1:
        for i, comparison in enumerate(comparisons):
            members_of.setdefault(comparison.subset or UNNAMED, []).append(i)
    return {
        subset: {
            "comparisons": len(members),
            **{
                name: of_baseline and _floor(*(values[members] for values in of_baseline))
                for name, of_baseline in verdicts.items()
            },
        }
        for subset, members in members_of.items()
    }


def _verdicts(scores: np.ndarray, pairs: OrderedPairs) -> tuple[np.ndarray, np.ndarray]:
    """Float [comparisons] each: the share of its pairs that the scores have right, and ties."""
    better, worse = scores[pairs.better], scores[pairs.worse]
    return shares(better > worse, pairs), shares(better == worse, pairs)


def _floor(right: np.ndarray, tied: np.ndarray) -> dict[str, Any] | None:
    counted = right[~np.isnan(right)]
    if not counted.size:
        return None
    share, n = float(counted.mean()), int(counted.size)
    return asdict(Floor(share, n, *wilson(share, n), float(np.nanmean(tied))))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n >= 1."""
    z2 = scipy.special.ndtri(0.975) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return max(0.0, float(centre - reach)), min(1.0, float(centre + reach))


def _counts(texts: Sequence[str]) -> list[collections.Counter[str]]:
    return [collections.Counter(WORD.findall(text.casefold())) for text in texts]


def _log_counts(
    counts: Sequence[Mapping[str, int]], vocabulary: Mapping[str, int]
) -> scipy.sparse.csr_array:
    """Float [texts, words]: log(1 + count)."""
    columns, values, ends = [], [], [0]
    for count in counts:
        counted = [(vocabulary[word], n) for word, n in count.items() if word in vocabulary]
        columns += [column for column, _ in counted]
        values += [n for _, n in counted]
        ends.append(len(columns))
    shape = (len(counts), len(vocabulary))
    logs = np.log1p(np.array(values, np.float64))
    return scipy.sparse.csr_array((logs, np.array(columns, int), ends), shape=shape)


def _bradley_terry(differences: scipy.sparse.csr_array, weight: np.ndarray) -> np.ndarray:
    """Float [words]: the minimum of sum(weight * softplus(-d @ w)) + PENALTY / 2 * |w|^2."""
    transposed = differences.T.tocsr()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = differences @ weights
        value = weight @ np.logaddexp(0, -margins) + PENALTY / 2 * weights @ weights
        gradient = -(transposed @ (weight * scipy.special.expit(-margins)))
        return value, gradient + PENALTY * weights

    start = np.zeros(differences.shape[1])
    return scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
