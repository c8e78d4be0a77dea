"""Methods against one baseline: what each gained, how sure that is, and the page that says so.

A record of one training run holds

    method, learning_rate, strength, seed
    condition  what it was trained on, in words
    budget     "labels": all of its epochs; "flops": no more work than the baseline's training
    splits     {split: {macro, accuracy, n, loss}}, the endpoint first
    cost       useful training FLOPs as a multiple of the baseline's at its budget "labels"
    seconds, steps, dropped

A gain is a method's figure less the baseline's of the same seed and condition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrm import files
from jaxrm.errors import DataError
from jaxrm.report.markdown import table
from jaxrm.statistics import Paired, holm, minimum_detectable_effect, paired
from jaxrm.study import charts
from jaxrm.study.records import Choices, Record, Trial, standard_error
from jaxrm.study.tables import PERCENT, cell, trials_table

BUDGETS = {"labels": "equal labels", "flops": "equal training FLOPs"}


def costs(records: Sequence[Record]) -> dict[str, float]:
    """Each method's mean cost."""
    found: dict[str, list[float]] = {}
    for record in records:
        found.setdefault(record["method"], []).append(record["cost"])
    return {method: float(np.mean(values)) for method, values in found.items()}


def cells(records: Sequence[Record]) -> dict[tuple[str, str], dict[str, dict[int, Record]]]:
    """{(condition, budget): {method: {seed: record}}}.

    A method without runs of its own at the second budget costs no more than the baseline: its runs
    at the first stand there too.

    Raises:
      DataError: two records of one run.
    """
    found: dict[tuple[str, str], dict[str, dict[int, Record]]] = {}
    for record in records:
        runs = found.setdefault((record["condition"], record["budget"]), {})
        of_method = runs.setdefault(record["method"], {})
        if record["seed"] in of_method:
            problem = f"two records of {record['method']} at seed {record['seed']}"
            raise DataError(f"{problem} under {record['condition']}: keep one of them")
        of_method[record["seed"]] = record
    for (condition, budget), runs in found.items():
        if budget == "flops":
            for method, first in found.get((condition, "labels"), {}).items():
                runs.setdefault(method, first)
    return found


def differences(
    runs: Mapping[str, Mapping[int, Record]], baseline: str, split: str, figure: str
) -> dict[str, np.ndarray]:
    """Each other method's figure less the baseline's, float64 [seeds that both have]."""

    def value(method: str, seed: int) -> float:
        return runs[method][seed]["splits"][split][figure]

    return {
        method: np.array(
            [
                value(method, seed) - value(baseline, seed)
                for seed in sorted(of_method.keys() & runs[baseline].keys())
            ]
        )
        for method, of_method in runs.items()
        if method != baseline
    }


def gains(
    runs: Mapping[str, Mapping[int, Record]], baseline: str, split: str, figure: str
) -> dict[str, Paired | None]:
    """Each other method's gain over the seeds that both have; None with fewer than two."""
    found = differences(runs, baseline, split, figure)
    return {name: paired(each) if len(each) > 1 else None for name, each in found.items()}


def ranking(
    runs: Mapping[str, Mapping[int, Record]], baseline: str, figure: str = "macro"
) -> list[dict[str, Any]]:
    """A line for each method, the best on the endpoint first.

    Returns:
      method, trial, cost, dropped; n seeds; {split: scores [n]}; and, but for the baseline, gain
      and p after Holm's adjustment over the other methods.
    """
    splits = _splits(runs)
    found = gains(runs, baseline, splits[0], figure)
    measured = [name for name, value in found.items() if value is not None]
    adjusted = dict(zip(measured, holm([found[name].p for name in measured]), strict=True))
    lines = []
    for method, of_method in runs.items():
        records = [of_method[seed] for seed in sorted(of_method)]
        lines.append(
            {
                "method": method,
                "trial": Trial.of(records[0]),
                "cost": float(np.mean([record["cost"] for record in records])),
                "dropped": max(record["dropped"] for record in records),
                "n": len(records),
                "scores": {
                    split: np.array([record["splits"][split][figure] for record in records])
                    for split in splits
                },
                "gain": found.get(method),
                "adjusted": float(adjusted[method]) if method in adjusted else None,
            }
        )
    return sorted(lines, key=lambda line: -line["scores"][splits[0]].mean())


