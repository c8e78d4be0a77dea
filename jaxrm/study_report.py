"""One page about the GRM study, from the records of its runs: verdicts, tables and figures.

A record is what one training run measured:

    method     one of `METHODS`; `learning_rate` and `strength` are its trial
    condition  {pairs, label_noise, cue_agreement, epochs}
    seed, head {kind, layers}
    part       of the study: main, sizes, strengths, heads, frozen or curves (the first that asked)
    splits     {split: {macro, accuracy, n, loss, language}}, shares in [0, 1]; language, how often
               the better response is the likelier one, may be null
    drift      {split: mean cosine distance of the states that rewards are read from to the base's}
    stopped    the step whose model counts, of `steps`
    curve      [{step, <split>/macro, <split>/loss}], of the part curves alone
    seconds, tokens   of training

and `choices` is what the screen chose on val, and from what:

    {method: {learning_rate, strength, trials: [{learning_rate, strength, mean, standard_error}]}}

Means that stand side by side are over the seeds that all of them have, or show their own n. What
no record has is shown as missing, with the cell and the seeds by name.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxrm import files
from jaxrm.errors import DataError
from jaxrm.evaluate.statistics import Paired, holm, paired, verdict
from jaxrm.figures import NEUTRAL, PALETTE, STYLE

Record = Mapping[str, Any]
Runs = Mapping[int, Record]
"""The records of one arm by seed."""
Value = Callable[[Record], float | None]
"""One number of a record, None where it was not measured."""

CONTROLS = ("bt", "bt_early", "lp_ft", "l2", "replay")
VARIANTS = ("grm_sft", "grm_dpo", "grm_dpo_reference_free")
MAIN = CONTROLS + VARIANTS
METHODS = (*MAIN, "frozen")

ENDPOINT = "ood_prompt"
SPLITS = (ENDPOINT, "id", "ood_response", "spurious", "val")
WORTHWHILE = 0.02
"""The gain in accuracy below which a claim is refuted."""

COLORS = {
    "bt": "#1b1f24",
    "bt_early": "#9aa4af",
    "lp_ft": PALETTE[5],
    "l2": PALETTE[2],
    "replay": PALETTE[3],
    "frozen": "#8c6d31",
    "grm_sft": PALETTE[1],
    "grm_dpo": PALETTE[0],
    "grm_dpo_reference_free": PALETTE[4],
}
MARKERS = dict.fromkeys(METHODS, "o") | {"frozen": "s"} | dict(zip(VARIANTS, "^vD", strict=True))
DASHES = ("-", "--", ":", "-.")

PERCENT, POINTS, SHARE = (100, ".1f"), (100, "+.2f"), (1, ".3f")
"""What a number in a table is multiplied by, and its format."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """What training data a run has: pairs, share of labels flipped, how often the style cue is on
    the better side, and epochs."""

    pairs: int
    label_noise: float
    cue_agreement: float
    epochs: int = 1

    def __str__(self) -> str:
        epochs = f", {self.epochs} epochs" if self.epochs > 1 else ""
        noise = f"{100 * self.label_noise:g} % label noise"
        return f"{self.pairs:,} pairs, {noise}, cue agreement {self.cue_agreement:g}{epochs}"


CONDITIONS = {
    "A": Condition(2000, 0.25, 0.7),
    "B": Condition(500, 0.25, 0.7),
    "C": Condition(2000, 0.0, 0.7),
}
"""Those of the part main; the first is the main one."""


def write(
    records: Sequence[Record],
    choices: Mapping[str, Mapping[str, Any]],
    page: Path,
    figures: Path,
    conditions: Mapping[str, Condition] = CONDITIONS,
) -> None:
    """Writes the page as Markdown and its figures as SVG files, the same for the same records.

    Args:
      records: of all runs but the screen's, in any order.
      choices: the screen's.
      page: the Markdown file.
      figures: the directory of the SVG files, which the page names relative to itself.
      conditions: those of the part main by name, the main one first.

    Raises:
      DataError: two records of one run, an unknown method or main condition, heads that differ
        outside the part heads, or curves of one arm with different numbers of points.
    """
    study = read(records, choices, conditions)
    main = study.conditions[study.main]
    sections = [
        verdicts(study),
        *(condition_tables(study, name) for name in conditions),
        forest(study, main),
        mechanism(study, main),
        sizes(study, main),
        curves(study),
        strengths(study, main),
        heads(study, main),
        frozen(study, main),
        screen(choices),
        inventory(study, records),
    ]
    folder = Path(os.path.relpath(figures, page.parent)).as_posix()
    for chart in (chart for section in sections for chart in section.charts):
        with files.replacing(figures / f"{chart.name}.svg") as draft:
            draft.write_text(chart.svg, "utf-8")
    text = "\n\n".join([HEADER, *(section.markdown(folder) for section in sections)]) + "\n"
    with files.replacing(page) as draft:
        draft.write_text(text, "utf-8")


HEADER = """\
# GRM against its controls on the toy world

