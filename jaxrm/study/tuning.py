"""The choice of a method's setting by its trials on `val`, the only split that may choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrm.study.records import Choices, Record


def choice(records: Sequence[Record], figure: str = "macro") -> dict[str, Any]:
    """The trial of one method's records with the best mean on `val`, of family-macro accuracy or of
    another figure there.

    Of equal ones it is the first, the one with less of everything.
    """
    settings: dict[tuple[float, float | None], list[float]] = {}
    for record in records:
        setting = record["learning_rate"], record["strength"]
        settings.setdefault(setting, []).append(record["splits"]["val"][figure])
    tried = [
        {
            "learning_rate": rate,
            "strength": strength,
            "mean": float(np.mean(values)),
            "standard_error": float(np.std(values, ddof=1) / np.sqrt(len(values)))
            if len(values) > 1
            else None,
            "n": len(values),
        }
        for (rate, strength), values in settings.items()
    ]
    best = max(tried, key=lambda trial: trial["mean"])
    return {"learning_rate": best["learning_rate"], "strength": best["strength"], "trials": tried}


def choices_table(choices: Choices) -> str:
    """All trials as lines of text, the chosen ones marked."""
    lines = [f"{'method':24}{'rate':>8}{'strength':>10}  val, %"]
    for method, chosen in choices.items():
        for trial in chosen["trials"]:
            picked = all(trial[name] == chosen[name] for name in ("learning_rate", "strength"))
            strength = "" if trial["strength"] is None else f"{trial['strength']:g}"
            error = trial["standard_error"]
            spread = "" if error is None else f" ± {100 * error:.1f}"
            figures = f"{100 * trial['mean']:.1f}{spread}{' <' if picked else ''}"
            lines.append(f"{method:24}{trial['learning_rate']:8g}{strength:>10}  {figures}")
    return "\n".join(lines)
