"""Methods against one baseline: what each gained, how sure that is, and the page that says so.

Of records (`jaxrm.study.records`): a gain is a method's figure less the baseline's of the same seed
and condition.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrm import files
from jaxrm.errors import DataError
from jaxrm.report import figures, parts
from jaxrm.report.parts import Chart, Part
from jaxrm.report.tables import Table, between, number, spread
from jaxrm.statistics import Paired, estimate, holm, minimum_detectable_effect, paired
from jaxrm.study import tuning
from jaxrm.study.draws import Files, Toy
from jaxrm.study.records import Choices, Record, Trial

LEAST_SEEDS = 6
"""Of fewer no interval can exclude 0 (`jaxrm.statistics.sign_flip`)."""

BUDGETS = {"labels": "equal labels", "flops": "equal training FLOPs"}

Runs = Mapping[str, Mapping[int, Record]]
"""Methods' records by seed."""


def costs(records: Sequence[Record]) -> dict[str, float]:
    """Each method's mean cost, of those whose cost was measured."""
    by_method: dict[str, list[float]] = {}
    for record in records:
        if "cost" in record:
            by_method.setdefault(record["method"], []).append(record["cost"])
    return {method: float(np.mean(values)) for method, values in by_method.items()}


def cells(records: Sequence[Record]) -> dict[tuple[str, str], dict[str, dict[int, Record]]]:
    """{(condition, budget): {method: {seed: record}}}.

    A method without runs of its own at the second budget costs no more than the baseline: its runs
    at the first stand there too.

    Raises:
      DataError: two records of one run.
    """
    every: dict[tuple[str, str], dict[str, dict[int, Record]]] = {}
    for record in records:
        runs = every.setdefault((record["condition"], record["budget"]), {})
        of_method = runs.setdefault(record["method"], {})
        if record["seed"] in of_method:
            problem = f"two records of {record['method']} at seed {record['seed']}"
            raise DataError(f"{problem} under {record['condition']}: keep one of them")
        of_method[record["seed"]] = record
    for (condition, budget), runs in every.items():
        if budget == "flops":
            for method, first in every.get((condition, "labels"), {}).items():
                runs.setdefault(method, first)
    return every


def differences(runs: Runs, baseline: str, split: str, figure: str) -> dict[str, np.ndarray]:
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


def gains(runs: Runs, baseline: str, split: str, figure: str) -> dict[str, Paired | None]:
    """Each other method's gain over the seeds that both have; None with fewer than two."""
    by_method = differences(runs, baseline, split, figure)
    return {name: paired(each) if len(each) > 1 else None for name, each in by_method.items()}


def ranking(runs: Runs, baseline: str, figure: str = "macro") -> list[dict[str, Any]]:
    """A line for each method, the best on the endpoint first.

    Returns:
      method, trial, cost (None where it was not measured), dropped; n seeds; {split: scores [n]};
      and, but for the baseline, gain and p after Holm's adjustment over the other methods.
    """
    splits = _splits(runs)
    gained = gains(runs, baseline, splits[0], figure)
    measured = [name for name, value in gained.items() if value is not None]
    adjusted = dict(zip(measured, holm([gained[name].p for name in measured]), strict=True))
    lines = []
    for method, of_method in runs.items():
        records = [of_method[seed] for seed in sorted(of_method)]
        lines.append(
            {
                "method": method,
                "trial": Trial.of(records[0]),
                "cost": costs(records).get(method),
                "dropped": max(record.get("dropped", 0) for record in records),
                "n": len(records),
                "scores": {
                    split: np.array([record["splits"][split][figure] for record in records])
                    for split in splits
                },
                "gain": gained.get(method),
                "adjusted": float(adjusted[method]) if method in adjusted else None,
            }
        )
    return sorted(lines, key=lambda line: -line["scores"][splits[0]].mean())


def table(by_condition: Mapping[str, Runs], baseline: str, figure: str = "macro") -> Table:
    """The rankings of one condition or several as one table."""
    rankings = {name: ranking(runs, baseline, figure) for name, runs in by_condition.items()}
    endpoint, *others = _splits(next(iter(by_condition.values())))
    costly = any(line["cost"] is not None for lines in rankings.values() for line in lines)
    head = ["method", "trial", endpoint, "gain, points", "95 % interval", "p", "Holm p", ""]
    head += [*others, *(["cost"] if costly else []), "n"]
    rows = []
    for condition, lines in rankings.items():
        for line in lines:
            score = {split: spread(estimate(values)) for split, values in line["scores"].items()}
            rows.append(
                [
                    condition,
                    f"**{line['method']}**" if line["method"] == baseline else line["method"],
                    line["trial"],
                    score[endpoint],
                    *gain_cells(line["gain"], line["adjusted"]),
                    *(score[split] for split in others),
                    *([number(line["cost"], ".2f", 1)] if costly else []),
                    line["n"],
                ]
            )
    return _of_conditions(by_condition, head, rows, left=2)


