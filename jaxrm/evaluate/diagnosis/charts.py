"""The charts of a diagnosis, one for each source and subject."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from jaxrm.evaluate.diagnosis.blind import Blind
from jaxrm.evaluate.diagnosis.calibration import Calibration
from jaxrm.evaluate.diagnosis.cues import Sensitivity
from jaxrm.evaluate.diagnosis.length import Length
from jaxrm.evaluate.diagnosis.spread import Distribution
from jaxrm.evaluate.estimates import Estimate
from jaxrm.report.figures import NEUTRAL, PALETTE, svg

MAIN, OTHER = PALETTE[:2]
DARK = "#1b1f24"


def length(title: str, found: Length, accuracy: float) -> str:
    """Accuracy by the length ratio of better to worse; dashed, `accuracy` over all."""
    bins = [b for b in found.bins if b.accuracy.n]

    def draw(axes: Axes) -> None:
        places = np.array([b.doublings for b in bins])
        counts = np.array([b.accuracy.n for b in bins])
        _points(axes, places, [b.accuracy for b in bins], scale=100)
        axes.scatter(
            places,
            [100 * b.accuracy.value for b in bins],
            15 + 120 * counts / counts.sum(),
            color=MAIN,
        )
        axes.axhline(100 * accuracy, color=NEUTRAL, linewidth=1, linestyle="--")
        ticks = range(
            math.floor(min(-1, places.min(initial=0))), math.ceil(max(1, places.max(initial=0))) + 1
        )
        axes.set_xticks(ticks, [_ratio(tick) for tick in ticks])
        axes.set_ylim(0, 102)
        axes.set_xlabel("better response's length over the worse one's")
        axes.set_ylabel("right, % of pairs")

    return svg(title, draw)


def prompts(found: Mapping[str, Blind]) -> str:
    """Accuracy with the own prompt and with another one, source by source."""

    def draw(axes: Axes) -> None:
        for place, of_source in enumerate(found.values()):
            both = ((of_source.own, MAIN, -0.2), (of_source.swapped, OTHER, 0.2))
            for figure, color, aside in both:
                axes.barh(place + aside, 100 * figure.value, 0.36, color=color)
                axes.errorbar(
                    100 * figure.value, place + aside, xerr=_reach(figure, 100), color=DARK,
                    capsize=2.5, linewidth=1.2,
                )  # fmt: skip
        axes.axvline(50, color=NEUTRAL, linewidth=1, linestyle="--")
        axes.set_yticks(range(len(found)), list(found))
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("right, % of comparisons")
        axes.grid(axis="y", visible=False)

    return svg("", draw, width=5.2, height=0.9 + 0.6 * len(found))


def cues(title: str, found: Mapping[str, Sensitivity]) -> str:
    """How far each cue moves the reward."""

    def draw(axes: Axes) -> None:
        for place, of_cue in enumerate(found.values()):
            figure = of_cue.change
            if np.isnan(figure.value):
                continue
            color = OTHER if figure.low > 0 or figure.high < 0 else NEUTRAL
            axes.errorbar(
                figure.value, place, xerr=_reach(figure), color=color, marker="o", markersize=6,
                capsize=3, linewidth=1.6,
            )  # fmt: skip
        axes.axvline(0, color=DARK, linewidth=1)
        axes.set_yticks(range(len(found)), list(found))
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlabel("change of the reward, deviations")
        axes.grid(axis="y", visible=False)

    return svg(title, draw, height=0.9 + 0.3 * len(found))


def reliability(title: str, found: Calibration) -> str:
    """How often the picked winner is the better one, by how sure the model is of it."""

    def draw(axes: Axes) -> None:
        axes.plot([50, 100], [50, 100], color=NEUTRAL, linewidth=1, linestyle="--")
        confidence = np.array([100 * b.confidence for b in found.bins])
        _points(axes, confidence, [b.right for b in found.bins], scale=100)
        axes.set_xlim(49, 101)
        axes.set_ylim(0, 102)
        axes.set_xlabel("confidence in the winner, %")
        axes.set_ylabel("right, % of pairs")

    return svg(title, draw)


def rewards(title: str, subsets: Mapping[str, Distribution]) -> str:
    """Where the rewards of each subset lie: percentiles 5 to 95, 25 to 75, and the median."""
    subsets = {name: of_subset for name, of_subset in subsets.items() if of_subset.n}

    def draw(axes: Axes) -> None:
        for place, of_subset in enumerate(subsets.values()):
            low, quarter, middle, three_quarters, high = of_subset.quantiles
            axes.plot([low, high], [place, place], color=MAIN, linewidth=1.2)
            axes.plot(
                [quarter, three_quarters], [place, place], color=MAIN, linewidth=7,
                solid_capstyle="butt",
            )  # fmt: skip
            axes.plot(middle, place, color="white", marker="o", markersize=4)
        labels = [f"{name} (n={of_subset.n})" for name, of_subset in subsets.items()]
        axes.set_yticks(range(len(subsets)), labels)
        axes.set_ylim(max(len(subsets), 1) - 0.5, -0.5)
        axes.set_xlabel("reward")
        axes.grid(axis="y", visible=False)

    return svg(title, draw, height=0.9 + 0.28 * len(subsets))


def _points(axes: Axes, places: np.ndarray, figures: list[Estimate], scale: float) -> None:
    """Figures above their places, joined by a line, with their intervals."""
    values = np.array([scale * figure.value for figure in figures])
    reach = np.hstack([_reach(figure, scale) for figure in figures] or [np.zeros((2, 0))])
    axes.errorbar(
        places, values, yerr=reach, color=MAIN, marker="o", markersize=4, capsize=2.5,
        linewidth=1.5, elinewidth=1.1,
    )  # fmt: skip


def _reach(figure: Estimate, scale: float = 1.0) -> np.ndarray:
    """Float [2, 1]: how far an interval goes down and up from its figure; 0 where there is none."""
    reach = scale * np.array([[figure.value - figure.low], [figure.high - figure.value]])
    return np.maximum(np.nan_to_num(reach, nan=0.0, posinf=0.0), 0.0)


def _ratio(doublings: int) -> str:
    if doublings == 0:
        return "same"
    return f"{2**doublings}x" if doublings > 0 else f"1/{2**-doublings}"
