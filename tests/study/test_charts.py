"""Methods can be told apart, and a chart is whole on any background."""

from __future__ import annotations

import re

import numpy as np

from jaxrm.study import charts
from jaxrm.study.records import METHODS


def test_every_method_has_a_look_of_its_own():
    looks = {(charts.COLORS[name], charts.MARKERS[name]) for name in METHODS}
    assert len(looks) == len(METHODS)


def test_a_chart_is_drawn_on_white_and_the_same_each_time():
    points = {"bt": np.array([[0.6], [0.1], [0.8]]), "grm_sft": np.zeros((3, 0))}
    chart = charts.mechanism(points)
    # The first thing drawn is the background: GitHub's dark theme must not shine through.
    assert re.search(r"<path [^>]*style=\"(.*?)\"", chart.svg)[1] == "fill: #ffffff"
    assert charts.mechanism(points) == chart
    moved = {"bt": np.array([[0.6], [0.2], [0.8]]), "grm_sft": np.zeros((3, 0))}
    assert charts.mechanism(moved).svg != chart.svg