Made from the records of `python -m experiments.study_grm --confirm`. Accuracy is strict (a tie is
no win) and family-macro: the mean over families of questions. ± is one standard error over seeds;
each seed redraws families, pairs, head, order and items."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """An SVG figure, its file's name without suffix, and what it shows in words."""

    name: str
    alt: str
    svg: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: Markdown, then charts."""

    title: str
    text: str
    charts: tuple[Chart, ...] = ()

    def markdown(self, folder: str) -> str:
        """As Markdown whose charts lie in `folder`."""
        images = [f"![{chart.alt}]({folder}/{chart.name}.svg)" for chart in self.charts]
        return "\n\n".join([f"## {self.title}", self.text, *images])


NO_RECORDS = "Left out: there are no records of this part."


@dataclasses.dataclass(frozen=True)
class Trial:
    """A method's setting: its learning rate, and its strength where it has one."""

    learning_rate: float
    strength: float | None

    def __str__(self) -> str:
        strength = "" if self.strength is None else f", strength {self.strength:g}"
        return f"lr {self.learning_rate:g}{strength}"


@dataclasses.dataclass(frozen=True)
class Arm:
    """What runs that differ in their seed alone have in common."""

    method: str
    trial: Trial
    condition: Condition
    head: tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Study:
    """Final evaluations by arm and seed, the runs that each part has of its own, and what was
    chosen and named beforehand."""

    runs: Mapping[Arm, Runs]
    parts: Mapping[str, Mapping[Arm, Runs]]
    trials: Mapping[str, Trial]
    head: tuple[str, int] | None
    conditions: Mapping[str, Condition]

    @property
    def main(self) -> str:
        """The main condition's name."""
        return next(iter(self.conditions))

    def chosen(self, method: str, condition: Condition) -> Runs:
        """The method's runs with its chosen trial and the study's head; {} without any."""
        if method not in self.trials or self.head is None:
            return {}
        return self.runs.get(Arm(method, self.trials[method], condition, self.head), {})

    def seeds(self, part: str) -> set[int]:
        """Those that a part was run on; other parts may lend it cells with more."""
        return set().union(*self.parts[part].values())


def read(
    records: Sequence[Record], choices: Mapping[str, Mapping], conditions: Mapping[str, Condition]
) -> Study:
    """Records by arm and seed; raises as `write` does."""
    final = [record for record in records if record["part"] != "curves"]
    runs = _by_arm(final)
    for record in final:
        condition = Condition(**record["condition"])
        if record["part"] == "main" and condition not in conditions.values():
            raise DataError(f"a record of the part main has none of its conditions: {condition}")
    heads = {_arm(record).head for record in final if record["part"] != "heads"}
    if len(heads) > 1:
        raise DataError(f"heads differ outside the part heads: {sorted(heads)}")
    names = sorted({record["part"] for record in records})
    return Study(
        runs,
        {part: _by_arm(r for r in records if r["part"] == part) for part in names},
        {method: _trial(choice) for method, choice in choices.items()},
        next(iter(heads), None),
        conditions,
    )


