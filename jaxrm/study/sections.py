"""The sections of a study's page: a function of its records makes each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from jaxrm.errors import DataError
from jaxrm.report.markdown import table
from jaxrm.study import charts
from jaxrm.study.charts import Chart
from jaxrm.study.claims import WORTHWHILE, best_control, claims, gain, overall
from jaxrm.study.records import (
    CONTROLS,
    ENDPOINT,
    MAIN,
    METHODS,
    SPLITS,
    Choices,
    Condition,
    Record,
    Study,
    common,
    drift,
    lacking,
    language,
    macro,
    scores,
    stopped,
)
from jaxrm.study.tables import PERCENT, POINTS, SHARE, cell, comparison, trials_table, verdict_table

NO_RECORDS = "Left out: there are no records of this part."


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: Markdown, then a chart where it has one."""

    title: str
    text: str
    chart: Chart | None = None

    def markdown(self, folder: str) -> str:
        """As Markdown whose charts lie in `folder`."""
        parts = [f"## {self.title}", self.text]
        if self.chart:
            parts.append(f"![{self.chart.alt}]({folder}/{self.chart.name}.svg)")
        return "\n\n".join(parts)


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
        f"The best control at a condition is, of {', '.join(CONTROLS)}, the one with the highest "
        "mean on the endpoint itself, over the seeds that all of them have: the hardest "
        "comparison, and a choice that favours the controls."
    )
    whole = (
        f"GRM's claim, at condition {study.main} against the best control: "
        f"**{overall(best[study.main])}**. It is supported by one supported variant whose Holm p "
        "is below .05, refuted if all variants are, and open otherwise."
    )
    parts = [whole, text, "\n".join(lines)]
    parts += ["### Against the best control", against_best, verdict_table(best)]
    parts += ["### Against plain Bradley-Terry", verdict_table(plain)]
    return Section("Verdicts", "\n\n".join(parts))


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
            *(cell(scores(runs, seeds, value), form) for value, form in columns.values()),
        ]
        for method, runs in cells.items()
    ]
    states = (
        "Of the same runs. Language: accuracy of ranking responses by their log-prob under the "
        "model's own language-model head, in %. Drift: mean cosine distance of the states that "
        "rewards are read from to the base's. Stopped: the step whose model counts, in % of all."
    )
    after = table(["method", "trial", *columns], rows, left=2)
    return Section(title, "\n\n".join([comparison(cells, "Accuracy, %."), states, after]))


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
    seeds = [f"{name} {found.n if found else 'missing'}" for name, found in gains[ENDPOINT].items()]
    text = (
        "Mean over seeds of each method's accuracy less BT's of the same seed, with 95 % "
        "sign-flip intervals; a hollow point has too few seeds for one. Seeds: "
        f"{', '.join(seeds)}."
    )
    return Section(title, text, charts.forest(gains))


def mechanism(study: Study, condition: Condition) -> Section:
    """Language ability and drift against accuracy on the endpoint, run by run."""
    title = "Language ability, drift and generalisation"
    values = (language(ENDPOINT), drift(ENDPOINT), macro(ENDPOINT))
    points = {}
    for method in METHODS:
        runs = study.chosen(method, condition)
        found = np.stack([scores(runs, runs, value) for value in values])
        points[method] = found[:, np.isfinite(found).all(0)]
    if not any(found.size for found in points.values()):
        return Section(title, NO_RECORDS)
    text = (
        f"At condition {study.main}: accuracy on `{ENDPOINT}` against what is left of the language "
        "model, and against how far the states have moved. Small: one run. Large: the mean of a "
        "method's n runs."
    )
    return Section(title, text, charts.mechanism(points))


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
        for method, noise, n in itertools.product(methods, noises, pairs)
    }
    cells = {
        f"{method}, {n:,} pairs, {100 * noise:g} % noise": found
        for (method, noise, n), found in runs.items()
    }
    seeds, sentence = common(cells, study.seeds("sizes"))
    if not seeds:
        return Section(title, f"Left out: {sentence}")
    accuracy = {
        split: {
            (method, noise): np.array(
                [scores(runs[method, noise, n], seeds, macro(split)) for n in pairs]
            )
            for method, noise in itertools.product(methods, noises)
        }
        for split in splits
    }
    gains = {
        noise: [found["grm_sft", noise] - found["bt", noise] for found in accuracy.values()]
        for noise in noises
    }
    head = ["label noise", "pairs", *(f"gain, {split}" for split in splits)]
    rows = [
        [f"{100 * noise:g} %", f"{n:,}", *(cell(found[i], POINTS) for found in gains[noise])]
        for noise in noises
        for i, n in enumerate(pairs)
    ]
    text = (
        f"Lines: means; bands: one standard error. {sentence} The table has the gain of grm_sft "
        f"over bt of the same seed, in points.\n\n{table(head, rows, left=0)}"
    )
    return Section(title, text, charts.sizes(pairs, accuracy))


