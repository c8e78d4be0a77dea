"""The figures of pages, as SVG: one small chart each inside a page, so that it can reflow them.

A model has one colour in all of them, from Okabe and Ito's palette, which the colour-blind can tell
apart. An interval is a line through its figure, and a figure without one is a bare bar or a hollow
point.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxrm.statistics import Paired

NEUTRAL = "#57606a"
"""For a model that is not one of those compared."""

DARK = "#1b1f24"

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

TRAINING = {
    "loss": ("Objective", "nats"),
    "accuracy": ("Accuracy", "% of pairs"),
    "margin": ("Margin of chosen over rejected", "reward"),
    "mean_reward": ("Mean reward", "reward"),
    "grad_norm": ("Gradient norm before clipping", "norm"),
}
"""Metrics that are drawn where a model logs them: title, and unit of the vertical axis."""

HELD_OUT = {"accuracy": ("accuracy", "% of comparisons"), "loss": ("loss", "nats")}

Curves = Mapping[str, Sequence[Mapping[str, float]]]
"""The lines of metrics.jsonl by model."""

Shown = tuple[float, float | None, float | None]
"""A figure and its interval; ends that are None or not finite are none."""

STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#57606a",
    "axes.labelcolor": "#57606a",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eaeef2",
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "svg.fonttype": "none",
    "text.parse_math": False,
}


def colors(models: Iterable[str]) -> dict[str, str]:
    """A colour for each model, by its place."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(models)}


def bars(models: Mapping[str, Any], splits: Sequence[str], colors: Mapping[str, str]) -> str:
    """Accuracy of every model on every split, with 95 % intervals; splits go down the page."""

    def draw(axes: Axes) -> None:
        thick = 0.8 / max(len(models), 1)
        for i, (name, by_split) in enumerate(models.items()):
            for place, split in enumerate(splits):
                figure = by_split.get(split, {})
                if figure.get("accuracy") is None:
                    continue
                y = place + (i - (len(models) - 1) / 2) * thick
                value, reach = figure["accuracy"], 1.96 * figure["standard_error"]
                shown = value, value - reach, value + reach
                bar(axes, y, shown, colors[name], 0.9 * thick, scale=100)
        axes.axvline(50, color=NEUTRAL, linewidth=1, linestyle="--")
        axes.set_xlim(0, 100)
        listed(axes, splits, "accuracy, % of comparisons")

    return svg("", draw, width=5.0, height=0.8 + 0.26 * len(splits) * (len(models) + 0.5))


def training(curves: Curves, colors: Mapping[str, str]) -> list[str]:
    """One chart for each metric of `TRAINING`, and for each term where a loss has several."""
    lines = [line for logged in curves.values() for line in logged]
    terms = sorted({key for line in lines for key in line if key.startswith("loss/")})
    panels = dict(TRAINING)
    if len(terms) > 1:
        panels |= {term: (f"Term: {term[5:]}, as weighted", "nats") for term in terms}

    def panel(key: str, title: str, unit: str) -> str:
        def draw(axes: Axes) -> None:
            for name, logged in curves.items():
                steps, values = _series(logged, key)
                if key == "accuracy":
                    values = 100 * values
                if len(steps):
                    axes.plot(steps, values, color=colors[name], alpha=0.25, linewidth=1)
                    alone = "o" if len(steps) == 1 else None  # a line needs two
                    axes.plot(
                        steps, _smooth(values), color=colors[name], linewidth=1.8, marker=alone
                    )
            _label_steps(axes, unit)

        return svg(title, draw)

    present = (key for key in panels if any(key in line for line in lines))
    return [panel(key, *panels[key]) for key in present]


def held_out(curves: Curves, colors: Mapping[str, str]) -> list[str]:
    """Accuracy, then loss, of every split that was measured during training."""
    logged = [key for lines in curves.values() for line in lines for key in line]
    splits = dict.fromkeys(key.split("/")[1] for key in logged if key.startswith("eval/"))

    def panel(split: str, figure: str) -> str:
        title, unit = HELD_OUT[figure]

        def draw(axes: Axes) -> None:
            for name, lines in curves.items():
                steps, values = _series(lines, f"eval/{split}/{figure}")
                if len(steps):
                    values = 100 * values if figure == "accuracy" else values
                    axes.plot(steps, values, color=colors[name], marker="o", markersize=3.5)
            _label_steps(axes, unit)

        return svg(f"{split}: {title}", draw)

    return [
        panel(split, figure)
        for figure in HELD_OUT
        for split in splits
        if f"eval/{split}/{figure}" in logged
    ]