def _of_conditions(
    by_condition: Mapping[str, Runs], head: list[str], rows: list[list[Any]], left: int
) -> Table:
    """A table whose rows begin with their condition, which one condition alone does not need."""
    if len(by_condition) > 1:
        return Table(["condition", *head], rows, left + 1)
    return Table(head, [row[1:] for row in rows], left)


def gain_cells(gain: Paired | None, adjusted: float | None) -> list[str]:
    """A gain in points, its interval, p, p after Holm's adjustment, and the word for it."""
    if gain is None:
        return ["", "", "", "", ""]
    bounds = between(gain.low, gain.high, "+.2f")
    bounds = "too few seeds" if bounds == "—" else bounds
    word = "" if adjusted >= 0.05 else "better" if gain.mean > 0 else "worse"
    return [number(gain.mean, "+.2f"), bounds, f"{gain.p:.4f}", f"{adjusted:.4f}", word]


def results(run: Run) -> dict[str, Any]:
    """Every number that the tables show, as JSON holds it: by condition, budget and method."""
    shown: dict[str, Any] = {}
    for (condition, budget), runs in cells(run.records).items():
        shown.setdefault(condition, {})[budget] = {
            line["method"]: {
                **dataclasses.asdict(line["trial"]),
                "seeds": sorted(runs[line["method"]]),
                "splits": {split: estimate(scores) for split, scores in line["scores"].items()},
                "gain": line["gain"],
                "holm_p": line["adjusted"],
                "cost": line["cost"],
            }
            for line in ranking(runs, run.baseline, run.figure)
        }
    return files.plain(shown)


def in_words(runs: Sequence[Run]) -> dict[str, str]:
    """Each method's gain on the endpoint with its interval, in points, and how many seeds it had.

    Of a method's runs the last one counts, at its first condition and by equal labels; the baseline
    has its accuracy instead.
    """
    words = {}
    for run in runs:
        methods = next(iter(cells(run.records).values()))
        for line in ranking(methods, run.baseline, run.figure):
            gain, method = line["gain"], line["method"]
            if method == run.baseline:
                words[method] = f"{spread(estimate(line['scores'][_splits(methods)[0]]))} %"
            elif gain is not None:
                points, bounds, *_ = gain_cells(gain, line["adjusted"])
                words[method] = f"{points} ({bounds}; {gain.n} seeds)"
    return words


def detectable(runs: Runs, baseline: str, figure: str) -> float:
    """The gain that the test would find in four of five repetitions, by the median deviation over
    methods of what was gained; infinite with too few seeds."""
    gained = differences(runs, baseline, _splits(runs)[0], figure).values()
    several = [each for each in gained if len(each) > 1]
    if not several:
        return np.inf
    deviation = np.median([each.std(ddof=1) for each in several])
    return minimum_detectable_effect(float(deviation), min(map(len, several)))


# What makes a ranking weaker than it looks


def cautions(conditions: Sequence[Runs], run: Run) -> list[str]:
    """A sentence for each: too few seeds, too few items, less than was asked for, and what was left
    out; none where there is nothing to say. Of several conditions that are shown together, one of
    each kind."""
    said = []
    gained = [differences(runs, run.baseline, _splits(runs)[0], run.figure) for runs in conditions]
    seeds = [
        min(map(len, of_methods.values()), default=len(runs[run.baseline]))
        for runs, of_methods in zip(conditions, gained, strict=True)
    ]
    if (least := min(seeds)) < LEAST_SEEDS:
        said.append(
            f"**{least} seed{'s' if least != 1 else ''}: no gain here is told from chance.** With "
            f"fewer than {LEAST_SEEDS} no interval can exclude 0."
        )
    said += _few_items([_items(*each, run) for each in zip(conditions, gained, seeds, strict=True)])
    records = [record for runs in conditions for record in _records(runs)]
    said += _shortfalls(records)
    if dropped := max(record.get("dropped", 0) for record in records):
        said.append(f"Up to {dropped:,} comparisons were too long for a row of training.")
    return said


class _Items(NamedTuple):
    """What `n` items of a split can tell: gains from `least` on; the largest there is."""

    split: str
    n: int
    least: float
    largest: float


