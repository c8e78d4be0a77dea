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
from jaxrm.report.figures import DARK, NEUTRAL, PALETTE, Shown, bar, listed, point, points, svg

MAIN, OTHER = PALETTE[:2]


def length(title: str, lengths: Length, accuracy: float) -> str:
    """Accuracy by the length ratio of better to worse; dashed, `accuracy` over all."""
    bins = [b for b in lengths.bins if b.accuracy.n]

    def draw(axes: Axes) -> None:
        places = np.array([b.doublings for b in bins])
        counts = np.array([b.accuracy.n for b in bins])
        points(axes, places, [_shown(b.accuracy) for b in bins], MAIN, scale=100)
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


def prompts(sources: Mapping[str, Blind]) -> str:
    """Accuracy with the own prompt and with another one, source by source."""

    def draw(axes: Axes) -> None:
        for place, blind in enumerate(sources.values()):
            bar(axes, place - 0.2, _shown(blind.own), MAIN, 0.36, scale=100)
            bar(axes, place + 0.2, _shown(blind.swapped), OTHER, 0.36, scale=100)
        axes.axvline(50, color=NEUTRAL, linewidth=1, linestyle="--")
        axes.set_xlim(0, 100)
        listed(axes, list(sources), "right, % of comparisons")

    return svg("", draw, width=5.2, height=0.9 + 0.6 * len(sources))


def cues(title: str, by_cue: Mapping[str, Sensitivity]) -> str:
    """How far each cue moves the reward."""

    def draw(axes: Axes) -> None:
        for place, cue in enumerate(by_cue.values()):
            change = cue.change
            color = OTHER if change.low > 0 or change.high < 0 else NEUTRAL
            point(axes, place, _shown(change), color)
        axes.axvline(0, color=DARK, linewidth=1)
        listed(axes, list(by_cue), "change of the reward, deviations")

    return svg(title, draw, height=0.9 + 0.3 * len(by_cue))


def reliability(title: str, calibration: Calibration) -> str:
    """How often the picked winner is the better one, by how sure the model is of it."""

    def draw(axes: Axes) -> None:
        axes.plot([50, 100], [50, 100], color=NEUTRAL, linewidth=1, linestyle="--")
        confidence = np.array([100 * b.confidence for b in calibration.bins])
        points(axes, confidence, [_shown(b.right) for b in calibration.bins], MAIN, scale=100)
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
        listed(axes, labels, "reward")

    return svg(title, draw, height=0.9 + 0.28 * len(subsets))


def _shown(figure: Estimate) -> Shown:
    return figure.value, figure.low, figure.high


def _ratio(doublings: int) -> str:
    if doublings == 0:
        return "same"
    return f"{2**doublings}x" if doublings > 0 else f"1/{2**-doublings}"
