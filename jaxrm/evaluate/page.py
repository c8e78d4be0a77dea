"""An evaluation as one page, and as a table for a terminal."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from jaxrm.evaluate.estimates import WITHHELD
from jaxrm.report import figures, terminal, webpage

Results = Mapping[str, Any]
"""{"scorer": {what it is}, "benchmarks": {name: an `assess.Assessment` as JSON}}."""

HEAD = ("benchmark", "figure", "%", "95 % interval", "comparisons")


def table(results: Results) -> str:
    """The official headline of every benchmark, for a terminal, and what is to be known of it."""
    rows = [_headline(name, found) for name, found in results["benchmarks"].items()]
    notes = [
        f"{name}: {note}" for name, found in results["benchmarks"].items() for note in _notes(found)
    ]
    return "\n\n".join([terminal.table(HEAD, rows), *(["\n".join(notes)] if notes else [])])


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
    sections = [_section(name, found) for name, found in benchmarks.items()]
    return webpage.document(f"Evaluation: {scorer}", "", [summary, *sections])


def _headline(name: str, found: Mapping[str, Any]) -> list[str]:
    figure, value = next(iter(next(iter(found["rules"].values()))["figures"].items()))
    return [name, figure, _percent(value), _interval(value), f"{found['comparisons']:,}"]


def _notes(found: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting the figures."""
    notes = []
    if missing := found["missing"]:
        subsets = ", ".join(
            f"{subset or 'all'} {of['found']:,} of {of['expected']:,}"
            for subset, of in missing.items()
        )
        notes.append(f"rows differ from the published ones, so what rests on them is — ({subsets})")
    of_rules = (rule["figures"].values() for rule in found["rules"].values())
    all_figures = itertools.chain.from_iterable(of_rules)
    if any(figure["low"] is None and figure["value"] is not None for figure in all_figures):
        notes.append(WITHHELD)
    counts = {
        "not_a_number": "with a score that is no finite number, never a win",
        "empty": "with an empty answer, scored like any other",
        "ties": "with equal scores for responses of different rank",
    }
    return notes + [f"{found[key]:,} {words}" for key, words in counts.items() if found[key]]


def _section(name: str, found: Mapping[str, Any]) -> str:
    rules = found["rules"]
    counts = f"{found['comparisons']:,} comparisons, {found['responses']:,} responses."
    notes = [f"<b>{html.escape(rule)}</b>: {html.escape(of['says'])}" for rule, of in rules.items()]
    notes = [*map(html.escape, _notes(found)), *notes]
    return webpage.section(
        f"{html.escape(name)}<small> {html.escape(found['title'])}</small>",
        counts,
        *(f"<p class=note>{note}</p>" for note in notes),
        _rules_side_by_side(rules),
        webpage.grid([_chart(next(iter(rules.values()))["groups"])], wide=True),
    )


def _rules_side_by_side(rules: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each figure, and two columns for each rule that has it."""
    head = ["figure"]
    for rule in rules:
        head += [f"{html.escape(rule)}<small>%</small>", "<small>95 % interval</small>"]
    rows = []
    for figure in dict.fromkeys(name for of in rules.values() for name in of["figures"]):
        rows.append([html.escape(figure)])
        for of in rules.values():
            value = of["figures"].get(figure)
            rows[-1] += ["", ""] if value is None else [_percent(value), _interval(value)]
    return webpage.table(head, rows)


def _chart(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """The mean credit of each group with its interval."""

    def draw(axes: Axes) -> None:
        for place, figure in enumerate(groups.values()):
            value = 100 * figure["value"]
            axes.barh(place, value, 0.7, color=figures.PALETTE[0])
            if figure["low"] is not None:
                low, high = 100 * figure["low"], 100 * figure["high"]
                reach = [[max(value - low, 0)], [max(high - value, 0)]]
                axes.errorbar(value, place, xerr=reach, color="#1b1f24", capsize=2, linewidth=1.1)
        names = [f"{name or 'all'}  (n = {figure['n']:,})" for name, figure in groups.items()]
        axes.set_yticks(range(len(groups)), names)
        axes.invert_yaxis()
        axes.set_xlim(min(0, *(100 * figure["value"] for figure in groups.values())), 100)
        axes.set_xlabel("mean credit, %")
        axes.grid(axis="y", visible=False)

    return figures.svg("", draw, width=6.0, height=0.8 + 0.27 * len(groups))


def _percent(figure: Mapping[str, Any]) -> str:
    return "—" if figure["value"] is None else f"{100 * figure['value']:.1f}"


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return "—"
    return f"{100 * figure['low']:.1f} to {100 * figure['high']:.1f}"