def _by_arm(records: Iterable[Record]) -> dict[Arm, Runs]:
    runs: dict[Arm, dict[int, Record]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        arm, seed = _arm(record), record["seed"]
        if arm.method not in METHODS:
            raise DataError(f"unknown method {arm.method!r}: known are {', '.join(METHODS)}")
        if seed in runs.setdefault(arm, {}):
            raise DataError(f"two records of seed {seed} of {arm}: keep one of them")
        runs[arm][seed] = record
    return runs


def _arm(record: Record) -> Arm:
    head = (record["head"]["kind"], record["head"]["layers"])
    return Arm(record["method"], _trial(record), Condition(**record["condition"]), head)


def _trial(setting: Mapping[str, Any]) -> Trial:
    return Trial(setting["learning_rate"], setting["strength"])


# What is compared


@dataclasses.dataclass(frozen=True)
class Claim:
    """A GRM variant's gain on the endpoint over a control, with p adjusted over the variants."""

    variant: str
    control: str
    gain: Paired
    adjusted: float


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


def overall(found: Sequence[Claim]) -> Literal["supported", "refuted", "open"]:
    """The verdict on GRM as a whole, from the claims of one condition against one control.

    Supported by one variant that is, if p after Holm's adjustment is below .05 too; refuted if all
    variants are; else open.
    """
    words = {claim.variant: verdict(claim.gain, worthwhile=WORTHWHILE) for claim in found}
    if any(words[claim.variant] == "supported" and claim.adjusted < 0.05 for claim in found):
        return "supported"
    return "refuted" if all(words.get(name) == "refuted" for name in VARIANTS) else "open"


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
    means = {name: _scores(runs, seeds, macro(ENDPOINT)).mean() for name, runs in cells.items()}
    measured = {name: mean for name, mean in means.items() if np.isfinite(mean)}
    return max(measured, key=measured.__getitem__, default=None)


def gain(runs: Runs, baseline: Runs, split: str) -> Paired | None:
    """The mean gain in accuracy over the seeds that both have; None with fewer than two."""
    seeds = sorted(runs.keys() & baseline.keys())
    difference = _scores(runs, seeds, macro(split)) - _scores(baseline, seeds, macro(split))
    measured = difference[np.isfinite(difference)]
    return paired(measured) if len(measured) > 1 else None


def common(
    cells: Mapping[str, Runs], planned: Collection[int] | None = None
) -> tuple[list[int], str]:
    """The seeds that all cells with runs have, and a sentence on them and on what is missing.

    Missing is a seed of `planned`, or of any cell without it, and a cell without runs.
    """
    present = [set(runs) for runs in cells.values() if runs]
    seeds = sorted(set.intersection(*present)) if present else []
    lacking = _lacking(cells, set().union(*present) if planned is None else planned)
    if not lacking:
        return seeds, f"n = {len(seeds)} seeds."
    return seeds, f"n = {len(seeds)} seeds, those that all with runs have. Missing: {lacking}."


def _lacking(cells: Mapping[str, Runs], planned: Collection[int]) -> str:
    """Which of the seeds each cell lacks, in words; "" where none lacks any."""
    gaps = []
    for name, runs in cells.items():
        gap = sorted(set(planned) - set(runs))
        if not runs:
            gaps.append(f"{name} (all seeds)")
        elif gap:
            gaps.append(f"{name} (seed{'s' if len(gap) > 1 else ''} {_list(gap)})")
    return _list(gaps, "; ")


def macro(split: str) -> Value:
    """Family-macro accuracy on a split."""
    return lambda record: record["splits"].get(split, {}).get("macro")


def language(split: str) -> Value:
    """Family-macro accuracy of ranking a split's responses by their log-prob."""
    return lambda record: record["splits"].get(split, {}).get("language")


def drift(split: str) -> Value:
    """How far a split's states have moved from the base's."""
    return lambda record: record["drift"].get(split)


def stopped(record: Record) -> float:
    """The share of its steps after which a run's model was taken."""
    return record["stopped"] / record["steps"]


def _scores(runs: Runs, seeds: Iterable[int], value: Value) -> np.ndarray:
    """Float64 [seeds], NaN where nothing was measured."""
    found = (value(runs[seed]) if seed in runs else None for seed in seeds)
    return np.array([np.nan if x is None else x for x in found], np.float64)


# The sections, in the page's order


def verdicts(study: Study) -> Section:
    """Each variant against the best control and against plain BT, at each condition."""
    text = (
        f"Primary endpoint: accuracy on `{ENDPOINT}`, families of questions that training never "
        "saw. A gain is a variant's accuracy less a control's of the same seed, in percentage "
        "points, with its 95 % interval (inverted sign-flip test over seeds), the test's p, and p "
        "after Holm's adjustment over the variants, missing ones too. Supported: the interval is "
        f"above 0. Else refuted: its upper end is below {100 * WORTHWHILE:g} points. Else open. "
        "n counts the seeds that both have."
    )
    best, plain, lines = {}, {}, []
    for name, condition in study.conditions.items():
        _, sentence = common({control: study.chosen(control, condition) for control in CONTROLS})
        lines.append(f"- {name}: {condition}. Controls: {sentence}")
        control = best_control(study, condition)
        best[name] = claims(study, condition, control) if control else []
        plain[name] = claims(study, condition, "bt")
    against_best = (
        f"The best control at a condition is, of {_list(CONTROLS)}, the one with the highest mean "
        "on the endpoint itself, over the seeds that all of them have: the hardest comparison, "
        "and a choice that favours the controls."
    )
    whole = (
        f"GRM's claim, at condition {study.main} against the best control: "
        f"**{overall(best[study.main])}**. It is supported by one supported variant whose Holm p "
        "is below .05, refuted if all variants are, and open otherwise."
    )
    parts = [whole, text, "\n".join(lines)]
    parts += ["### Against the best control", against_best, _claim_table(best)]
    parts += ["### Against plain Bradley-Terry", _claim_table(plain)]
    return Section("Verdicts", "\n\n".join(parts))


def _claim_table(by_condition: Mapping[str, Sequence[Claim]]) -> str:
    head = ["condition", "variant", "against", "n", "gain", "95 % interval", "p", "Holm p"]
    rows = []
    for condition, made in by_condition.items():
        by_variant = {claim.variant: claim for claim in made}
        for variant in VARIANTS:
            if (claim := by_variant.get(variant)) is None:
                rows.append([condition, variant, *["missing"] * 7])
                continue
            found = claim.gain
            cells = [claim.control, found.n, f"{100 * found.mean:+.2f}", _interval(found)]
            cells += [f"{found.p:.4f}", f"{claim.adjusted:.4f}"]
            word = verdict(found, worthwhile=WORTHWHILE)
            rows.append([condition, variant, *cells, f"**{word}**"])
    return _table([*head, "verdict"], rows, left=3)


def condition_tables(study: Study, name: str) -> Section:
    """Methods by splits at one condition, and what became of the language model."""
    condition = study.conditions[name]
    title = f"Condition {name}: {condition}"
    cells = {method: study.chosen(method, condition) for method in MAIN}
    if not any(cells.values()):
        return Section(title, NO_RECORDS)
    seeds, _ = common(cells)
    columns = {
        "language, id": (language("id"), PERCENT),
        f"language, {ENDPOINT}": (language(ENDPOINT), PERCENT),
        "drift, id": (drift("id"), SHARE),
        f"drift, {ENDPOINT}": (drift(ENDPOINT), SHARE),
        "stopped": (stopped, PERCENT),
    }
    rows = [
        [
            method,
            study.trials.get(method, "missing"),
            *(_cell(_scores(runs, seeds, value), form) for value, form in columns.values()),
        ]
        for method, runs in cells.items()
    ]
    states = (
        "Of the same runs. Language: accuracy of ranking responses by their log-prob under the "
        "model's own language-model head, in %. Drift: mean cosine distance of the states that "
        "rewards are read from to the base's. Stopped: the step whose model counts, in % of all."
    )
    table = _table(["method", "trial", *columns], rows, left=2)
    return Section(title, "\n\n".join([_comparison(cells, "Accuracy, %."), states, table]))


def forest(study: Study, condition: Condition) -> Section:
    """The gain of every method over BT on every split."""
    title = f"Gains over BT at condition {study.main}"
    others = [method for method in MAIN if method != "bt"]
    baseline = study.chosen("bt", condition)
    gains = {
        split: {name: gain(study.chosen(name, condition), baseline, split) for name in others}
        for split in SPLITS
    }
    if not any(value for found in gains.values() for value in found.values()):
        return Section(title, NO_RECORDS)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(SPLITS), sharex=True, sharey=True)
        for axes, (split, found) in zip(panels, gains.items(), strict=True):
            axes.axvline(0, color=NEUTRAL, linewidth=1)
            for y, (name, value) in enumerate(found.items()):
                if value is None:
                    continue
                look = {"color": COLORS[name], "marker": MARKERS[name]}
                # Too few seeds for a 95 % interval make it infinite: a hollow point has no bar.
                bounded = np.isfinite([value.low, value.high]).all()
                axes.plot(100 * value.mean, y, markerfacecolor=None if bounded else "white", **look)
                if bounded:
                    axes.hlines(y, 100 * value.low, 100 * value.high, color=COLORS[name])
            axes.set_yticks(range(len(others)), others)
            axes.set_ylim(len(others) - 0.5, -0.5)
            axes.set_xlabel("gain, points")
            axes.set_title(split)

    counts = [
        f"{name} {value.n if value else 'missing'}" for name, value in gains[ENDPOINT].items()
    ]
    text = (
        "Mean over seeds of each method's accuracy less BT's of the same seed, with 95 % "
        "sign-flip intervals; a hollow point has too few seeds for one. Seeds: "
        f"{_list(counts)}."
    )
    alt = "Gain of each method over BT, one panel per split"
    return Section(title, text, (Chart("forest", alt, _svg("forest", draw, 10, 3.2)),))


