"""A figure of its own is whole on any background, and a missing interval shows."""

from __future__ import annotations

import re

from matplotlib.figure import Figure

from jaxrm.report import figures
from jaxrm.statistics import Paired


def test_a_forest_is_drawn_on_white_and_the_same_each_time():
    gains = {"id": {"a": Paired(0.1, 0.05, 0.15, 0.03, 6), "b": None}}
    drawn = figures.forest(gains)
    # The first thing drawn is the background: GitHub's dark theme must not shine through.
    assert re.search(r"<path [^>]*style=\"(.*?)\"", drawn)[1] == "fill: #ffffff"
    assert figures.forest(gains) == drawn
    assert figures.forest({"id": gains["id"] | {"b": gains["id"]["a"]}}) != drawn


def test_a_point_without_an_interval_is_hollow():
    axes = Figure().subplots()
    for shown in ((0.5, 0.4, 0.6), (0.5, None, None), (0.5, -float("inf"), float("inf"))):
        figures.point(axes, 0, shown, "#000000")
    assert [line.get_markerfacecolor() for line in axes.lines] == ["#000000", "white", "white"]
    assert len(axes.collections) == 1


def test_a_bar_has_its_interval_at_its_end():
    axes = Figure().subplots()
    figures.bar(axes, 0, (0.5, 0.4, 0.7), "#000000", scale=100)
    assert axes.patches[0].get_width() == 50
    (line,) = axes.collections[0].get_segments()
    assert line[:, 0].tolist() == [40, 70]


def test_a_training_curve_of_one_step_is_a_point():
    """A line through one point would be nothing at all."""
    steps = [{"step": step, "loss": 1.0 / step} for step in (4, 8)]
    for logged, points in ((steps, 0), (steps[:1], 1)):
        [drawn] = figures.training({"m": logged}, {"m": "#123456"})
        assert len(re.findall("<use [^>]*fill: #123456", drawn)) == points