def _items(runs: Runs, gained: Mapping[str, np.ndarray], seeds: int, run: Run) -> _Items | None:
    """What the items of the endpoint can tell, None where that is not the question.

    Seeds of the toy world have items of their own, so that an interval over seeds, where there is
    one, is of items too; files are the same items for every seed.
    """
    same_items = run.figure == Files.figure
    means = [abs(float(values.mean())) for values in gained.values() if len(values)]
    if not means or (seeds >= LEAST_SEEDS and not same_items):
        return None
    split = _splits(runs)[0]
    of_split = [record["splits"][split] for record in runs[run.baseline].values()]
    if not all("n" in figures for figures in of_split):
        return None
    share = float(np.mean([figures[run.figure] for figures in of_split]))
    n = min(figures["n"] for figures in of_split) * (1 if same_items else len(of_split))
    return _Items(split, n, 1.96 * np.sqrt(2 * share * (1 - share) / n), max(means))


def _few_items(conditions: Sequence[_Items | None]) -> list[str]:
    """Whether the items alone could make all of the gains of a condition."""
    few = [items for items in conditions if items is not None and items.largest < items.least]
    if not few:
        return []
    where = "" if len(few) == len(conditions) else f" in {len(few)} of {len(conditions)} conditions"
    return [
        f"**{min(items.n for items in few):,} items of {few[0].split} are too few for gains this "
        f"small{where}.** By which items they are, the accuracies of two models that err "
        f"independently differ by up to {100 * max(items.least for items in few):.1f} points "
        "(95 %): the least gain that could be told from 0. The largest here is "
        f"{100 * max(items.largest for items in few):.1f}. Models that err alike differ by less."
    ]


def _shortfalls(records: Sequence[Record]) -> list[str]:
    """Where there was less than was asked for, with the least over runs."""
    least: dict[str, tuple[int, int]] = {}
    for record in records:
        for split, asked in record.get("asked", {}).items():
            there = record["drawn"] if split == "train" else record["splits"][split]["n"]
            least[split] = min(least.get(split, (there, asked)), (there, asked))
    return [
        f"{split}: {there:,} comparisons, where {asked:,} were asked for."
        for split, (there, asked) in least.items()
        if there < asked
    ]


# The page


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of a contest.

    Attributes:
      records: of all that it measured; the first one is of the baseline.
      choices: of the trials, each with what was tried.
      figure: which of a split's figures is compared, macro or accuracy.
      against: the method that the others are measured by; that of the first record without it.
      beside: other figures, whose means are shown on the splits where all runs have them.

    Raises DataError without records, or without any of that method.
    """

    records: Sequence[Record]
    choices: Choices
    figure: str = "macro"
    against: str | None = None
    beside: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.records:
            raise DataError("there are no records to show")
        if self.baseline not in {record["method"] for record in self.records}:
            raise DataError(f"there is no record of {self.baseline}")

    @property
    def baseline(self) -> str:
        """The method that the others are measured by."""
        return self.records[0]["method"] if self.against is None else self.against


def keep(directory: Path, records: Sequence[Record], choices: Choices) -> None:
    """Leaves records.jsonl and choices.json in a run's directory."""
    files.write_json(directory / "choices.json", choices)
    with files.replacing(directory / "records.jsonl") as draft:
        draft.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")


def kept(directory: Path, against: str | None = None) -> Run:
    """What `keep` left in a directory; raises DataError where it did not."""
    records = [json.loads(line) for line in left(directory / "records.jsonl").splitlines()]
    choices = json.loads(left(directory / "choices.json"))
    of_toys = bool(records) and Toy.splits[0] in records[0]["splits"]
    return Run(records, choices, (Toy if of_toys else Files).figure, against)


def left(path: Path) -> str:
    """The text of a file that a run leaves when it is done; raises DataError without it."""
    if not path.is_file():
        raise DataError(f"{path} does not exist: a run that is done leaves it in its run directory")
    return path.read_text("utf-8")


def as_text(runs: Mapping[str, Run]) -> str:
    """Every ranking for a terminal, with what makes it weaker than it looks."""
    blocks = []
    for name, run in runs.items():
        for (condition, budget), methods in cells(run.records).items():
            text = table({"": methods}, run.baseline, run.figure).text()
            blocks += [f"{name}: {condition}, {BUDGETS[budget]}", text]
            blocks += [caution.replace("**", "") for caution in cautions([methods], run)]
    return "\n\n".join(blocks)


