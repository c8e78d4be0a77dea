"""A contest's gains, ranks and page, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrm.errors import DataError
from jaxrm.study import contest


def record(method, seed, macro, budget="labels", cost=1.0, condition="c"):
    return {
        "method": method,
        "learning_rate": 0.1,
        "strength": None,
        "seed": seed,
        "condition": condition,
        "budget": budget,
        "splits": {
            "ood": {"macro": macro, "accuracy": macro / 2},
            "val": {"macro": 0.5, "accuracy": 0.5},
        },
        "cost": cost,
        "dropped": 0,
    }


BASELINE = [0.70, 0.72, 0.71, 0.69, 0.73, 0.70, 0.72]


@pytest.fixture
def records():
    found = [record("bt", seed, value) for seed, value in enumerate(BASELINE)]
    found += [record("up", s, v + 0.01 + 0.001 * s, cost=4.0) for s, v in enumerate(BASELINE)]
    found += [record("down", s, v - 0.01 - 0.001 * s) for s, v in enumerate(BASELINE)]
    return found


def test_methods_are_ranked_on_the_endpoint_with_gains_over_shared_seeds(records):
    runs = contest.cells(records)["c", "labels"]
    lines = contest.ranking(runs, "bt")
    assert [line["method"] for line in lines] == ["up", "bt", "down"]
    assert lines[0]["gain"].mean == pytest.approx(0.013)
    assert lines[0]["gain"].p == pytest.approx(2 / 2**7)
    # Holm: the smaller of two p values times two, and both are equal.
    assert lines[0]["adjusted"] == pytest.approx(4 / 2**7)
    assert lines[1]["gain"] is None
    text = contest.text_table(runs, "bt")
    words = {line.split("|")[1].strip(): line.split("|")[8].strip() for line in text.splitlines()}
    assert (words["up"], words["down"], words["**bt**"]) == ("better", "worse", "")


def test_a_seed_that_one_lacks_is_left_out_of_its_gain(records):
    runs = contest.cells([r for r in records if (r["method"], r["seed"]) != ("up", 0)])
    gain = contest.gains(runs["c", "labels"], "bt", "ood", "macro")["up"]
    assert gain.n == 6
    assert gain.mean == pytest.approx(0.01 + 0.001 * 3.5)
    alone = contest.cells([r for r in records if r["method"] == "bt" or r["seed"] == 0])
    assert contest.gains(alone["c", "labels"], "bt", "ood", "macro")["up"] is None


def test_what_costs_no_more_stands_at_both_budgets(records):
    both = contest.cells([*records, record("up", 0, 0.6, budget="flops", cost=1.0)])
    assert list(both) == [("c", "labels"), ("c", "flops")]
    at_flops = both["c", "flops"]
    assert len(at_flops["bt"]) == 7
    assert at_flops["up"][0]["splits"]["ood"]["macro"] == 0.6
    assert contest.costs(records) == {"bt": 1.0, "up": 4.0, "down": 1.0}


def test_two_records_of_one_run_are_refused(records):
    with pytest.raises(DataError, match="two records of bt at seed 0"):
        contest.cells([*records, records[0]])
    with pytest.raises(DataError, match="no records"):
        contest.Run([], {})
    with pytest.raises(DataError, match="no record of sideways"):
        contest.Run(records, {}, against="sideways")


def test_gains_can_be_measured_against_another_method(records):
    found = contest.results(contest.Run(records, {}, against="up"))["c"]["labels"]
    assert found["up"]["gain"] is None
    assert found["bt"]["gain"]["mean"] == pytest.approx(-0.013)


def test_the_results_hold_what_the_table_shows(records):
    found = contest.results(contest.Run(records, {}, "accuracy"))["c"]["labels"]["up"]
    values = np.array([v + 0.01 + 0.001 * s for s, v in enumerate(BASELINE)]) / 2
    assert found["splits"]["ood"]["mean"] == pytest.approx(values.mean())
    error = values.std(ddof=1) / np.sqrt(7)
    assert found["splits"]["ood"]["standard_error"] == pytest.approx(error)
    assert found["seeds"] == list(range(7))
    assert found["gain"]["mean"] == pytest.approx(0.0065)


def test_the_page_has_a_chart_and_says_what_could_be_found(tmp_path, records):
    tried = {"strength": None, "mean": 0.5, "standard_error": None}
    trials = [tried | {"learning_rate": rate} for rate in (0.1, 1.0)]
    choices = {"bt": {"learning_rate": 0.1, "strength": None, "trials": trials}}
    run = contest.Run(records, choices)
    contest.write({"Screen": run}, tmp_path / "page.md", title="Contest")
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# Contest\n")
    assert "| bt | lr 0.1 | 50.0 | chosen |" in page
    assert "| bt | lr 1 | 50.0 |  |" in page
    assert "## Screen: c, equal labels" in page
    assert "(figures/page_1.svg)" in page
    assert (tmp_path / "figures" / "page_1.svg").read_text().startswith("<?xml")
    runs = contest.cells(records)["c", "labels"]
    least = contest.detectable(runs, "bt", "macro")
    assert 0 < least < 0.01
    assert f"A gain of {100 * least:.1f} points would be found" in page
    short = contest.cells([r for r in records if r["seed"] < 5])["c", "labels"]
    assert contest.detectable(short, "bt", "macro") == np.inf


def test_a_gain_in_words_is_that_of_the_last_run(records):
    fewer = [r for r in records if r["method"] != "down"]
    later = [r | {"splits": r["splits"] | {"ood": {"macro": 0.5}}} for r in fewer]
    words = contest.in_words([contest.Run(records, {}), contest.Run(later, {})])
    assert words["bt"] == "50.0 ± 0.0 %"
    assert words["up"].startswith("+0.00 (")
    assert words["down"].startswith("-1.30 (")
    assert words["down"].endswith("; 7 seeds)")


def test_one_method_beside_the_baseline_shares_a_table_over_conditions(tmp_path, records):
    pair = [r for r in records if r["method"] != "down"]
    for r in pair:
        del r["cost"]
        r["splits"]["ood"]["drift"] = 0.125
    other = [r | {"condition": "d"} for r in pair]
    run = contest.Run([*pair, *other], {}, beside=("drift",))
    contest.write({"Data": run}, tmp_path / "page.md", title="Contest", about="Of two.")
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# Contest\n\nOf two.\n")
    assert [line for line in page.splitlines() if line[:3] == "## "] == ["## Data: equal labels"]
    assert "| condition | method | trial | ood | gain, points |" in page
    assert "cost" not in page.split("## ")[1]
    assert page.count("| up | 12.5 ± 0.0 |") == 2
    assert "| condition | method | drift, ood |" in page
    assert not (tmp_path / "figures" / "page_2.svg").exists()
