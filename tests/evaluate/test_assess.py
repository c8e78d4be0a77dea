"""A rule's figures and their intervals by hand, and what missing rows and NaN do to them."""

import dataclasses
import math

import numpy as np
import pytest

from jaxrm.data.comparison import Comparison
from jaxrm.evaluate.assess import assess, difference, finite
from jaxrm.evaluate.benchmark import Benchmark, Credit, Rule


def credit(comparisons, scores):
    for c, given in zip(comparisons, scores, strict=True):
        yield Credit(c.subset, c.prompt, float(given[0] > given[1]))


def figures(means):
    return {"overall": (means["x"] + 3 * means["y"]) / 4, "x": means["x"]}


RULE = Rule("official", "The better one scores higher.", credit, figures)
SMALL = Benchmark("small", "Small", (), lambda rows, part: iter(()), {"x": 2, "y": 3}, (RULE,))

ROWS = [
    Comparison(prompt, ("a", answer), ranks=(0, 1), subset=subset)
    for prompt, answer, subset in ["1bx", "2bx", "3by", "4by", "4 y"]
]
SCORES = [np.array(pair) for pair in [(1, 0), (0, 0), (2, 1), (math.nan, 0), (3, 1)]]


def test_figures_and_counts_by_hand():
    found = assess(SMALL, ROWS, SCORES)
    assert (found.comparisons, found.responses) == (5, 10)
    assert (found.not_a_number, found.empty, found.ties, found.missing) == (1, 1, 1, {})
    official = found.rules["official"]
    assert official.groups["x"].value == 1 / 2
    assert official.groups["y"].value == pytest.approx(2 / 3)
    assert official.figures["overall"].value == pytest.approx((1 / 2 + 2) / 4)
    assert [official.groups[name].n for name in "xy"] == [2, 3]
    for figure in (*official.figures.values(), *official.groups.values()):
        assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert list(official.figures) == ["overall", "x"]


def test_an_infinite_score_never_wins():
    assert np.isnan(finite([np.array([np.inf, 1.0])])[0]).tolist() == [True, False]
    found = assess(SMALL, ROWS, [np.array([np.inf, 0.0])] * 5)
    assert found.not_a_number == 5
    assert found.rules["official"].figures["overall"].value == 0


def test_missing_rows_take_what_rests_on_them_away_and_no_more():
    found = assess(SMALL, ROWS[:4], SCORES[:4])
    assert [(m.found, m.expected) for m in found.missing.values()] == [(2, 3)]
    official = found.rules["official"]
    assert math.isnan(official.figures["overall"].value)
    assert math.isnan(official.figures["overall"].low)
    assert official.figures["x"].value == 1 / 2
    assert official.groups["y"].value == 1 / 2  # of those that are there
    absent = assess(SMALL, ROWS[:2], SCORES[:2])
    assert absent.missing["y"].found == 0
    assert math.isnan(absent.rules["official"].figures["overall"].value)


def test_a_group_out_of_0_to_1_and_a_single_prompt_have_intervals_too():
    def signed(comparisons, scores):
        return [Credit("x", c.prompt, -1.0 if i else 1.0) for i, c in enumerate(comparisons)]

    benchmark = Benchmark(
        "s", "S", (), SMALL.read, {}, (Rule("r", "", signed, lambda means: {"m": means["x"]}),)
    )
    figure = assess(benchmark, ROWS, SCORES).rules["r"].groups["x"]
    assert (figure.value, figure.low, figure.high) == pytest.approx((-0.6, -1, 0.2), abs=0.3)
    alone = assess(benchmark, ROWS[:1], SCORES[:1]).rules["r"]
    assert alone.figures["m"].value == 1
    assert math.isnan(alone.figures["m"].low)
    assert math.isnan(alone.groups["x"].low)


def test_intervals_of_figures_cover_as_often_as_they_say():
    generator = np.random.default_rng(0)
    rows = [
        Comparison(f"{subset}{i}", ("a", "b"), ranks=(0, 1), subset=subset)
        for subset in "xy"
        for i in range(80)
    ]
    counts = dataclasses.replace(SMALL, expected={"x": 80, "y": 80})
    truth, covered = (0.7 + 3 * 0.4) / 4, 0
    for _ in range(30):
        wins = generator.random(160) < np.repeat([0.7, 0.4], 80)
        found = assess(counts, rows, [np.array([win, 0.5]) for win in wins])
        figure = found.rules["official"].figures["overall"]
        covered += figure.low <= truth <= figure.high
    assert covered >= 25


def test_a_difference_is_taken_prompt_by_prompt():
    first = list(credit(ROWS, SCORES))
    same = difference(RULE, first, first)["overall"]
    assert (same.mean, same.low, same.high, same.p, same.n) == (0, 0, 0, 1, 4)
    second = [Credit(c.group, c.cluster, 0.0) for c in first]
    gain = difference(RULE, first, second)
    assert gain["overall"].mean == pytest.approx((1 / 2 + 2) / 4)
    assert "overall" not in difference(RULE, first, second, missing=["y"])
    assert gain["x"] == difference(RULE, first, second, missing=["y"])["x"]
    with pytest.raises(ValueError, match="the same comparisons"):
        difference(RULE, first, second[:-1])
