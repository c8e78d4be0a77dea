"""Two evaluations of the same benchmarks: is the difference more than luck?

    python -m jaxrm.evaluate.compare OUT_A OUT_B

prints, for the official headline of each benchmark that both hold, A minus B with its interval over
prompts, p, p after Holm's adjustment for the number of benchmarks, and the least difference that so
many prompts find four times of five; of a benchmark that cannot be compared, why.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
import tyro

from jaxrm import cli, statistics
from jaxrm.errors import RunDirError
from jaxrm.evaluate import benchmark, estimates, record
from jaxrm.evaluate.assess import difference
from jaxrm.evaluate.benchmarks import named
from jaxrm.report import tables
from jaxrm.statistics import Paired

log = logging.getLogger(__name__)

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
        (name, figure, tables.number(gain.mean, "+.1f"), *_sure(gain, p))
        for (name, (figure, gain)), p in zip(gains.items(), adjusted, strict=True)
    ]
    print(tables.aligned(HEAD, rows))
    if any(math.isinf(gain.low) for _, gain in gains.values()):
        print(f"\n{estimates.WITHHELD}")


def headlines(a: Path, b: Path) -> dict[str, tuple[str, Paired]]:
    """By benchmark, the first figure of the official rule and its difference, where both have it.

    Where they do not, the reason is logged. Raises RunDirError, with every reason, where there is
    no benchmark to compare.
    """
    found = {a: _benchmarks(a), b: _benchmarks(b)}
    gains, reasons = {}, {}
    for name in dict.fromkeys([*found[a], *found[b]]):
        absent = [folder for folder in found if name not in found[folder]]
        if absent:
            reasons[name] = f"{absent[0]} has no scores of it: evaluate it there too"
            continue
        titles = [found[folder][name]["title"] for folder in (a, b)]
        rule, other = (named(name, title).rules[0] for title in titles)
        if rule.name != other.name:
            reasons[name] = f"these are two things by that name, {' and '.join(titles)}"
            continue
        first, second = (record.read_credits(folder / name)[rule.name] for folder in (a, b))
        headline = next(iter(found[a][name]["rules"][rule.name]["figures"]))
        lacking = _lacking({folder: found[folder][name]["missing"] for folder in found})
        try:
            by_figure = difference(rule, first, second, found[a][name]["missing"])
        except ValueError:
            reasons[name] = (
                f"{a} and {b} did not score the same comparisons{lacking}: evaluate both on the "
                "same rows"
            )
            continue
        if headline in by_figure:
            gains[name] = headline, by_figure[headline]
        else:
            cure = lacking and f": for a difference on the rows at hand, {benchmark.OWN_ROWS}"
            reasons[name] = f"there is no figure {headline!r} of it{lacking}{cure}"
    if not gains:
        lines = [f"{name}: {reason}" for name, reason in reasons.items()]
        raise RunDirError("\n  ".join([f"{a} and {b} cannot be compared", *lines]))
    for name, reason in reasons.items():
        log.warning("%s is not compared: %s", name, reason)
    return gains


def detectable(gain: Paired) -> float:
    """The least difference that prompts like these find four times of five."""
    quantile = scipy.special.stdtrit(gain.n - 1, 0.975)
    error = (gain.high - gain.low) / (2 * quantile)
    return statistics.minimum_detectable_effect(error * np.sqrt(gain.n), gain.n)


def _sure(gain: Paired, adjusted: float) -> tuple[str, str, str, str]:
    """Interval, p, adjusted p and detectable difference; — for each where the prompts are too few
    for an interval, of which a p of 1 would say that nothing differs."""
    if math.isinf(gain.low):
        return ("—",) * 4
    interval = tables.between(gain.low, gain.high, "+.1f")
    return interval, f"{gain.p:.3f}", f"{adjusted:.3f}", tables.number(detectable(gain))


def _lacking(missing: Mapping[Path, Mapping[str, Mapping[str, int]]]) -> str:
    """Which folder lacks which rows of a published benchmark; "" where none does."""
    said = []
    for folder, of_folder in missing.items():
        if of_folder:
            short = {subset: (n["found"], n["expected"]) for subset, n in of_folder.items()}
            said.append(f"in {folder} {benchmark.counts(short)}")
    return f" (rows that differ from the published ones: {'; '.join(said)})" if said else ""


def _benchmarks(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    try:
        return json.loads(path.read_text("utf-8"))["benchmarks"]
    except (OSError, ValueError, KeyError) as error:
        problem = f"no results of an evaluation: {error}"
        raise RunDirError(f"{path}: {problem}") from error


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