def write(
    runs: Mapping[str, Run],
    page: Path,
    *,
    title: str,
    about: str = "",
    below: Sequence[Part] = (),
) -> None:
    """Writes the page as Markdown, and its figures as SVG files in `figures` beside it.

    Args:
      runs: by the title of their part of the page.
      title: of the page.
      about: Markdown that comes first.
      below: parts that come last.

    Raises:
      DataError: as `cells`.
    """
    above = [*([about] if about else []), READING]
    parts.write_markdown(page, title, above, [*shown(runs), *below])


def shown(runs: Mapping[str, Run]) -> list[Part]:
    """What the page shows: the rankings with their charts, then the trials of each run."""
    found = [
        Part(f"{name}: {heading}", _section(by_condition, run))
        for name, run in runs.items()
        for heading, by_condition in _sections(run).items()
    ]
    told: list[Choices] = []
    for name, run in runs.items():
        several = any(len(choice["trials"]) > 1 for choice in run.choices.values())
        if several and run.choices not in told:  # a confirmation has those of its screen
            tried = Table(tuning.HEAD, tuning.rows(run.choices), left=2)
            found.append(Part(f"{name}: trials", [TRIALS, tried]))
            told.append(run.choices)
    return found


def _sections(run: Run) -> dict[str, dict[str, Runs]]:
    """{heading: {condition: methods}}: a section for each condition, but one for all where there is
    one method beside the baseline."""
    every = cells(run.records)
    few = max(map(len, every.values())) <= 2 and len({condition for condition, _ in every}) > 1
    sections: dict[str, dict[str, Runs]] = {}
    for (condition, budget), methods in every.items():
        heading = BUDGETS[budget] if few else f"{condition}, {BUDGETS[budget]}"
        sections.setdefault(heading, {})[condition] = methods
    return sections


def _section(by_condition: Mapping[str, Runs], run: Run) -> list[parts.Content]:
    """The tables, what is to be known of them, and the chart."""
    content: list[parts.Content] = [table(by_condition, run.baseline, run.figure)]
    least = max(detectable(runs, run.baseline, run.figure) for runs in by_condition.values())
    if np.isfinite(least):
        content.append(
            f"A gain of {100 * least:.1f} points would be found, before Holm's adjustment, in four "
            "of five repetitions."
        )
    content += cautions(list(by_condition.values()), run)
    records = [record for runs in by_condition.values() for record in _records(runs)]
    columns = [
        (figure, split)
        for figure in run.beside
        for split in records[0]["splits"]
        if all(record["splits"][split].get(figure) is not None for record in records)
    ]
    if columns:
        rows = [
            [condition, method]
            + [spread(estimate([r["splits"][s][f] for r in one.values()])) for f, s in columns]
            for condition, runs in by_condition.items()
            for method, one in runs.items()
        ]
        head = ["method", *(f"{figure}, {split}" for figure, split in columns)]
        beside = _of_conditions(by_condition, head, rows, left=1)
        content += ["Of the same runs, times 100:", beside]
    if gained := _gains_in_order(by_condition, run):
        content.append(Chart(FOREST, figures.forest(gained)))
    return content


def _gains_in_order(
    by_condition: Mapping[str, Runs], run: Run
) -> dict[str, dict[str, Paired | None]]:
    """The gains on the first four splits by method, the best on the endpoint first, or where
    several conditions share a section by condition; {} where there is none."""
    gained: dict[str, dict[str, Paired | None]] = {}
    for condition, runs in by_condition.items():
        order = [line["method"] for line in ranking(runs, run.baseline, run.figure)]
        for split in _splits(runs)[:4]:
            by_method = gains(runs, run.baseline, split, run.figure)
            for method in order:
                if method != run.baseline:
                    name = condition if len(by_condition) > 1 else method
                    gained.setdefault(split, {})[name] = by_method[method]
    return gained if any(one for split in gained.values() for one in split.values()) else {}


FOREST = "Gain of each method over the baseline, one panel per split"

READING = """\
Accuracy, %, strict (a tie is no win), of the toy world the mean over families of questions; ± is
one standard error over seeds. The first split is the endpoint, by which methods are ranked. A gain
is a method's accuracy less that of the baseline (in bold) of the same seed, with the interval and p
of the sign-flip test over seeds, and p after Holm's adjustment over the methods of one condition;
better and worse are said below .05. Cost: useful training FLOPs, as a multiple of one Bradley-Terry
training on the same comparisons."""


TRIALS = """\
Accuracy on `val`, %, of every trial; its labels are as noisy as training's. The best mean was
chosen, and no other split was looked at."""


def _records(runs: Runs) -> list[Record]:
    return [record for of_method in runs.values() for record in of_method.values()]


def _splits(runs: Runs) -> list[str]:
    first = next(iter(next(iter(runs.values())).values()))
    return list(first["splits"])