def mechanism(study: Study, condition: Condition) -> Section:
    """Language ability and drift against accuracy on the endpoint, run by run."""
    title = "Language ability, drift and generalisation"
    values = (language(ENDPOINT), drift(ENDPOINT), macro(ENDPOINT))
    points = {}
    for method in METHODS:
        runs = study.chosen(method, condition)
        found = np.stack([_scores(runs, runs, value) for value in values])
        points[method] = found[:, np.isfinite(found).all(0)]
    if not any(found.size for found in points.values()):
        return Section(title, NO_RECORDS)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for name, (ability, moved, accuracy) in points.items():
            look = {"color": COLORS[name], "marker": MARKERS[name], "linewidths": 0}
            for axes, x in zip(panels, (100 * ability, moved), strict=True):
                if x.size:
                    axes.scatter(x, 100 * accuracy, s=14, alpha=0.4, **look)
                    label = f"{name}, n = {x.size}"
                    axes.scatter(x.mean(), 100 * accuracy.mean(), s=80, label=label, **look)
        panels[0].set_xlabel(f"language: ranking {ENDPOINT} by log-prob, %")
        panels[1].set_xlabel(f"drift on {ENDPOINT}, cosine distance")
        panels[0].set_ylabel(f"{ENDPOINT} accuracy, %")
        _legend(figure, columns=3)

    text = (
        f"At condition {study.main}: accuracy on `{ENDPOINT}` against what is left of the language "
        "model, and against how far the states have moved. Small: one run. Large: the mean of a "
        "method's n runs."
    )
    alt = "Accuracy out of distribution against language ability and drift, one point per run"
    return Section(title, text, (Chart("mechanism", alt, _svg("mechanism", draw, 9, 4.6)),))


