"""Tables and cells by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrm.errors import DataError
from jaxrm.report import tables
from jaxrm.statistics import estimate, paired


def test_a_table_in_markdown_and_for_a_terminal():
    head, rows = ["method", "n", "p"], [["bt", 6, "0.5"], ["l2", 15, "1"]]
    assert tables.markdown(head, rows, left=1).splitlines() == [
        "| method | n | p |",
        "| --- | ---: | ---: |",
        "| bt | 6 | 0.5 |",
        "| l2 | 15 | 1 |",
    ]
    assert tables.aligned(head, rows).splitlines() == [
        "method   n    p",
        "---------------",
        "bt       6  0.5",
        "l2      15    1",
    ]


def test_a_number_is_in_percent_and_zero_has_no_minus():
    assert tables.number(0.1234) == "12.3"
    assert tables.number(-0.0001, "+.2f") == "-0.01"
    assert tables.number(-0.00001, "+.2f") == "+0.00"
    assert tables.number(2.5, ".2f", 1) == "2.50"
    assert tables.number(None) == tables.number(np.nan) == "—"
    assert tables.number(-np.inf) == "-∞"


def test_an_interval_says_what_it_leaves_out():
    assert tables.between(-0.01, 0.02, "+.1f") == "-1.0 to +2.0"
    assert tables.between(1.0, np.inf, ".2f", 1) == "1.00 to ∞"
    for ends in ((None, None), (np.nan, np.nan), (-np.inf, np.inf)):
        assert tables.between(*ends) == "—"


def test_a_mean_and_its_error():
    three = estimate([0.5, 0.6, 0.7])
    assert (three["n"], three["mean"]) == (3, pytest.approx(0.6))
    assert three["standard_error"] == pytest.approx(0.1 / np.sqrt(3))
    assert tables.spread(three) == "60.0 ± 5.8"
    assert tables.spread(estimate([0.25])) == "25.0"
    assert tables.spread({"accuracy": 0.5, "standard_error": 0.1}, 1, 3, "accuracy") == (
        "0.500 ± 0.100"
    )
    assert tables.spread(None) == tables.spread({"mean": None}) == "—"


def test_a_gain_has_an_interval_from_six_seeds_on():
    assert tables.interval(paired([0.01] * 6)) == "+1.0 [+1.0, +1.0]"
    assert tables.interval(paired([0.01, 0.03])) == "+2.0"
    as_json = {"mean": -0.02, "low": None, "high": None}
    assert tables.interval(as_json) == "-2.0"
    assert tables.interval(None) == ""
    assert tables.interval(paired([0.25] * 6), scale=1, digits=2) == "+0.25 [+0.25, +0.25]"


PAGE = """\
# Page

| name | formula | measured |
|---|---|---|
| Hinge `hinge` | max(0, m \\| d) | old |
| Other | x |  |

| name | other |
|---|---|
| Hinge `hinge` | kept |
"""


def test_only_the_named_cell_of_the_column_changes():
    filled = tables.fill(PAGE, "measured", {"hinge": "+1.0"})
    assert filled == PAGE.replace("| old |", "| +1.0 |")
    assert tables.fill(filled, "measured", {"hinge": "+1.0"}) == filled


def test_a_name_without_a_row_is_an_error():
    with pytest.raises(DataError, match="'measured' names focal"):
        tables.fill(PAGE, "measured", {"hinge": "", "focal": ""})


def test_a_table_is_the_same_for_a_file_and_for_a_terminal():
    table = tables.Table(["method", "trial", "n"], [["**bt**", "lr 1", 6]], left=2)
    assert table.markdown().splitlines()[1:] == ["| --- | --- | ---: |", "| **bt** | lr 1 | 6 |"]
    assert table.text().splitlines() == [
        "method  trial  n",
        "----------------",
        "bt      lr 1   6",
    ]
