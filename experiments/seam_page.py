"""The page and the terminal's table of `experiments.seam`, from its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from jaxrm.report import figures, tables, webpage

INTERVAL = "below a figure is its 95 % interval over prompts."

LEGEND = (
    "<i>planted</i> is gold with noise and planted mistakes, <i>trained</i> is fitted to labels "
    "turned round in some families. Below a figure is its 95 % interval, over prompts "
    "(<i>planted</i>) or families (<i>trained</i>)."
)


def page(results: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The whole page out of results.json."""
    colors = figures.colors(columns_of(results["auc"])[:-1])
    seeds = ", ".join(map(str, results["seeds"]))
    spoilt = " and ".join(f"{n} for <i>{name}</i>" for name, n in results["spoilt"].items())
    charts = [chart(name, of, colors) for name, of in results["auc"].items()]
    decoys = {"planted": results["against_decoys"]}
    likely, rare = (plant["value"] for plant in results["plants"].values())
    sections = [
        webpage.section(
            "Are the spoilt instructions found?",
            "The AUC: how often a spoilt instruction is put before another one of its world, .5 by "
            f"chance. Of {results['instructions']:,} instructions spoilt are {spoilt}. " + LEGEND,
            found_table(results["auc"]),
            webpage.legend(colors),
            webpage.grid(charts),
        ),
        webpage.section(
            "Planted mistakes against decoys",
            "The same, of instructions whose planted mistake the policy often writes against as "
            "many with one that it rarely writes (its mean log-prob of a token is "
            f"{likely:.2f} for the one kind and {rare:.2f} for the other). Both are planted in the "
            "same way, so a weight by likelihood is what may tell them apart, and equation 2 wants "
            "the likely mistake first.",
            found_table(decoys),
            webpage.grid([chart("planted against decoys", decoys["planted"], colors)]),
        ),
        webpage.section(
            "What a filter leaves",
            f"Best-of-{config['candidates']}: by how much the gold of the candidate with the "
            "highest reward falls short of the best candidate's, once "
            f"{100 * config['fraction']:g} % of each world's instructions are dropped, the most "
            "suspect first. Lower is better; " + INTERVAL,
            regret_table(results["regret"]),
        ),
        webpage.section(
            "The worse answers",
            "Of each construction: how many an instruction has, the policy's mean log-prob of a "
            "token, how many are in truth worse than the gold response, and on how many "
            "instructions the reward model prefers one of them to it.",
            answers_table(results["answers"]),
        ),
        webpage.section(
            "Reward model and policy",
            "The share of pairs of candidates that the reward and the log-prob per token order in "
            "opposite ways; " + INTERVAL,
            mismatch_table(results["mismatch"]),
        ),
        webpage.configuration(config),
    ]
    subtitle = f"A reward model spoilt in a known way, the toy world, seeds {seeds}."
    return webpage.document("Does SEAM find where a reward model was spoilt?", subtitle, sections)


def found_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The AUCs by reward and construction."""
    columns = columns_of(found)
    rows = [
        [f"{name}, {kind}", *(cell(each[column]) for column in columns)]
        for name, of in found.items()
        for kind, each in of.items()
    ]
    return webpage.table(["reward, worse answers", *columns], rows)


def columns_of(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What instructions are put in order by, and last what the policy adds."""
    return list(next(iter(next(iter(found.values())).values())))


def regret_table(regret: Mapping[str, Mapping[str, Any]]) -> str:
    """The regret by reward, construction and filter."""
    of_one = next(iter(next(iter(regret.values())).values()))
    head = [f"{column}<small>n = {of_one[column]['n']}</small>" for column in of_one]
    rows = [
        [f"{name}, {kind}", *(cell(each[column]) for column in of_one)]
        for name, of in regret.items()
        for kind, each in of.items()
    ]
    return webpage.table(["reward, worse answers", *head], rows)


def answers_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What each construction's answers are like."""
    shares = ("worse", "wrong_on_spoilt", "wrong_on_decoys", "wrong_on_others")
    rows = [
        [
            f"{name}, {kind}",
            f"{each['each']:.1f}",
            f"{each['logp']:.2f}",
            *("" if each[share] is None else f"{100 * each[share]:.1f}" for share in shares),
        ]
        for name, of in found.items()
        for kind, each in of.items()
    ]
    head = ["reward, worse answers", "each", "log-prob", "worse, %"]
    head += [f"wrong, %<small>on {part}</small>" for part in ("spoilt", "decoys", "others")]
    return webpage.table(head, rows)


def mismatch_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The mismatch rate by reward, on all instructions and on parts of them."""
    parts = next(iter(found.values()))
    rows = [[name, *(cell(each[part]) for part in parts)] for name, each in found.items()]
    return webpage.table(["reward", *parts], rows)


def cell(estimate: Mapping[str, Any]) -> str:
    """A figure with its interval, where it has one."""
    if estimate["value"] is None:
        return ""
    bounds = tables.between(estimate["low"], estimate["high"], ".2f", 1)
    return f"{tables.number(estimate['value'], '.2f', 1)}<br><small>{bounds}</small>"


def chart(title: str, by_kind: Mapping[str, Any], colors: Mapping[str, str]) -> str:
    """The AUCs of one reward, a point and its interval for each order and construction."""

    def draw(axes: Axes) -> None:
        for i, order in enumerate(colors):
            for place, kind in enumerate(by_kind):
                auc = by_kind[kind][order]
                y = place + (i - (len(colors) - 1) / 2) * 0.17
                figures.point(axes, y, (auc["value"], auc["low"], auc["high"]), colors[order])
        axes.axvline(0.5, color=figures.NEUTRAL, linewidth=1, linestyle="--")
        axes.set_xlim(-0.02, 1.02)
        figures.listed(axes, list(by_kind), "AUC")

    return figures.svg(title, draw)


def text_table(results: Mapping[str, Any]) -> str:
    """The AUCs for a terminal."""
    orders = columns_of(results["auc"])
    head = ["AUC", *orders]
    rows = [
        [f"{name}, {kind}", *(f"{each[order]['value']:z.2f}" for order in orders)]
        for name, of in (*results["auc"].items(), ("decoys", results["against_decoys"]))
        for kind, each in of.items()
    ]
    return tables.aligned(head, rows)