def sizes(study: Study, main: Condition) -> Section:
    """BT and GRM against the number of pairs, at each level of label noise."""
    title = "Training pairs and label noise"
    if not (asked := study.parts.get("sizes")):
        return Section(title, NO_RECORDS)
    methods, splits = ("bt", "grm_sft"), (ENDPOINT, "id")
    noises = sorted({arm.condition.label_noise for arm in asked}, reverse=True)
    # The other parts have some of the sizes already, at the same levels of noise.
    alike = {dataclasses.replace(main, label_noise=noise, pairs=0) for noise in noises}
    conditions = {arm.condition for arm in study.runs}
    pairs = sorted({c.pairs for c in conditions if dataclasses.replace(c, pairs=0) in alike})
    runs = {
        (method, noise, n): study.chosen(
            method, dataclasses.replace(main, label_noise=noise, pairs=n)
        )
        for method in methods
        for noise in noises
        for n in pairs
    }
    names = {key: f"{key[0]}, {key[2]:,} pairs, {100 * key[1]:g} % noise" for key in runs}
    cells = {names[key]: found for key, found in runs.items()}
    seeds, sentence = common(cells, study.seeds("sizes"))
    if not seeds:
        return Section(title, f"Left out: {sentence}")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(splits), sharey=True)
        panels[0].set_ylabel("accuracy, %")
        for axes, split in zip(panels, splits, strict=True):
            for method, (i, noise) in itertools.product(methods, enumerate(noises)):
                points = [_scores(runs[method, noise, n], seeds, macro(split)) for n in pairs]
                look = {"color": COLORS[method], "marker": MARKERS[method], "linestyle": DASHES[i]}
                _line(axes, pairs, points, label=f"{method}, {100 * noise:g} % noise", **look)
            axes.set_xscale("log")
            axes.set_xticks(pairs, [f"{n:,}" for n in pairs])
            axes.minorticks_off()
            axes.set_xlabel("training pairs")
            axes.set_title(split)
        _legend(figure, columns=2)

    def gains(noise: float, n: int) -> list[str]:
        bt, grm = (runs[method, noise, n] for method in methods)
        scores = ([_scores(cell, seeds, macro(split)) for cell in (bt, grm)] for split in splits)
        return [_cell(after - before, POINTS) for before, after in scores]

    head = ["label noise", "pairs", *(f"gain, {split}" for split in splits)]
    rows = [[f"{100 * noise:g} %", f"{n:,}", *gains(noise, n)] for noise in noises for n in pairs]
    text = (
        f"Lines: means; bands: one standard error. {sentence} The table has the gain of grm_sft "
        f"over bt of the same seed, in points.\n\n{_table(head, rows, left=0)}"
    )
    alt = "Accuracy of BT and GRM against training pairs, out of distribution and in it"
    return Section(title, text, (Chart("sizes", alt, _svg("sizes", draw, 8, 4)),))


