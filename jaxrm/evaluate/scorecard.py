"""An evaluation as one page, and as a table for a terminal."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from jaxrm.evaluate.benchmark import subset_of, withheld
from jaxrm.evaluate.estimates import WITHHELD
from jaxrm.report import figures, webpage
from jaxrm.report.tables import aligned, between, number

Results = Mapping[str, Any]
"""{"scorer": {what it is}, "benchmarks": {name: an `assess.Assessment` as JSON}}."""

HEAD = ("benchmark", "figure", "%", "95 % interval", "comparisons")


def table(results: Results) -> str:
    """The official headline of every benchmark, for a terminal, and what is to be known of it."""
    benchmarks = results["benchmarks"]
    rows = [_headline(name, assessed) for name, assessed in benchmarks.items()]
    notes = [
        f"{name}: {note}" for name, assessed in benchmarks.items() for note in _notes(assessed)
    ]
    return "\n\n".join([aligned(HEAD, rows), *(["\n".join(notes)] if notes else [])])


def page(results: Results) -> str:
    """The page: every figure of every rule, subset by subset, with intervals."""
    benchmarks = results["benchmarks"]
    # What tells a scorer from others comes after its name, and is for machines.
    scorer = str(next(iter(results["scorer"].values())))
    summary = webpage.section(
        "Headlines",
        "Each benchmark's own figure by its first rule. Intervals are of 95 % and over prompts: "
        "another set of prompts like these would move the figure about so far.",
        webpage.table(HEAD, [map(html.escape, _headline(*item)) for item in benchmarks.items()]),
    )
    sections = [_section(name, assessed) for name, assessed in benchmarks.items()]
    return webpage.document(f"Evaluation: {scorer}", "", [summary, *sections])


def _headline(name: str, assessed: Mapping[str, Any]) -> list[str]:
    figure, value = next(iter(next(iter(assessed["rules"].values()))["figures"].items()))
    return [name, figure, *_cells(value), f"{assessed['comparisons']:,}"]


def _notes(assessed: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting the figures."""
    notes = []
    if missing := assessed["missing"]:
        notes.append(withheld({name: (n["found"], n["expected"]) for name, n in missing.items()}))
    of_rules = (rule["figures"].values() for rule in assessed["rules"].values())
    all_figures = itertools.chain.from_iterable(of_rules)
    if any(figure["low"] is None and figure["value"] is not None for figure in all_figures):
        notes.append(WITHHELD)
    counts = {
        "not_a_number": "with a score that is no finite number, never a win",
        "empty": "with an empty answer, scored like any other",
        "ties": "with equal scores for responses of different rank",
    }
    return notes + [f"{assessed[key]:,} {words}" for key, words in counts.items() if assessed[key]]


def _section(name: str, assessed: Mapping[str, Any]) -> str:
    rules = assessed["rules"]
    counts = f"{assessed['comparisons']:,} comparisons, {assessed['responses']:,} responses."
    notes = [*map(html.escape, _notes(assessed))]
    notes += [f"<b>{html.escape(n)}</b>: {html.escape(rule['says'])}" for n, rule in rules.items()]
    return webpage.section(
        f"{html.escape(name)}<small> {html.escape(assessed['title'])}</small>",
        counts,
        *map(webpage.note, notes),
        _rules_side_by_side(rules),
        *_charts(assessed),
    )


def _rules_side_by_side(rules: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each figure, and two columns for each rule that has it."""
    head = ["figure"]
    for rule in rules:
        head += [f"{html.escape(rule)}<small>%</small>", "<small>95 % interval</small>"]
    rows = []
    for figure in dict.fromkeys(name for rule in rules.values() for name in rule["figures"]):
        shown = (rule["figures"].get(figure) for rule in rules.values())
        cells = (["", ""] if value is None else _cells(value) for value in shown)
        rows.append([html.escape(figure), *itertools.chain.from_iterable(cells)])
    return webpage.table(head, rows)


def _cells(figure: Mapping[str, Any]) -> list[str]:
    """A figure and its interval, in percent."""
    return [number(figure["value"]), between(figure["low"], figure["high"])]


def _charts(assessed: Mapping[str, Any]) -> list[str]:
    """A chart of the first rule's groups, without those whose figures the tables withhold."""
    groups = {
        name: figure
        for name, figure in next(iter(assessed["rules"].values()))["groups"].items()
        if subset_of(name) not in assessed["missing"]
    }
    return [webpage.grid([_chart(groups)], wide=True)] if groups else []


def _chart(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """The mean credit of each group with its interval."""

    def draw(axes: Axes) -> None:
        for place, figure in enumerate(groups.values()):
            shown = figure["value"], figure["low"], figure["high"]
            figures.bar(axes, place, shown, figures.PALETTE[0], scale=100)
        names = [f"{name or 'all'}  (n = {figure['n']:,})" for name, figure in groups.items()]
        axes.set_xlim(min(0, *(100 * figure["value"] for figure in groups.values())), 100)
        figures.listed(axes, names, "mean credit, %")

    return figures.svg("", draw, width=6.0, height=0.8 + 0.27 * len(groups))
