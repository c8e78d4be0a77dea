"""What an experiment over a few seeds comes to: means with their errors, gains, and the files.

Values are of seeds, one each, and two methods are compared on the same seeds.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrm import files
from jaxrm.report import webpage
from jaxrm.statistics import Paired


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
