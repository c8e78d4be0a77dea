"""Numbers in tables, by hand."""

from __future__ import annotations

import numpy as np

from jaxrm.report.markdown import table
from jaxrm.study.claims import claims
from jaxrm.study.tables import PERCENT, POINTS, SHARE, cell, comparison, verdict_table
from tests.study.toy_records import SEEDS, STEPS, A, main_part, rows, study


def test_a_cell_is_a_mean_with_its_error_or_missing():
    # Of .80 and .82 the standard error is .01414 / sqrt(2) = .01.
    assert cell(np.array([0.8, 0.82]), PERCENT) == "81.0 ± 1.0"
    assert cell(np.array([0.01, 0.03]), POINTS) == "+2.00 ± 1.00"
    assert cell(np.array([0.125]), SHARE) == "0.125"
    assert cell(np.array([0.8, np.nan]), PERCENT) == "missing"
    assert cell(np.array([]), PERCENT) == "missing"


def test_a_table_is_markdown():
    text = table(["method", "n", "p"], [["bt", 6, "0.5"], ["l2", 5, "1"]], left=1)
    lines = ["| method | n | p |", "| --- | ---: | ---: |", "| bt | 6 | 0.5 |", "| l2 | 5 | 1 |"]
    assert text.splitlines() == lines


def test_a_comparison_is_over_common_seeds():
    given = study(main_part({"grm_sft": STEPS}))
    early = {seed: given.chosen("grm_sft", A)[seed] for seed in SEEDS[:2]}
    cells = {"bt": given.chosen("bt", A), "grm_sft": early, "l2": {}}
    text = comparison(cells, "Accuracy, %.", planned=SEEDS[:2])
    assert text.splitlines()[0] == (
        "Accuracy, %. n = 2 seeds, those that all with runs have. Missing: l2 (all seeds)."
    )
    found = {row[0]: row[1:3] for row in rows(text)}
    assert found["bt"] == ["80.0 ± 0.0", "70.0 ± 0.0"]
    assert found["grm_sft"] == ["81.5 ± 0.5", "70.0 ± 0.0"]
    assert found["l2"] == ["missing", "missing"]


def test_gains_verdicts_and_their_adjustment_by_hand():
    down = [-gain for gain in STEPS]
    mixed = [0.03, -0.03, 0.03, -0.03, 0.03, -0.03]
    gains = {"grm_sft": STEPS, "grm_dpo": mixed, "grm_dpo_reference_free": down}
    found = rows(verdict_table({"A": claims(study(main_part(gains)), A, "bt"), "B": []}))
    # Holm: the two p of .03125 are multiplied by 3 and 2, and the second may not be below the
    # first. Of the signs of six equal gains at most 3:3 apart, all reach a sum of 0: p = 1.
    assert found[2:5] == [
        ["A", "grm_sft", "bt", "6", "+3.50", "+1.00 to +6.00", "0.0312", "0.0938", "**supported**"],
        ["A", "grm_dpo", "bt", "6", "+0.00", "-3.00 to +3.00", "1.0000", "1.0000", "**open**"],
        [
            *["A", "grm_dpo_reference_free", "bt", "6", "-3.50", "-6.00 to -1.00"],
            *["0.0312", "0.0938", "**refuted**"],
        ],
    ]
    assert found[5] == ["B", "grm_sft", *["missing"] * 7]


def test_a_gain_of_four_seeds_has_no_bounds():
    given = study(main_part({"grm_sft": STEPS[1:5]}, seeds=SEEDS[1:5]))
    found = rows(verdict_table({"A": claims(given, A, "bt")}))
    assert found[2][3:6] == ["4", "+3.50", "-∞ to +∞"]  # four seeds cannot reject at .05
    assert found[2][-1] == "**open**"
