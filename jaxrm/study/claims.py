"""What a study claims: the gains of GRM's variants over controls, and the verdict on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxrm import statistics
from jaxrm.statistics import Paired, holm, paired
from jaxrm.study.records import (
    CONTROLS,
    ENDPOINT,
    VARIANTS,
    Condition,
    Runs,
    Study,
    common,
    macro,
    scores,
)

WORTHWHILE = 0.02
"""The gain in accuracy below which a claim is refuted."""

Verdict = Literal["supported", "refuted", "open"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A GRM variant's gain on the endpoint over a control, with p adjusted over the variants."""

    variant: str
    control: str
    gain: Paired
    adjusted: float

    @property
    def verdict(self) -> Verdict:
        """On this variant alone, from its interval."""
        return statistics.verdict(self.gain, worthwhile=WORTHWHILE)


def claims(study: Study, condition: Condition, control: str) -> list[Claim]:
    """One for each variant that has two seeds in common with the control."""
    baseline = study.chosen(control, condition)
    gains = {name: gain(study.chosen(name, condition), baseline, ENDPOINT) for name in VARIANTS}
    # A variant that is missing was to be tested too: it still counts.
    adjusted = holm([1.0 if value is None else value.p for value in gains.values()])
    return [
        Claim(name, control, value, float(p))
        for (name, value), p in zip(gains.items(), adjusted, strict=True)
        if value is not None
    ]


def overall(found: Sequence[Claim]) -> Verdict:
    """The verdict on GRM as a whole, from the claims of one condition against one control.

    Supported by one variant that is, if p after Holm's adjustment is below .05 too; refuted if all
    variants are; else open.
    """
    if any(claim.verdict == "supported" and claim.adjusted < 0.05 for claim in found):
        return "supported"
    refuted = {claim.variant for claim in found if claim.verdict == "refuted"}
    return "refuted" if refuted == set(VARIANTS) else "open"


def best_control(study: Study, condition: Condition) -> str | None:
    """The control with the highest mean on the endpoint, over the seeds that all of them have.

    Chosen on the endpoint itself, which favours the controls. A control without runs is left out;
    None where those with runs share no seed.
    """
    cells = {name: study.chosen(name, condition) for name in CONTROLS}
    cells = {name: runs for name, runs in cells.items() if runs}
    seeds, _ = common(cells)
    if not seeds:
        return None
    means = {name: scores(runs, seeds, macro(ENDPOINT)).mean() for name, runs in cells.items()}
    measured = {name: mean for name, mean in means.items() if np.isfinite(mean)}
    return max(measured, key=measured.__getitem__, default=None)


def gain(runs: Runs, baseline: Runs, split: str) -> Paired | None:
    """The mean gain in accuracy over the seeds that both have; None with fewer than two."""
    seeds = sorted(runs.keys() & baseline.keys())
    difference = scores(runs, seeds, macro(split)) - scores(baseline, seeds, macro(split))
    measured = difference[np.isfinite(difference)]
    return paired(measured) if len(measured) > 1 else None
