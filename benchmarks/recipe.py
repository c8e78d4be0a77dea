"""What all ways to take a training step have in common, in whatever framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from jaxrm.train.optimizer import OptimizerConfig

Loss = Literal["bt", "sft", "dpo"]
"""Bradley-Terry alone, or GRM's with that text loss."""


class Taken(NamedTuple):
    """What a step was like: its loss, and the gradient's norm before clipping."""

    loss: float
    grad_norm: float


Step = Callable[[], Taken]
"""One optimizer step, always on the same pairs, which ends when the weights are there."""
Peers = Mapping[str, Step]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A loss and how it is minimised.

    Attributes:
      alpha, beta: text's share of the loss and its inverse temperature, GRM's own.
      micro_batch: pairs that a peer reads at once, each twice its prompt.
      adapter: a directory with the LoRA that trains beside the head, or None where all weights do.
    """

    loss: Loss
    alpha: float = 0.01
    beta: float = 0.1
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-5, clip=1.0)
    micro_batch: int = 4
    adapter: Path | None = None
