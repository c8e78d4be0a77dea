"""Two evaluations of the same benchmarks: is the difference more than luck?

    python -m jaxrm.evaluate.compare OUT_A OUT_B

prints, for the official headline of each benchmark that both hold, A minus B with its interval over
prompts, p, p after Holm's adjustment for the number of benchmarks, and the least difference that so
many prompts find four times of five.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
import tyro

from jaxrm import cli, statistics
from jaxrm.errors import RunDirError
from jaxrm.evaluate import estimates, record
from jaxrm.evaluate.assess import difference
from jaxrm.evaluate.benchmarks import named
from jaxrm.report import tables
from jaxrm.statistics import Paired

HEAD = ("benchmark", "figure", "A - B", "95 % interval", "p", "Holm's p", "detectable")


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare two evaluations, prompt by prompt."""

    a: tyro.conf.Positional[Path]
    """What one `python -m jaxrm.evaluate` left."""
    b: tyro.conf.Positional[Path]
    """What another left, of the same benchmarks."""


def main(config: Config) -> None:
    """Prints the table."""
    gains = headlines(config.a, config.b)
    adjusted = statistics.holm([gain.p for _, gain in gains.values()])
    rows = [
        (
            name,
            figure,
            tables.number(gain.mean, "+.1f"),
            tables.between(gain.low, gain.high, "+.1f"),
            f"{gain.p:.3f}",
            f"{p:.3f}",
            "—" if math.isinf(gain.low) else tables.number(detectable(gain)),
        )
        for (name, (figure, gain)), p in zip(gains.items(), adjusted, strict=True)
    ]
    print(tables.aligned(HEAD, rows))
    if any(math.isinf(gain.low) for _, gain in gains.values()):
        print(f"\n{estimates.WITHHELD}")


def headlines(a: Path, b: Path) -> dict[str, tuple[str, Paired]]:
    """By benchmark, the first figure of the official rule and its difference, where both have it.

    Raises RunDirError where the folders have no benchmark in common, or scored other comparisons.
    """
    ours, theirs = _benchmarks(a), _benchmarks(b)
    by_name = {}
    for name in ours.keys() & theirs.keys():
        rule = named(name).rules[0]
        first, second = (record.read_credits(folder / name)[rule.name] for folder in (a, b))
        try:
            gains = difference(rule, first, second, ours[name]["missing"])
        except ValueError as error:
            raise RunDirError(f"{a / name} and {b / name}: {error}") from error
        headline = next(iter(ours[name]["rules"][rule.name]["figures"]))
        if headline in gains:
            by_name[name] = headline, gains[headline]
    if not by_name:
        raise RunDirError(f"{a} and {b} have no benchmark in common whose rows are all there")
    return {name: by_name[name] for name in ours if name in by_name}


def detectable(gain: Paired) -> float:
    """The least difference that prompts like these find four times of five."""
    quantile = scipy.special.stdtrit(gain.n - 1, 0.975)
    error = (gain.high - gain.low) / (2 * quantile)
    return statistics.minimum_detectable_effect(error * np.sqrt(gain.n), gain.n)


def _benchmarks(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    try:
        return json.loads(path.read_text("utf-8"))["benchmarks"]
    except (OSError, ValueError, KeyError) as error:
        problem = f"no results of an evaluation: {error}"
        raise RunDirError(f"{path}: {problem}") from error


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
