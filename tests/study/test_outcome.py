"""Figures over seeds by hand, and what a run leaves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxrm.statistics import paired
from jaxrm.study import outcome


def test_a_mean_and_its_error():
    found = outcome.estimate([0.5, 0.6, 0.7])
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(0.6)
    assert found["standard_error"] == pytest.approx(0.1 / np.sqrt(3))
    assert outcome.spread(found) == "60.0 ± 5.8"
    assert outcome.spread(outcome.estimate([0.25])) == "25.0"


def test_a_gain_has_an_interval_from_six_seeds_on():
    assert outcome.interval(paired([0.01] * 6)) == "+1.0 [+1.0, +1.0]"
    assert outcome.interval(paired([0.01, 0.03])) == "+2.0"
    as_json = {"mean": -0.02, "low": None, "high": None}
    assert outcome.interval(as_json) == "-2.0"
    assert outcome.interval(None) == ""
    assert outcome.interval(paired([0.25] * 6), scale=1, digits=2) == "+0.25 [+0.25, +0.25]"


def test_a_run_leaves_its_numbers_and_a_page(tmp_path, capsys):
    results = {"a": outcome.estimate(np.array([0.5]))}
    outcome.leave(tmp_path, "Does it?\n\nBecause x < y.", results, "id  50.0")
    assert json.loads((tmp_path / "results.json").read_text())["a"]["standard_error"] is None
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Does it?</h1>" in page
    assert "Because x &lt; y." in page
    assert "<pre>id  50.0</pre>" in page
    assert capsys.readouterr().out.startswith("id  50.0\n")