def curves(study: Study) -> Section:
    """Accuracy and loss on held-out data in the course of training."""
    title = "Learning curves"
    if not (of_arm := study.parts.get("curves")):
        return Section(title, NO_RECORDS)
    arms = sorted(of_arm, key=lambda arm: (METHODS.index(arm.method), arm.condition.epochs))
    epochs = sorted({arm.condition.epochs for arm in arms})
    names = {
        arm: arm.method if len(epochs) == 1 else f"{arm.method}, epochs: {arm.condition.epochs}"
        for arm in arms
    }
    if len(set(names.values())) < len(arms):
        raise DataError("curves of arms that differ in more than method and epochs")
    seeds, sentence = common({names[arm]: of_arm[arm] for arm in arms})
    if not seeds:
        return Section(title, f"Left out: {sentence}")
    tables = {arm: [of_arm[arm][seed]["curve"] for seed in seeds] for arm in arms}
    for arm, found in tables.items():
        if len({len(curve) for curve in found}) > 1:
            raise DataError(f"curves of {names[arm]} have different numbers of points")
    keys = {key for found in tables.values() for curve in found for line in curve for key in line}
    splits = [split for split in SPLITS if f"{split}/macro" in keys]
    figures_of = {"macro": ("accuracy, %", 100), "loss": ("loss, nats", 1)}

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(figures_of), len(splits), squeeze=False, sharey="row")
        cells = itertools.product(figures_of.items(), splits)
        for axes, ((key, (unit, scale)), split) in zip(grid.flat, cells, strict=True):
            for arm, found in tables.items():
                points = np.array([[line[f"{split}/{key}"] for line in curve] for curve in found])
                steps = np.mean([[line["step"] for line in curve] for curve in found], 0)
                dashes = DASHES[epochs.index(arm.condition.epochs)]
                look = {"color": COLORS[arm.method], "linestyle": dashes, "marker": "."}
                _line(axes, steps, points.T, scale, label=names[arm], **look)
            axes.set_title(split if key == "macro" else "")
            axes.set_ylabel(unit if split == splits[0] else "")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for axes in grid[-1]:
            axes.set_xlabel("optimizer step")
        _legend(figure, columns=4)

    text = (
        f"On a sample of each split. Labels of `val` are as noisy as training's. Lines: means; "
        f"bands: one standard error. {sentence}"
    )
    alt = "Accuracy and loss of BT and GRM on held-out splits against training steps"
    return Section(title, text, (Chart("curves", alt, _svg("curves", draw, 9, 5.2)),))


