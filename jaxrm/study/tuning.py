"""The choice of a method's setting by its trials on `val`, the only split that may choose."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxrm.report.tables import aligned, spread
from jaxrm.statistics import estimate
from jaxrm.study.records import Choices, Record, Trial

HEAD = ("method", "trial", "val, %", "")


def choice(records: Sequence[Record], figure: str = "macro") -> dict[str, Any]:
    """The trial of one method's records with the best mean on `val`, of family-macro accuracy or of
    another figure there.

    Of equal ones it is the first, the one with less of everything.
    """
    values: dict[Trial, list[float]] = {}
    for record in records:
        values.setdefault(Trial.of(record), []).append(record["splits"]["val"][figure])
    tried = [dataclasses.asdict(trial) | estimate(each) for trial, each in values.items()]
    best = max(tried, key=lambda trial: trial["mean"])
    return {"learning_rate": best["learning_rate"], "strength": best["strength"], "trials": tried}


def rows(choices: Choices) -> list[list[str]]:
    """A row under `HEAD` for every trial, the chosen ones marked."""
    return [
        [name, str(trial), spread(tried), "chosen" if trial == Trial.of(choice) else ""]
        for name, choice in choices.items()
        for tried in choice["trials"]
        for trial in [Trial.of(tried)]
    ]


def choices_table(choices: Choices) -> str:
    """All trials as a table for a terminal."""
    return aligned(HEAD, rows(choices))
