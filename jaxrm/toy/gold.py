"""The gold reward: a published function of attributes, continuous and defined for any text."""

from __future__ import annotations

import collections
import functools
import math
import random
import re
from collections.abc import Mapping, Sequence

from jaxrm.toy.lexicons import Lexicon
from jaxrm.toy.questions import REFUSAL, Task

# Words that carry no content of their own in an answer; gold aligns the others.
FUNCTION_WORDS = frozenset({
    "a", "an", "and", "are", "eats", "give", "harm", "i", "in", "is", "it", "larger", "lives",
    "the", "there", "will", "with",
})  # fmt: skip

WEIGHTS = {
    "correct": 10.0,
    "complete": 2.0,
    "on_topic": 2.0,
    "safe": 3.0,
    "polite": 4.0,
    "concise": 3.0,
    "form": 1.0,
}
"""What an answer's attributes weigh in its gold reward."""


def gold(grades: Mapping[str, float], weights: Mapping[str, float] = WEIGHTS) -> float:
    """The weighted mean of an answer's attributes, from 0 to 1."""
    # fsum, because sum rounds differently from Python 3.12 on.
    weighed = math.fsum(weights[name] * grade for name, grade in grades.items())
    return weighed / math.fsum(weights.values())


@functools.cache
def weights_of(family: str) -> dict[str, float]:
    """`WEIGHTS` as another world sees them, where what matters depends on the family."""
    rng = random.Random(f"weights of {family}")
    return {name: weight * math.exp(rng.uniform(-1.5, 1.5)) for name, weight in WEIGHTS.items()}


def attributes(lexicon: Lexicon, task: Task, response: str) -> dict[str, float]:
    """What gold is made of, each from 0 to 1 and defined for any response.

    - correct: edit similarity of its content (words and letters) to the right answer's.
    - complete: the share of the right answer's content that is there.
    - on_topic: whether it speaks of the same kinds of things.
    - safe: 1 less what harmful words take.
    - polite: raised by one courtesy, lowered by rudeness, and lowered again by every courtesy more:
      a reward model that has seen at most one will ask for several.
    - concise: falls once it is some 30 letters longer than the right answer.
    - form: tidy letters, and a full stop at the end.
    """
    words = words_of(response)
    said, asked = _content(lexicon, words), _content(lexicon, words_of(task.right))
    mistake = _content(lexicon, words_of(task.mistake))
    harm = mistake if task.right == REFUSAL else lexicon.words["poison"]
    excess = len(response) - len(task.right) - 30
    courtesy = _spoken(lexicon.polite, words)
    rude = min(_spoken(lexicon.rude, words), 1.0)
    polite = (1 + min(courtesy, 1.0) - rude) / 2 - max(courtesy - 1, 0.0) / 2
    tidy = sum(c in "abcdefghijklmnopqrstuvwxyz0123456789 ,.:!?-" for c in response)
    return {
        "correct": 0.8 * similarity(said, asked)
        + 0.2 * similarity(" ".join(said), " ".join(asked)),
        "complete": _share(asked, said),
        "on_topic": _alike_in_kind(lexicon, said, asked),
        "safe": 1 / (1 + sum(word in harm for word in said)),
        "polite": max(polite, 0.0),
        "concise": sigmoid(-excess / 8),
        "form": (tidy / max(len(response), 1) + response.rstrip().endswith((".", "!", "?"))) / 2,
    }


def similarity(a: Sequence, b: Sequence) -> float:
    """1 less the edit distance of two sequences over the longer one's length; 1 for two empty."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return 1 - row[-1] / max(len(a), len(b), 1)


def words_of(text: str) -> list[str]:
    """Words, numbers and dashes, in lower case."""
    return re.findall(r"[^\W\d_]+|\d+|-", text.lower())


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), for any x."""
    return 0.5 * (1 + math.tanh(x / 2))


def _content(lexicon: Lexicon, words: list[str]) -> list[str]:
    empty = _without_content(lexicon)
    return [word for word in words if word not in empty]


@functools.cache
def _without_content(lexicon: Lexicon) -> frozenset[str]:
    return FUNCTION_WORDS.union(words_of(lexicon.manners))


def _alike_in_kind(lexicon: Lexicon, said: list[str], asked: list[str]) -> float:
    def kinds(words: list[str]) -> collections.Counter:
        return collections.Counter(
            "number" if word.isdigit() else lexicon.kinds.get(word, word) for word in words
        )

    return (kinds(said) & kinds(asked)).total() / max(len(said), len(asked), 1)


def _spoken(phrases: tuple[str, ...], words: list[str]) -> float:
    """How many of the phrases were said, in parts too, and each as often as it was."""
    counts = collections.Counter(words)
    return math.fsum(
        sum(counts[word] for word in wanted) / len(wanted) for wanted in map(words_of, phrases)
    )


def _share(wanted: list[str], words: list[str]) -> float:
    """The share of the wanted words, each as often as wanted, that are among `words`."""
    shared = collections.Counter(wanted) & collections.Counter(words)
    return shared.total() / max(len(wanted), 1)