def strengths(study: Study, main: Condition) -> Section:
    """GRM against its strength alpha, on every split, beside BT."""
    title = "Strength of the text loss"
    if "strengths" not in study.parts or "grm_sft" not in study.trials:
        return Section(title, NO_RECORDS)
    rate = study.trials["grm_sft"].learning_rate
    swept = {
        arm.trial.strength: runs
        for arm, runs in study.runs.items()
        if (arm.method, arm.condition, arm.head) == ("grm_sft", main, study.head)
        and arm.trial.learning_rate == rate
    }
    alphas = sorted(swept)
    cells = {"bt": study.chosen("bt", main)}
    cells |= {f"grm_sft, alpha {alpha:g}": swept[alpha] for alpha in alphas}
    seeds, sentence = common(cells, study.seeds("strengths"))
    if not seeds:
        return Section(title, f"Left out: {sentence}")
    places = range(len(alphas))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(SPLITS))
        panels[0].set_ylabel("accuracy, %")
        for axes, split in zip(panels, SPLITS, strict=True):
            bt = [_scores(cells["bt"], seeds, macro(split))] * len(alphas)
            grm = [_scores(swept[alpha], seeds, macro(split)) for alpha in alphas]
            _line(axes, places, bt, label="bt", color=COLORS["bt"], linestyle="--")
            look = {"color": COLORS["grm_sft"], "marker": MARKERS["grm_sft"]}
            _line(axes, places, grm, label="grm_sft", **look)
            axes.set_xticks(places, [f"{alpha:g}" for alpha in alphas])
            axes.set_xlabel("alpha")
            axes.set_title(split)
        _legend(figure, columns=2)

    text = (
        f"grm_sft at condition {study.main} against alpha, the share of its loss that is text, at "
        f"a learning rate of {rate:g}. Lines: means; bands: one standard error; "
        f"each split has its own axis. {sentence}"
    )
    alt = "Accuracy of GRM against alpha, one panel per split, with BT as a line"
    return Section(title, text, (Chart("strengths", alt, _svg("strengths", draw, 10, 3.4)),))


def heads(study: Study, main: Condition) -> Section:
    """BT and GRM with reward heads of different depth."""
    title = "Depth of the reward head"
    if "heads" not in study.parts:
        return Section(title, NO_RECORDS)
    kinds = sorted({arm.head for arm in study.runs if arm.condition == main})
    cells = {
        f"{method}, {_head(head)}": dataclasses.replace(study, head=head).chosen(method, main)
        for head in kinds
        for method in ("bt", "grm_sft")
    }
    what = f"Accuracy at condition {study.main}, %."
    return Section(title, _comparison(cells, what, study.seeds("heads")))


def frozen(study: Study, main: Condition) -> Section:
    """The head alone trained, beside BT and GRM."""
    title = "Frozen trunk"
    if "frozen" not in study.parts:
        return Section(title, NO_RECORDS)
    cells = {method: study.chosen(method, main) for method in ("frozen", "bt", "grm_sft")}
    what = f"Accuracy at condition {study.main}, %."
    return Section(title, _comparison(cells, what, study.seeds("frozen")))


def screen(choices: Mapping[str, Mapping[str, Any]]) -> Section:
    """All trials of all methods, and which was chosen."""
    rows = []
    for method, choice in choices.items():
        for tried in choice["trials"]:
            error = tried["standard_error"]
            figure = f"{100 * tried['mean']:.1f}" + (
                "" if error is None else f" ± {100 * error:.1f}"
            )
            chosen = "chosen" if _trial(tried) == _trial(choice) else ""
            rows.append([method, _trial(tried), figure, chosen])
    text = (
        "Accuracy on `val`, %, of every trial of the screen, on another lexicon than the "
        "report's. The best mean was chosen, and no other split was looked at."
    )
    return Section("Trials", f"{text}\n\n{_table(['method', 'trial', 'val', ''], rows, left=2)}")


