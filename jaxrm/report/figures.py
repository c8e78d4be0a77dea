"""The figures of a report, as inline SVG: one small chart each, so that a page can reflow them.

A model has one colour in all of them, from Okabe and Ito's palette, which the colour-blind can tell
apart.
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

NEUTRAL = "#57606a"
"""For a model that is not one of those compared."""

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
        for i, (name, found) in enumerate(models.items()):
            for place, split in enumerate(splits):
                figure = found.get(split, {})
                if figure.get("accuracy") is None:
                    continue
                y = place + (i - (len(models) - 1) / 2) * thick
                length, error = 100 * figure["accuracy"], 196 * figure["standard_error"]
                axes.barh(y, length, 0.9 * thick, color=colors[name])
                axes.errorbar(length, y, xerr=error, color="#1b1f24", capsize=2.5, linewidth=1.2)
        axes.axvline(50, color="#57606a", linewidth=1, linestyle="--")
        axes.set_yticks(range(len(splits)), splits)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, % of comparisons")
        axes.grid(axis="y", visible=False)

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
                    axes.plot(steps, _smooth(values), color=colors[name], linewidth=1.8)
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
            axes.stairs(others, edges, color="#1b1f24", linewidth=1.4, label="others")
            axes.set_xlabel("reward")
            axes.set_ylabel("% of responses")
            axes.legend(frameon=False, fontsize=9)

        return svg(f"{name}: {split}", draw)

    return [
        panel(split, name, found[split]["rewards"])
        for name, found in models.items()
        for split in splits
        if "rewards" in found.get(split, {})
    ]


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


def svg(title: str, draw: Callable[[Axes], None], width: float = 4.2, height: float = 2.9) -> str:
    """One chart as an <svg> element; the same figures give the same text."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": title}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set_title(title)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]
