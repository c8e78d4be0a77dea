"""A study's figures, as SVG. A method has one colour and one marker in all of them."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxrm.report.figures import NEUTRAL, PALETTE, STYLE
from jaxrm.statistics import Paired
from jaxrm.study.records import ENDPOINT, METHODS, VARIANTS, Arm, standard_error

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

Curve = Sequence[Mapping[str, float]]
"""One run's [{step, <split>/macro, <split>/loss}]."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """An SVG figure, its file's name without suffix, and what it shows in words."""

    name: str
    alt: str
    svg: str


def forest(gains: Mapping[str, Mapping[str, Paired | None]], name: str = "forest") -> Chart:
    """Gains over a baseline with their intervals, one panel per split.

    Args:
      gains: in accuracy, by split and method, the same methods for all splits; None leaves a
        method's line empty.
      name: of the file.
    """
    lines = max(map(len, gains.values()))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(gains), sharex=True, sharey=True)
        for axes, (split, found) in zip(panels, gains.items(), strict=True):
            axes.axvline(0, color=NEUTRAL, linewidth=1)
            for y, (method, value) in enumerate(found.items()):
                if value is None:
                    continue
                look = {"color": COLORS.get(method, PALETTE[0]), "marker": MARKERS.get(method, "o")}
                # Too few seeds for a 95 % interval make it infinite: a hollow point has no bar.
                bounded = np.isfinite([value.low, value.high]).all()
                axes.plot(100 * value.mean, y, markerfacecolor=None if bounded else "white", **look)
                if bounded:
                    axes.hlines(y, 100 * value.low, 100 * value.high, color=look["color"])
            axes.set_yticks(range(len(found)), list(found))
            axes.set_ylim(len(found) - 0.5, -0.5)
            axes.set_xlabel("gain, points")
            axes.set_title(split)

    alt = "Gain of each method over the baseline, one panel per split"
    return _chart(name, alt, draw, 10, max(3.2, 0.9 + 0.22 * lines))


def mechanism(points: Mapping[str, np.ndarray]) -> Chart:
    """Accuracy against language ability and against drift, run by run, all on the endpoint.

    Args:
      points: language, drift and accuracy [3, runs] by method, as a record has them.
    """

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

    alt = "Accuracy out of distribution against language ability and drift, one point per run"
    return _chart("mechanism", alt, draw, 9, 4.6)


def sizes(
    pairs: Sequence[int], accuracy: Mapping[str, Mapping[tuple[str, float], np.ndarray]]
) -> Chart:
    """Accuracy against the number of training pairs, one panel per split.

    Args:
      pairs: in ascending order.
      accuracy: shares [pairs, seeds] by split, and by method and label noise.
    """

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(accuracy), sharey=True)
        panels[0].set_ylabel("accuracy, %")
        for axes, (split, lines) in zip(panels, accuracy.items(), strict=True):
            noises = list(dict.fromkeys(noise for _, noise in lines))
            for (method, noise), points in lines.items():
                dashes = DASHES[noises.index(noise)]
                look = {"color": COLORS[method], "marker": MARKERS[method], "linestyle": dashes}
                _line(axes, pairs, points, label=f"{method}, {100 * noise:g} % noise", **look)
            axes.set_xscale("log")
            axes.set_xticks(pairs, [f"{n:,}" for n in pairs])
            axes.minorticks_off()
            axes.set_xlabel("training pairs")
            axes.set_title(split)
        _legend(figure, columns=2)

    alt = "Accuracy of BT and GRM against training pairs, out of distribution and in it"
    return _chart("sizes", alt, draw, 8, 4)


def curves(
    logged: Mapping[Arm, Sequence[Curve]], names: Mapping[Arm, str], splits: Sequence[str]
) -> Chart:
    """Accuracy and loss in the course of training, one column per split.

    Args:
      logged: the curves of an arm's runs, all of the same number of points.
      names: of the arms, in the legend; arms of one method differ in their dashes, by epochs.
    """
    rows = {"macro": ("accuracy, %", 100), "loss": ("loss, nats", 1)}
    epochs = sorted({arm.condition.epochs for arm in logged})

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(rows), len(splits), squeeze=False, sharey="row")
        cells = itertools.product(rows.items(), splits)
        for axes, ((key, (unit, scale)), split) in zip(grid.flat, cells, strict=True):
            for arm, found in logged.items():
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

    alt = "Accuracy and loss of BT and GRM on held-out splits against training steps"
    return _chart("curves", alt, draw, 9, 5.2)


def strengths(
    alphas: Sequence[float], bt: Mapping[str, np.ndarray], grm_sft: Mapping[str, np.ndarray]
) -> Chart:
    """Accuracy of GRM against alpha with BT's as a level line, one panel per split.

    Args:
      alphas: in ascending order.
      bt: shares [seeds] by split.
      grm_sft: shares [alphas, seeds] by split.
    """
    places = range(len(alphas))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(grm_sft))
        panels[0].set_ylabel("accuracy, %")
        for axes, split in zip(panels, grm_sft, strict=True):
            level = [bt[split]] * len(alphas)
            _line(axes, places, level, label="bt", color=COLORS["bt"], linestyle="--")
            look = {"color": COLORS["grm_sft"], "marker": MARKERS["grm_sft"]}
            _line(axes, places, grm_sft[split], label="grm_sft", **look)
            axes.set_xticks(places, [f"{alpha:g}" for alpha in alphas])
            axes.set_xlabel("alpha")
            axes.set_title(split)
        _legend(figure, columns=2)

    alt = "Accuracy of GRM against alpha, one panel per split, with BT as a line"
    return _chart("strengths", alt, draw, 10, 3.4)


def _chart(
    name: str, alt: str, draw: Callable[[Figure], None], width: float, height: float
) -> Chart:
    """A figure of so many inches on white; its letters are shapes, so no viewer lacks the font."""
    look = {"svg.hashsalt": name, "svg.fonttype": "path", "legend.frameon": False}
    with matplotlib.rc_context(STYLE | look):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return Chart(name, alt, text.getvalue())


def _line(
    axes: Axes,
    x: Sequence[float],
    points: np.ndarray | Sequence[np.ndarray],
    scale: int = 100,
    **look: Any,
) -> None:
    """A line of means over seeds, and one standard error around it.

    Args:
      x: [points].
      points: scores [seeds] at each point; one without all its seeds leaves a gap.
    """
    scores = scale * np.array(points)
    mean, error = scores.mean(-1), standard_error(scores)
    axes.plot(x, mean, **{"markersize": 5} | look)
    axes.fill_between(x, mean - error, mean + error, color=look["color"], alpha=0.15, linewidth=0)


def _legend(figure: Figure, columns: int) -> None:
    """One legend of all panels, beneath them."""
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=columns)
