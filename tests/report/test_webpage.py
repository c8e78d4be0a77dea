"""What a run leaves."""

from __future__ import annotations

import json

import numpy as np

from jaxrm.report import webpage
from jaxrm.statistics import estimate


def test_a_run_leaves_its_numbers_and_a_page(tmp_path, capsys):
    results = {"a": estimate(np.array([0.5]))}
    webpage.leave(tmp_path, "Does it?\n\nBecause x < y.", results, "id  50.0")
    assert json.loads((tmp_path / "results.json").read_text())["a"]["standard_error"] is None
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Does it?</h1>" in page
    assert "Because x &lt; y." in page
    assert "<pre>id  50.0</pre>" in page
    assert capsys.readouterr().out.startswith("id  50.0\n")


def test_sections_stand_in_place_of_the_text(tmp_path):
    webpage.leave(tmp_path, "Title", {}, "text for a terminal", ["<p>a section</p>"])
    page = (tmp_path / "report.html").read_text()
    assert "<p>a section</p>" in page
    assert "text for a terminal" not in page


def test_a_table_says_which_columns_are_words():
    page = webpage.table(["a", "b", "c"], [["1", "2", "3"]], left=2)
    assert "<tr><td>1</td><td class=text>2</td><td>3</td></tr>" in page
