"""What a study trains and measures on: the toy world, or files of comparisons."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
from collections.abc import Sequence
from typing import Protocol

from jaxrm import toy
from jaxrm.data import sources
from jaxrm.data.comparison import Comparison
from jaxrm.data.sources import Source
from jaxrm.errors import DataError

VALIDATION = 0.1
"""The share of a file's prompts that are kept to choose by."""
TEXTS = 1000
"""Questions of the toy world's text."""


class Draw(Protocol):
    """Where comparisons come from; every seed draws others.

    Attributes:
      splits: what is measured, the endpoint first.
      figure: what is chosen and compared by: "macro" (subsets weigh alike) or "accuracy".
    """

    splits: tuple[str, ...]
    figure: str

    def draw(self, split: str, n: int, seed: int) -> list[Comparison]:
        """Up to n comparisons of `train` or another split."""
        ...

    def text(self) -> list[Comparison]:
        """What a method with text has beside them."""
        ...


@dataclasses.dataclass(frozen=True)
class Condition:
    """What training data a run has, and for how long.

    Attributes:
      steps: of each of its models, in place of epochs.
    """

    data: Draw
    pairs: int
    epochs: int = 1
    steps: int | None = None

    def __str__(self) -> str:
        epochs = f", {self.epochs} epochs" if self.epochs > 1 else ""
        steps = "" if self.steps is None else f", {self.steps} steps"
        return f"{self.pairs:,} comparisons, {self.data}{epochs}{steps}"


@dataclasses.dataclass(frozen=True)
class Toy:
    """Comparisons of the toy world (see `jaxrm.toy.World`); every seed is another world.

    Attributes:
      responses: to a prompt of training; all other splits are pairs.
    """

    label_noise: float
    cue_agreement: float
    temperature: float = 0.0
    responses: int = 2
    lexicon: str = "report"

    splits = ("ood_prompt", "id", "ood_response", "spurious", "val")
    """What is measured, the endpoint first."""
    figure = "macro"
    """What is chosen and compared by: families weigh alike."""

    def draw(self, split: str, n: int, seed: int) -> list[Comparison]:
        """The first n comparisons of `train` or another split."""
        world = toy.World(
            seed=seed,
            lexicon=self.lexicon,
            label_noise=self.label_noise,
            cue_agreement=self.cue_agreement,
            temperature=self.temperature,
        )
        return world.comparisons(split, n, self.responses if split == "train" else 2)

    def text(self) -> list[Comparison]:
        """Some of what the base has read, which is the text of seed 0."""
        return toy.World(seed=0, lexicon=self.lexicon).pretraining_text(TEXTS)

    def __str__(self) -> str:
        parts = [f"{100 * self.label_noise:g} % label noise", f"cue agreement {self.cue_agreement}"]
        if self.temperature:
            parts.append(f"annotators' temperature {self.temperature:g}")
        if self.responses > 2:
            parts.append(f"rankings of {self.responses}")
        if self.lexicon != "report":
            parts.append(f"{self.lexicon} lexicon")
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class Files:
    """Pairs of any sources (see `jaxrm.data.sources`); every seed draws others to train on.

    Attributes:
      train: sources to train on, a tenth of whose prompts, drawn by the seed, are `val`.
      measured: sources to measure on, each a split under its own name, the endpoint first.
    """

    train: tuple[str, ...]
    measured: tuple[str, ...]

    figure = "accuracy"
    """What is chosen and compared by: rows weigh alike."""

    @property
    def splits(self) -> tuple[str, ...]:
        """What is measured, the endpoint first."""
        return (*(Source.parse(text).name for text in self.measured), "val")

    def draw(self, split: str, n: int, seed: int) -> list[Comparison]:
        """Up to n comparisons: of `train` and `val` as the seed draws them, else the first ones."""
        if split not in ("train", "val"):
            return list(_read(self.measured[self.splits.index(split)]))[:n]
        every = [c for text in self.train for c in _read(text)]
        kept = [c for c in every if is_held_out(c, seed) == (split == "val")]
        return random.Random(f"{seed} {split}").sample(kept, min(n, len(kept)))

    def text(self) -> list[Comparison]:
        """There is none: DataError."""
        raise DataError("a method with text beside its comparisons learns from the toy world alone")

    def __str__(self) -> str:
        return ", ".join(Source.parse(text).name for text in self.train)


@functools.lru_cache(maxsize=16)
def _read(text: str) -> Sequence[Comparison]:
    """The pairs of a source, the better response first.

    Raises DataError for a comparison that is no pair with an order.
    """
    pairs = []
    for comparison in sources.read(text):
        if comparison.is_tie:
            continue
        if comparison.ranks is None or len(comparison.ranks) != 2:
            raise DataError(f"{comparison.where or text}: not a pair with a better response")
        better = comparison.ranks.index(min(comparison.ranks))
        pairs.append(_better_first(comparison, better))
    return pairs


def _better_first(comparison: Comparison, better: int) -> Comparison:
    if better == 0:
        return comparison
    scores = comparison.scores
    return dataclasses.replace(
        comparison,
        responses=comparison.responses[::-1],
        ranks=(0, 1),
        scores=None if scores is None else scores[::-1],
        attributes=None if comparison.attributes is None else comparison.attributes[::-1],
    )


def is_held_out(comparison: Comparison, seed: int) -> bool:
    """Whether its prompt is among the tenth that a seed keeps from training."""
    digest = hashlib.blake2b(f"{seed} {comparison.prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 < VALIDATION