def rewards(
    models: Mapping[str, Any], splits: Sequence[str], colors: Mapping[str, str]
) -> list[str]:
    """Histograms of the best and the other responses' rewards, model by model."""

    def panel(split: str, name: str, histogram: Mapping[str, Any]) -> str:
        def draw(axes: Axes) -> None:
            edges = histogram["edges"]
            best, others = (
                100 * np.array(histogram[part]) / max(sum(histogram[part]), 1)
                for part in ("best", "others")
            )
            axes.stairs(best, edges, fill=True, color=colors[name], alpha=0.55, label="best")
            axes.stairs(others, edges, color=DARK, linewidth=1.4, label="others")
            axes.set_xlabel("reward")
            axes.set_ylabel("% of responses")
            axes.legend(frameon=False, fontsize=9)

        return svg(f"{name}: {split}", draw)

    return [
        panel(split, name, by_split[split]["rewards"])
        for name, by_split in models.items()
        for split in splits
        if "rewards" in by_split.get(split, {})
    ]


def forest(gains: Mapping[str, Mapping[str, Paired | None]]) -> str:
    """Gains over a baseline with their intervals as a file of its own, one panel per split.

    Args:
      gains: in accuracy, by split and name, the same names for all splits; None leaves a name's
        line empty.
    """
    names = list(next(iter(gains.values())))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(gains), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (split, by_name) in zip(panels, gains.items(), strict=True):
            axes.axvline(0, color=NEUTRAL, linewidth=1)
            listed(axes, names, "gain, points")
            for place, gain in enumerate(by_name.values()):
                if gain is not None:
                    shown = gain.mean, gain.low, gain.high
                    point(axes, place, shown, PALETTE[0], scale=100)
            axes.set_title(split)

    # Its letters are shapes, so that no viewer lacks the font; its ground is white on any page.
    look = {"svg.fonttype": "path", "svg.hashsalt": " ".join(names)}
    return _drawn(draw, (10, max(3.2, 0.9 + 0.22 * len(names))), look)


# What the charts of all pages are made of


def svg(title: str, draw: Callable[[Axes], None], width: float = 4.2, height: float = 2.9) -> str:
    """One chart as an <svg> element; the same figures give the same text."""

    def one(figure: Figure) -> None:
        axes = figure.subplots()
        draw(axes)
        axes.set_title(title)

    drawn = _drawn(one, (width, height), {"svg.hashsalt": title}, transparent=True)
    return drawn[drawn.index("<svg") :]


def listed(axes: Axes, names: Sequence[str], unit: str) -> None:
    """Names down the page, the first one at the top, and the unit of what lies beside them."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(unit)


def bar(
    axes: Axes, place: float, shown: Shown, color: str, thick: float = 0.7, scale: float = 1.0
) -> None:
    """A bar across the page to a figure, with its interval."""
    value, ends = _ends(shown, scale)
    axes.barh(place, value, thick, color=color)
    if ends is not None:
        axes.errorbar(value, place, xerr=ends, color=DARK, capsize=2.5, linewidth=1.2)


def point(axes: Axes, place: float, shown: Shown, color: str, scale: float = 1.0) -> None:
    """A figure across the page with its interval."""
    value, ends = _ends(shown, scale)
    inside = "white" if ends is None else color
    axes.errorbar(
        value, place, xerr=ends, color=color, marker="o", markersize=5, markerfacecolor=inside,
        linewidth=1.5,
    )  # fmt: skip


def points(
    axes: Axes, places: np.ndarray, shown: Sequence[Shown], color: str, scale: float = 1.0
) -> None:
    """Figures above their places with their intervals, joined by a line."""
    values = [_ends(one, scale) for one in shown]
    none = np.zeros((2, 1))
    ends = np.hstack([none if end is None else end for _, end in values] or [none[:, :0]])
    axes.errorbar(
        places, [value for value, _ in values], yerr=ends, color=color, marker="o", markersize=4,
        capsize=2.5, linewidth=1.5, elinewidth=1.1,
    )  # fmt: skip


def _ends(shown: Shown, scale: float) -> tuple[float, np.ndarray | None]:
    """A figure, and float [2, 1] how far its interval goes down and up, where it has one."""
    value, low, high = scale * np.array(shown, np.float64)
    if not np.isfinite([low, high]).all():
        return value, None
    return value, np.maximum([[value - low], [high - value]], 0.0)


def _drawn(
    draw: Callable[[Figure], None],
    size: tuple[float, float],
    look: Mapping[str, Any],
    transparent: bool = False,
) -> str:
    """What was drawn on so many inches."""
    with matplotlib.rc_context(STYLE | look):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=transparent, metadata={"Date": None})
    return text.getvalue()


def _series(lines: Sequence[Mapping[str, float]], key: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    steps, values = np.array(points, np.float64).reshape(-1, 2).T
    return steps, values


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over a tenth of the curve, of fewer points towards its ends."""
    reach = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - reach, 0)
    last = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _label_steps(axes: Axes, unit: str) -> None:
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