def text_table(
    runs: Mapping[str, Mapping[int, Record]], baseline: str, figure: str = "macro"
) -> str:
    """`ranking` as a Markdown table."""
    lines, splits = ranking(runs, baseline, figure), _splits(runs)
    head = ["method", "trial", splits[0], "gain, points", "95 % interval", "p", "Holm p", ""]
    head += [*splits[1:], "cost", "n"]
    rows = []
    for line in lines:
        first, *others = (cell(line["scores"][split], PERCENT) for split in splits)
        rows.append(
            [
                f"**{line['method']}**" if line["method"] == baseline else line["method"],
                line["trial"],
                first,
                *_gain_cells(line["gain"], line["adjusted"]),
                *others,
                f"{line['cost']:.2f}",
                line["n"],
            ]
        )
    return table(head, rows, left=2)


def _gain_cells(gain: Paired | None, adjusted: float | None) -> list[str]:
    if gain is None:
        return ["", "", "", "", ""]
    bounded = np.isfinite([gain.low, gain.high]).all()
    interval = f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}" if bounded else "too few seeds"
    word = "" if adjusted >= 0.05 else "better" if gain.mean > 0 else "worse"
    return [f"{100 * gain.mean:+.2f}", interval, f"{gain.p:.4f}", f"{adjusted:.4f}", word]


def results(run: Run) -> dict[str, Any]:
    """Every number that the tables show, as JSON holds it: by condition, budget and method."""
    found: dict[str, Any] = {}
    for (condition, budget), runs in cells(run.records).items():
        found.setdefault(condition, {})[budget] = {
            line["method"]: {
                "learning_rate": line["trial"].learning_rate,
                "strength": line["trial"].strength,
                "seeds": sorted(runs[line["method"]]),
                "splits": {
                    split: {
                        "mean": float(scores.mean()),
                        "standard_error": float(standard_error(scores)),
                        "n": len(scores),
                    }
                    for split, scores in line["scores"].items()
                },
                "gain": None if line["gain"] is None else dataclasses.asdict(line["gain"]),
                "holm_p": line["adjusted"],
                "cost": line["cost"],
            }
            for line in ranking(runs, run.baseline, run.figure)
        }
    return files.plain(found)


def in_words(runs: Sequence[Run]) -> dict[str, str]:
    """Each method's gain on the endpoint with its interval, in points, and how many seeds it had.

    Of a method's runs the last one counts, at its first condition and by equal labels; the baseline
    has its accuracy instead.
    """
    found = {}
    for run in runs:
        methods = next(iter(cells(run.records).values()))
        for line in ranking(methods, run.baseline, run.figure):
            gain, method = line["gain"], line["method"]
            if method == run.baseline:
                split = _splits(methods)[0]
                found[method] = f"{cell(line['scores'][split], PERCENT)} %"
            elif gain is not None:
                _, interval, *_ = _gain_cells(gain, line["adjusted"])
                found[method] = f"{100 * gain.mean:+.2f} ({interval}; {gain.n} seeds)"
    return found