def curves(study: Study) -> Section:
    """Accuracy and loss on held-out data in the course of training."""
    title = "Learning curves"
    if not (of_arm := study.parts.get("curves")):
        return Section(title, NO_RECORDS)
    arms = sorted(of_arm, key=lambda arm: (METHODS.index(arm.method), arm.condition.epochs))
    several = len({arm.condition.epochs for arm in arms}) > 1
    names = {
        arm: f"{arm.method}, epochs: {arm.condition.epochs}" if several else arm.method
        for arm in arms
    }
    if len(set(names.values())) < len(arms):
        raise DataError("curves of arms that differ in more than method and epochs")
    seeds, sentence = common({names[arm]: of_arm[arm] for arm in arms})
    if not seeds:
        return Section(title, f"Left out: {sentence}")
    logged = {arm: [of_arm[arm][seed]["curve"] for seed in seeds] for arm in arms}
    for arm, found in logged.items():
        if len({len(curve) for curve in found}) > 1:
            raise DataError(f"curves of {names[arm]} have different numbers of points")
    keys = {key for found in logged.values() for curve in found for line in curve for key in line}
    splits = [split for split in SPLITS if f"{split}/macro" in keys]
    text = (
        f"On a sample of each split. Labels of `val` are as noisy as training's. Lines: means; "
        f"bands: one standard error. {sentence}"
    )
    return Section(title, text, charts.curves(logged, names, splits))


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
    bt = study.chosen("bt", main)
    cells = {"bt": bt} | {f"grm_sft, alpha {alpha:g}": swept[alpha] for alpha in alphas}
    seeds, sentence = common(cells, study.seeds("strengths"))
    if not seeds:
        return Section(title, f"Left out: {sentence}")
    level = {split: scores(bt, seeds, macro(split)) for split in SPLITS}
    found = {
        split: np.array([scores(swept[alpha], seeds, macro(split)) for alpha in alphas])
        for split in SPLITS
    }
    text = (
        f"grm_sft at condition {study.main} against alpha, the share of its loss that is text, at "
        f"a learning rate of {rate:g}. Lines: means; bands: one standard error; "
        f"each split has its own axis. {sentence}"
    )
    return Section(title, text, charts.strengths(alphas, level, found))


def heads(study: Study, main: Condition) -> Section:
    """BT and GRM with reward heads of different depth."""
    title = "Depth of the reward head"
    if "heads" not in study.parts:
        return Section(title, NO_RECORDS)
    kinds = sorted({arm.head for arm in study.runs if arm.condition == main})
    cells = {
        f"{method}, {_in_words(head)}": dataclasses.replace(study, head=head).chosen(method, main)
        for head in kinds
        for method in ("bt", "grm_sft")
    }
    what = f"Accuracy at condition {study.main}, %."
    return Section(title, comparison(cells, what, study.seeds("heads")))


def _in_words(head: tuple[str, int]) -> str:
    kind, layers = head
    return kind if kind == "linear" else f"{kind} of {layers} layer{'s' if layers != 1 else ''}"


def frozen(study: Study, main: Condition) -> Section:
    """The head alone trained, beside BT and GRM."""
    title = "Frozen trunk"
    if "frozen" not in study.parts:
        return Section(title, NO_RECORDS)
    cells = {method: study.chosen(method, main) for method in ("frozen", "bt", "grm_sft")}
    what = f"Accuracy at condition {study.main}, %."
    return Section(title, comparison(cells, what, study.seeds("frozen")))


def screen(choices: Choices) -> Section:
    """All trials of all methods, and which was chosen."""
    text = (
        "Accuracy on `val`, %, of every trial of the screen, on another lexicon than the "
        "report's. The best mean was chosen, and no other split was looked at."
    )
    return Section("Trials", f"{text}\n\n{trials_table(choices)}")


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
        f"{split} {', '.join(f'{n:,}' for n in sorted(counts))}"
        for split in SPLITS
        if (counts := {r["splits"][split]["n"] for r in records if split in r["splits"]})
    ]
    cells = {
        f"{method} at {name}": study.chosen(method, condition)
        for name, condition in study.conditions.items()
        for method in MAIN
    }
    gaps = lacking(cells, set().union(*cells.values()))
    text = [
        "A run that several parts ask for is counted once. Hours and tokens (millions) are "
        "of training alone.",
        table(["part", "runs", "seeds", "hours", "tokens"], rows, left=1),
        f"Items per split: {'; '.join(items)}.",
        f"Missing from the main part: {gaps or 'nothing'}.",
    ]
    return Section("Runs", "\n\n".join(text))
