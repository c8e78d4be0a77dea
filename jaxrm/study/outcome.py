"""What an experiment over a few seeds comes to: means with their errors, gains, and the files.

Values are of seeds, one each, and two methods are compared on the same seeds.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrm import files
from jaxrm.report import terminal, webpage
from jaxrm.statistics import Paired, holm, paired
from jaxrm.study.records import Record

Values = Mapping[str, Mapping[str, np.ndarray]]
"""{method: {figure: float64 [seeds]}}, the same seeds in the same order for all."""

PERCENT = 100.0, 1
"""What a figure is multiplied by to be shown, and its digits: of a share in percent."""


def estimate(values: Sequence[float] | np.ndarray) -> dict[str, float | int | None]:
    """The mean over seeds and its standard error, which a single seed does not have."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": values.mean(), "standard_error": error, "n": len(values)}


def spread(found: Mapping[str, Any], scale: float = 100.0, digits: int = 1) -> str:
    """An estimate, of a share in percent, ± its standard error."""
    mean, error = f"{scale * found['mean']:.{digits}f}", found["standard_error"]
    return mean if error is None else f"{mean} ± {scale * error:.{digits}f}"


def interval(gain: Paired | Mapping[str, Any] | None, scale: float = 100.0, digits: int = 1) -> str:
    """A gain, of shares in percentage points, with its interval, which fewer than 6 seeds leave
    open; nothing of None."""
    if gain is None:
        return ""
    found = files.plain(gain)
    mean, *ends = (found[name] for name in ("mean", "low", "high"))
    shown = [f"{scale * end:+.{digits}f}" for end in ends if end is not None]
    return f"{scale * mean:+.{digits}f}" + (f" [{', '.join(shown)}]" if shown else "")


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
            parts.append(terminal.table([title, *heads], rows))
    return "\n\n".join(parts)


def leave(directory: Path, title: str, results: Any, text: str) -> None:
    """Writes results.json and report.html in a run's directory, and prints the text.

    Args:
      title: of the page; several lines are a title and what stands beneath it.
      results: every number that the text shows.
      text: tables for a terminal.
    """
    files.write_json(directory / "results.json", results)
    headline, _, rest = title.strip().partition("\n")
    tables = webpage.section("What was measured", "", f"<pre>{html.escape(text)}</pre>")
    about = webpage.section("What was asked", "", f"<pre>{html.escape(rest.strip())}</pre>")
    page = webpage.document(headline, "", [tables, about] if rest.strip() else [tables])
    with files.replacing(directory / "report.html") as draft:
        draft.write_text(page, "utf-8")
    print(f"{text}\n\n{directory / 'report.html'}")