def detectable(runs: Mapping[str, Mapping[int, Record]], baseline: str, figure: str) -> float:
    """The gain that the test would find in four of five repetitions, by the median deviation over
    methods of what was gained; infinite with too few seeds."""
    found = differences(runs, baseline, _splits(runs)[0], figure).values()
    several = [each for each in found if len(each) > 1]
    if not several:
        return np.inf
    deviation = np.median([each.std(ddof=1) for each in several])
    return minimum_detectable_effect(float(deviation), min(map(len, several)))


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of a contest.

    Attributes:
      records: of all that it measured; the first one is of the baseline.
      choices: of the trials, each with what was tried.
      figure: which of a split's figures is compared, macro or accuracy.
      against: the method that the others are measured by; that of the first record without it.

    Raises DataError without records, or without any of that method.
    """

    records: Sequence[Record]
    choices: Choices
    figure: str = "macro"
    against: str | None = None

    def __post_init__(self):
        if not self.records:
            raise DataError("there are no records to show")
        if self.baseline not in {record["method"] for record in self.records}:
            raise DataError(f"there is no record of {self.baseline}")

    @property
    def baseline(self) -> str:
        """The method that the others are measured by."""
        return self.records[0]["method"] if self.against is None else self.against


def write(runs: Mapping[str, Run], page: Path, *, title: str) -> None:
    """Writes the page as Markdown, and its figures as SVG files in `figures` beside it.

    Args:
      runs: by the title of their part of the page.
      title: of the page.

    Raises:
      DataError: as `cells`.
    """
    parts, shown = [f"# {title}", READING], []
    for name, run in runs.items():
        for (condition, budget), methods in cells(run.records).items():
            parts += [f"## {name}: {condition}, {BUDGETS[budget]}", *_of_cell(methods, run)]
            gained = {
                split: gains(methods, run.baseline, split, run.figure)
                for split in _splits(methods)[:4]
            }
            if not any(value for found in gained.values() for value in found.values()):
                continue
            order = [line["method"] for line in ranking(methods, run.baseline, run.figure)]
            order.remove(run.baseline)
            sorted_gains = {s: {m: found[m] for m in order} for s, found in gained.items()}
            chart = charts.forest(sorted_gains, f"{page.stem}_{len(shown) + 1}")
            parts.append(f"![{chart.alt}](figures/{chart.name}.svg)")
            shown.append(chart)
    told: list[Choices] = []
    for name, run in runs.items():
        several = any(len(choice["trials"]) > 1 for choice in run.choices.values())
        if several and run.choices not in told:  # a confirmation has those of its screen
            parts += [f"## {name}: trials", TRIALS, trials_table(run.choices)]
            told.append(run.choices)
    for chart in shown:
        with files.replacing(page.parent / "figures" / f"{chart.name}.svg") as draft:
            draft.write_text(chart.svg, "utf-8")
    with files.replacing(page) as draft:
        draft.write_text("\n\n".join(parts) + "\n", "utf-8")


def _of_cell(methods: Mapping[str, Mapping[int, Record]], run: Run) -> list[str]:
    """The table, and what is to be known of it."""
    parts = [text_table(methods, run.baseline, run.figure)]
    least = detectable(methods, run.baseline, run.figure)
    if np.isfinite(least):
        parts.append(
            f"A gain of {100 * least:.1f} points would be found, before Holm's adjustment, in four "
            "of five repetitions."
        )
    if dropped := max(r["dropped"] for of in methods.values() for r in of.values()):
        parts.append(f"Up to {dropped:,} comparisons were too long for a row of training.")
    return parts


READING = """\
Accuracy, %, strict (a tie is no win), of the toy world the mean over families of questions; ± is
one standard error over seeds. The first split is the endpoint, by which methods are ranked. A gain
is a method's accuracy less that of the baseline (in bold) of the same seed, with the interval and p
of the sign-flip test over seeds, and p after Holm's adjustment over the methods of the table;
better and worse are said below .05. Cost: useful training FLOPs, as a multiple of one Bradley-Terry
training on the same comparisons."""


TRIALS = """\
Accuracy on `val`, %, of every trial; its labels are as noisy as training's. The best mean was
chosen, and no other split was looked at."""


def _splits(runs: Mapping[str, Mapping[int, Record]]) -> list[str]:
    first = next(iter(next(iter(runs.values())).values()))
    return list(first["splits"])
