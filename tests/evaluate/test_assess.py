"""A rule's figures and their intervals by hand, and what missing rows and NaN do to them."""

import dataclasses
import math

import numpy as np
import pytest

from jaxrm.data.comparison import Comparison
from jaxrm.evaluate.assess import assess, difference, finite
from jaxrm.evaluate.benchmark import Benchmark, Credit, Rule
from jaxrm.evaluate.clusters import SHARE, Spread, interval


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
    # Of four prompts and fewer there are no intervals.
    assert np.isnan([figure.low for figure in official.figures.values()]).all()
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


def of_means(credits):
    """A benchmark whose one rule earns these credits and shows the mean of each group."""
    rule = Rule("r", "", lambda comparisons, scores: credits, dict)
    return Benchmark("s", "S", (), SMALL.read, {}, (rule,))


def ends(figure):
    return figure.value, figure.low, figure.high


def test_a_group_out_of_0_to_1_has_an_interval_without_bounds():
    credits = [Credit("x", f"prompt {i}", value) for i, value in enumerate((-1.0, 1, 1, -1, -1))]
    found = assess(of_means(credits), ROWS, SCORES).rules["r"]
    # Mean -.2 and variance .96 / 4, which at t(4) = 2.776 reaches beyond -1 and 1.
    reach = 2.776445 * math.sqrt(0.96 / 4)
    assert ends(found.figures["x"]) == pytest.approx((-0.2, -0.2 - reach, -0.2 + reach), abs=1e-5)
    assert ends(found.groups["x"]) == pytest.approx(ends(found.figures["x"]))


def test_a_figure_of_one_group_has_the_group_s_interval():
    """Whatever else there is, if it be a group of a single prompt."""
    values = [1.0, 1, 0, 1, 1, 1, 1, 1]
    credits = [Credit("x", f"prompt {i // 2}", value) for i, value in enumerate(values * 3)]
    credits += [Credit("y", "alone", 1.0)]
    found = assess(of_means(credits), ROWS, SCORES).rules["r"]
    value, low, high = ends(found.figures["x"])
    assert (value, low, high) == pytest.approx(ends(found.groups["x"]))
    assert 0 < low < value < high < 1
    for single in (found.figures["y"], found.groups["y"]):
        assert single.value == 1
        assert math.isnan(single.low)


def test_the_variance_of_a_formula_by_hand():
    """(x + 3 y) / 4 of two subsets, and their product, whose derivatives are the other's mean."""
    wins = {"x": [1.0, 0, 1, 0, 1, 0], "y": [1.0, 1, 1, 1, 0, 0]}
    credits = [
        Credit(name, f"{name}{i}", value) for name in wins for i, value in enumerate(wins[name])
    ]

    def formulas(means):
        return figures(means) | {"product": means["x"] * means["y"]}

    x, y = (np.var(values, ddof=1) / 6 for values in wins.values())
    # Values, variances, and the derivatives by x and y, whose squares are a prompt's part in them.
    expected = {
        "overall": ((3 / 6 + 3 * 4 / 6) / 4, (x + 9 * y) / 16, (1 / 4, 3 / 4)),
        "x": (3 / 6, x, (1, 0)),
        "product": (3 / 6 * 4 / 6, x * (4 / 6) ** 2 + y * (3 / 6) ** 2, (4 / 6, 3 / 6)),
    }
    rule = Rule("r", "", lambda comparisons, scores: credits, formulas)
    found = assess(dataclasses.replace(of_means(credits), rules=(rule,)), ROWS, SCORES).rules["r"]
    for name, (value, variance, slopes) in expected.items():
        squares = np.repeat(slopes, 6) ** 2
        spread = Spread(variance, squares.sum() ** 2 / (squares**2).sum() - 1)
        figure = found.figures[name]
        assert ends(figure) == pytest.approx((value, *interval(value, spread, SHARE))), name


def simulated(generator, sizes, chances):
    """Credits of 0 and 1 of two scorers: two of every prompt, half of the time the same."""
    both = []
    for _ in range(2):
        credits = []
        for (name, count), chance in zip(sizes.items(), chances, strict=True):
            first, second = (generator.random(count) < chance for _ in range(2))
            second = np.where(generator.random(count) < 0.5, first, second)
            for i, values in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
                credits += [Credit(name, f"{name}{i}", float(value)) for value in values]
        both.append(credits)
    return both


@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.9, 0.9), (0.8, 0.5)])
@pytest.mark.parametrize("sizes", [(5, 5), (5, 20), (10, 10), (10, 60), (20, 20)])
def test_formulas_of_few_prompts_hold_what_they_say(sizes, chances):
    """Intervals of the mean of two subsets' means hold it, and two like scorers seldom differ."""
    generator, held, wrong = np.random.default_rng(0), [], []
    for _ in range(200):
        ours, theirs = simulated(generator, dict(zip("xy", sizes, strict=True)), chances)
        rule = Rule(
            "r",
            "",
            lambda comparisons, scores, earned=ours: earned,
            lambda means: {"m": (means["x"] + means["y"]) / 2},
        )
        benchmark = dataclasses.replace(SMALL, expected={}, rules=(rule,))
        _, low, high = ends(assess(benchmark, [], []).rules["r"].figures["m"])
        held.append(low <= sum(chances) / 2 <= high)
        wrong.append(difference(rule, ours, theirs)["m"].p <= 0.05)
    assert np.mean(held) >= 0.91
    assert np.mean(wrong) <= 0.09


def test_a_difference_is_taken_prompt_by_prompt():
    first = list(credit(ROWS, SCORES))
    few = difference(RULE, first, first)["overall"]
    assert (few.mean, few.low, few.high, few.p, few.n) == (0, -math.inf, math.inf, 1, 4)
    second = [Credit(c.group, c.cluster, 0.0) for c in first]
    gain = difference(RULE, first, second)
    assert gain["overall"].mean == pytest.approx((1 / 2 + 2) / 4)
    assert "overall" not in difference(RULE, first, second, missing=["y"])
    assert gain["x"] == difference(RULE, first, second, missing=["y"])["x"]
    with pytest.raises(ValueError, match="the same comparisons"):
        difference(RULE, first, second[:-1])


def test_what_two_scorers_share_takes_no_certainty_away():
    """Half of the credits is luck that both have: their difference knows nothing of it."""
    luck = np.random.default_rng(0).random(200) < 0.5
    better = np.arange(200) % 5 == 0
    ours, theirs = (
        [Credit("x", f"{i}", float(value)) for i, value in enumerate(values)]
        for values in (luck | better, luck)
    )
    rule = Rule("r", "", lambda comparisons, scores: (), lambda means: {"m": means["x"]})
    gain = difference(rule, ours, theirs)["m"]
    assert gain.mean == pytest.approx((better & ~luck).mean())
    assert 0 < gain.low < gain.mean < gain.high < gain.mean + 0.06
    assert (gain.p < 0.001, gain.n) == (True, 200)
    reverse = difference(rule, theirs, ours)["m"]
    assert (reverse.low, reverse.high, reverse.p) == pytest.approx((-gain.high, -gain.low, gain.p))
