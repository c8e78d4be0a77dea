"""What an experiment over a few seeds comes to: means with their errors, and gains.

Values are of seeds, one each, and two methods are compared on the same seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrm.report.tables import aligned, interval, spread
from jaxrm.statistics import estimate, holm, paired
from jaxrm.study.records import Record

Values = Mapping[str, Mapping[str, np.ndarray]]
"""{method: {figure: float64 [seeds]}}, the same seeds in the same order for all."""

PERCENT = 100.0, 1
"""What a figure is multiplied by to be shown, and its digits: of a share in percent."""


def values(records: Sequence[Record], figures: Mapping[str, Callable[[Record], float]]) -> Values:
    """Figures of records that differ in their method and seed."""
    by_method: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        by_method.setdefault(record["method"], []).append(record)
    return {
        method: {
            name: np.array([value(r) for r in runs], np.float64) for name, value in figures.items()
        }
        for method, runs in by_method.items()
    }


def over(measured: Values, baseline: str) -> list[tuple[str, str]]:
    """Every other method and the baseline."""
    return [(method, baseline) for method in measured if method != baseline]


def summary(measured: Values, contrasts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What methods come to, and what one of two gained over the other.

    Returns:
      methods: {method: {figure: `estimate`}}.
      gains: {"one - other": {figure: mean, low, high, p, n, and holm, the p after Holm's adjustment
        over all of these gains}}.
    """
    gains = {
        (f"{one} - {other}", figure): paired(value - measured[other][figure])
        for one, other in contrasts
        for figure, value in measured[one].items()
    }
    by_contrast: dict[str, dict[str, Any]] = {}
    adjusted = holm([gain.p for gain in gains.values()])
    for ((contrast, figure), gain), p in zip(gains.items(), adjusted, strict=True):
        by_contrast.setdefault(contrast, {})[figure] = dataclasses.asdict(gain) | {"holm": p}
    methods = {
        method: {figure: estimate(value) for figure, value in figures.items()}
        for method, figures in measured.items()
    }
    return {"methods": methods, "gains": by_contrast}


def tables(
    summarised: Mapping[str, Any],
    figures: Sequence[str],
    forms: Mapping[str, tuple[float, int]] | None = None,
) -> str:
    """A summary for a terminal: the methods, and the gains with their intervals if there are any.

    Args:
      figures: the columns.
      forms: of figures that are no shares, as `PERCENT`.
    """
    forms = dict.fromkeys(figures, PERCENT) | dict(forms or {})
    parts = []
    for title, unit, cell in (("methods", "%", spread), ("gains", "points", interval)):
        rows = [
            [name, *(cell(by_figure[figure], *forms[figure]) for figure in figures)]
            for name, by_figure in summarised[title].items()
        ]
        heads = [f"{name}, {unit}" if forms[name][0] == 100 else name for name in figures]
        if rows:
            parts.append(aligned([title, *heads], rows))
    return "\n\n".join(parts)