def inventory(study: Study, records: Sequence[Record]) -> Section:
    """How much was run, on how many items, and which of the main part's cells are missing."""
    rows = []
    for part in sorted(study.parts):
        of_part = [record for record in records if record["part"] == part]
        hours = sum(record["seconds"] for record in of_part) / 3600
        tokens = sum(record["tokens"] for record in of_part) / 1e6
        seeds = {record["seed"] for record in of_part}
        rows.append([part, len(of_part), len(seeds), f"{hours:.2f}", f"{tokens:.1f}"])
    items = [
        f"{split} {_list(f'{n:,}' for n in sorted(counts))}"
        for split in SPLITS
        if (counts := {r["splits"][split]["n"] for r in records if split in r["splits"]})
    ]
    cells = {
        f"{method} at {name}": study.chosen(method, condition)
        for name, condition in study.conditions.items()
        for method in MAIN
    }
    lacking = _lacking(cells, set().union(*cells.values()))
    return Section(
        "Runs",
        "\n\n".join(
            [
                "A run that several parts ask for is counted once. Hours and tokens (millions) are "
                "of training alone.",
                _table(["part", "runs", "seeds", "hours", "tokens"], rows, left=1),
                f"Items per split: {_list(items, '; ')}.",
                f"Missing from the main part: {lacking or 'nothing'}.",
            ]
        ),
    )


# Markdown and numbers in it


def _comparison(
    cells: Mapping[str, Runs], what: str, planned: Collection[int] | None = None
) -> str:
    """A table of accuracies, a line for each cell and a column for each split."""
    seeds, sentence = common(cells, planned)
    rows = [
        [name, *(_cell(_scores(runs, seeds, macro(split)), PERCENT) for split in SPLITS)]
        for name, runs in cells.items()
    ]
    return f"{what} {sentence}\n\n{_table(['method', *SPLITS], rows, left=1)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], left: int) -> str:
    """A Markdown table whose first `left` columns are aligned left, the others right."""
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [head, rule, *rows])


def _cell(scores: np.ndarray, form: tuple[int, str]) -> str:
    """Mean ± standard error of scores [seeds]; "missing" where any of them is."""
    if not scores.size or np.isnan(scores).any():
        return "missing"
    scale, digits = form
    mean = format(scale * scores.mean(), digits)
    if scores.size == 1:
        return mean
    return f"{mean} ± {format(scale * _error(scores), digits.lstrip('+'))}"


def _error(scores: np.ndarray) -> np.ndarray:
    """The standard error of the mean over the last axis, NaN of a single one."""
    n = scores.shape[-1]
    return scores.std(-1, ddof=1) / np.sqrt(n) if n > 1 else np.full(scores.shape[:-1], np.nan)


def _interval(gain: Paired) -> str:
    low, high = (f"{100 * end:+.2f}".replace("inf", "∞") for end in (gain.low, gain.high))
    return f"{low} to {high}"


def _head(head: tuple[str, int]) -> str:
    kind, layers = head
    return kind if kind == "linear" else f"{kind} of {layers} layer{'s' if layers != 1 else ''}"


def _list(words: Iterable[Any], between: str = ", ") -> str:
    return between.join(map(str, words))


# Charts


def _svg(name: str, draw: Callable[[Figure], None], width: float, height: float) -> str:
    """A figure of so many inches on white; its letters are shapes, so no viewer lacks the font."""
    look = {"svg.hashsalt": name, "svg.fonttype": "path", "legend.frameon": False}
    with matplotlib.rc_context(STYLE | look):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _line(
    axes: Axes, x: Sequence[float], points: Sequence[np.ndarray], scale: int = 100, **look: Any
) -> None:
    """A line of means over seeds, and one standard error around it.

    Args:
      x: [points].
      points: scores [seeds] at each point; one without all its seeds leaves a gap.
    """
    scores = scale * np.array(points)
    mean, error = scores.mean(-1), _error(scores)
    axes.plot(x, mean, **{"markersize": 5} | look)
    axes.fill_between(x, mean - error, mean + error, color=look["color"], alpha=0.15, linewidth=0)


def _legend(figure: Figure, columns: int) -> None:
    """One legend of all panels, beneath them."""
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=columns)
