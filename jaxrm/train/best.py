"""Which step of a run is its best, by a metric of its evaluations."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from jaxrm.errors import MetricError


@dataclasses.dataclass(frozen=True)
class Leader:
    """The best step so far, and the value that makes it so."""

    step: int
    value: float


@dataclasses.dataclass(frozen=True)
class Best:
    """What makes one step better than another. Of equal steps the earlier one is best.

    Attributes:
      metric: one of those that an evaluation returns, such as "eval/val/accuracy".
      mode: whether its greatest or its least value is best, which no name is trusted to say.
    """

    metric: str
    mode: Literal["max", "min"]

    def leader(self, so_far: Leader | None, step: int, figures: Mapping[str, float]) -> Leader:
        """`so_far`, or `step` if what its evaluation returned, `figures`, is better.

        Raises MetricError when `figures` lacks the metric, or it is not finite.
        """
        if self.metric not in figures:
            raise MetricError(
                f"the evaluation at step {step} returns no {self.metric!r}, by which the best step "
                f"is to be chosen; name one of {', '.join(map(repr, figures)) or '(none)'}"
            )
        value = float(figures[self.metric])
        if not math.isfinite(value):
            raise MetricError(
                f"{self.metric!r} is {value} at step {step}, which is neither better nor worse "
                "than another: mend the evaluation, or choose the best step by another metric"
            )
        if so_far is not None:
            ahead = value > so_far.value if self.mode == "max" else value < so_far.value
            if not ahead:
                return so_far
        return Leader(step, value)

    def among(self, metrics: Path) -> Leader | None:
        """The best of all steps that a run's `metrics.jsonl` holds evaluations of."""
        so_far = None
        for line in map(json.loads, metrics.read_text().splitlines()):
            if self.metric in line:
                so_far = self.leader(so_far, line["step"], line)
        return so_far
