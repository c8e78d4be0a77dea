"""What one training run of a contest measured, and what its methods' settings were chosen from.

A record holds

    method, learning_rate, strength, seed
    condition  what it was trained on, in words
    budget     "labels": all of its epochs; "flops": no more work than the baseline's training
    splits     {split: {figure: share}}, the endpoint first; of figures `macro` or `accuracy` is
               compared, and one that is None or absent was not measured
    cost       useful training FLOPs as a multiple of the baseline's at its budget "labels"
    dropped    comparisons that were too long for a row of training
    seconds, steps

where `cost` and `dropped` may be absent; and choices are

    {method: {learning_rate, strength, trials: [{learning_rate, strength, mean, standard_error}]}}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

Record = Mapping[str, Any]
Choices = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A method's setting: its learning rate, and its strength where it has one."""

    learning_rate: float
    strength: float | None

    @classmethod
    def of(cls, setting: Mapping[str, Any]) -> Trial:
        """That of a record, a choice, or a trial of the screen."""
        return cls(setting["learning_rate"], setting["strength"])

    def __str__(self) -> str:
        strength = "" if self.strength is None else f", strength {self.strength:g}"
        return f"lr {self.learning_rate:g}{strength}"


def macro(split: str) -> Callable[[Record], float]:
    """The accuracy on a split in which subsets weigh alike, of a record."""
    return lambda record: record["splits"][split]["macro"]
