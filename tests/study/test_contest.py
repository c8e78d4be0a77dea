"""A contest's gains, ranks and page, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrm.errors import DataError
from jaxrm.report import parts
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
    text = contest.table({"": runs}, "bt").markdown()
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


def test_too_few_seeds_and_less_than_was_asked_for_are_said(records):
    short = [r | {"asked": {"train": 9, "val": 8}, "drawn": 9 - r["seed"]} for r in records]
    for r in short:
        r["splits"]["val"]["n"] = 7
        r["dropped"] = 3
    few = contest.Run([r for r in short if r["seed"] < 5], {})
    [(_, runs)] = contest.cells(few.records).items()
    assert contest.cautions([runs], few) == [
        "**5 seeds: no gain here is told from chance.** With fewer than 6 no interval can exclude "
        "0.",
        "train: 5 comparisons, where 9 were asked for.",
        "val: 7 comparisons, where 8 were asked for.",
        "Up to 3 comparisons were too long for a row of training.",
    ]
    enough = contest.Run(records, {})
    assert contest.cautions([contest.cells(records)["c", "labels"]], enough) == []
    text = contest.as_text({"Screen": few})
    assert "\n\n5 seeds: no gain" in text
    assert "**" not in text


def test_items_that_could_make_the_gains_are_said_with_the_least_gain(records):
    """Files are the same items for every seed: 1.96 sqrt(2 x .25 / n) at an accuracy of a half."""
    halves = [r | {"splits": {"test": {"accuracy": 0.5, "n": 200}}} for r in records[:14]]
    for r in halves[7:]:
        r["splits"] = {"test": {"accuracy": 0.55, "n": 200}}
    run = contest.Run(halves, {}, "accuracy")
    [(_, runs)] = contest.cells(run.records).items()
    [said] = contest.cautions([runs], run)
    assert said.startswith("**200 items of test are too few for gains this small.**")
    assert "up to 9.8 points (95 %)" in said
    assert "The largest here is 5.0." in said
    assert contest.cautions([runs, runs], run) == [said]
    for r in halves:
        r["splits"]["test"]["n"] = 800  # 4.9 points
    assert contest.cautions([runs], run) == []


def test_the_html_page_has_the_tables_and_the_chart(records):
    [part] = contest.shown({"Screen": contest.Run(records, {})})
    [page] = parts.sections([part])
    assert page.startswith("<section><h2>Screen: c, equal labels</h2>")
    assert "<td><b>bt</b></td><td class=text>lr 0.1</td><td>71.0 ± 0.5</td>" in page
    assert page.count("<figure class=chart><svg") == 1
    assert "**" not in page
