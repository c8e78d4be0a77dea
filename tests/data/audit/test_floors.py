"""The baselines are right where style decides and wrong on ties, and see nothing held out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from jaxrm.data.audit import floors
from jaxrm.data.audit.floors import bag_of_words, is_held_out, longer
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.ordering import ordered_pairs, shares


def pair(prompt, chosen, rejected, **known):
    return Comparison.pair([Message("user", prompt)], chosen, rejected, **known)


def share(score, comparisons):
    pairs = ordered_pairs(comparisons)
    scores = score(floors.response_texts(comparisons))
    return shares(scores[pairs.better] > scores[pairs.worse], pairs).tolist()


def test_only_the_strictly_longer_response_is_right():
    rows = [pair("p", "long", "no"), pair("p", "no", "long"), pair("p", "same", "size")]
    assert share(longer, rows) == [1, 0, 0]
    found = floors.floors(rows, {})["source"][""]["longer"]
    assert found["accuracy"] == found["tied"] == pytest.approx(1 / 3)


def test_a_comparison_counts_once_however_many_pairs_it_has():
    three = Comparison("p", ("aaa", "b", "cc"), ranks=(0, 1, 2))  # 3 > 1, 3 > 2, not 1 > 2
    tied = Comparison("p", ("aaa", "b", "cc"), ranks=(1, 1, 0))  # not 2 > 3, 2 > 1
    assert share(longer, [three, tied]) == pytest.approx([2 / 3, 1 / 2])


def test_rows_without_an_order_are_not_among_the_n():
    rows = [
        pair("p", "long", "no"),
        Comparison("p", ("a",)),
        Comparison("p", ("a", "bb")),
        Comparison("p", ("a", "bb"), ranks=(2, 2)),
    ]
    source = floors.floors(rows, {})["source"]
    assert source[""]["comparisons"] == 4
    longer = source[""]["longer"]
    assert (longer["accuracy"], longer["n"], longer["tied"]) == (1, 1, 0)
    # One right of one says little: 1 / (1 + 1.96^2) is .207.
    assert (longer["low"], longer["high"]) == (pytest.approx(0.207, abs=5e-4), 1)
    only_unranked = floors.floors(rows[1:], {"eval": rows})
    assert only_unranked["source"][""] == {"comparisons": 3, "longer": None, "bag_of_words": None}
    assert only_unranked["eval"][""]["longer"]["n"] == 1
    assert only_unranked["eval"][""]["bag_of_words"] is None


def test_subsets_are_reported_where_there_are_several():
    rows = [pair("p", "long", "no", subset="a"), pair("q", "no", "long"), pair("r", "x", "y")]
    found = floors.floors(rows, {"one": rows[:1]})
    assert list(found) == ["source", "held out", "one"]
    accuracies = {subset: of["longer"]["accuracy"] for subset, of in found["source"].items()}
    assert accuracies == {"": pytest.approx(1 / 3), "a": 1, "(none)": 0}
    longer = found["source"][""]["longer"]
    # Wilson's interval of 1 in 3, as tables have it.
    assert (longer["low"], longer["high"]) == pytest.approx((0.0615, 0.7923), abs=5e-5)
    assert list(found["one"]) == [""]


def test_the_bag_of_words_is_the_optimum_of_its_loss():
    # Of one word each: w(good) = -w(bad) = w, and 10 softplus(-2 w) + PENALTY w^2 is least.
    score = bag_of_words([pair("p", "good", "bad")] * 10)
    feature = math.log(2)

    def slope(w):
        return -10 * 2 * feature * scipy.special.expit(-2 * w * feature) + 2 * floors.PENALTY * w

    w = scipy.optimize.brentq(slope, 0, 1)
    found = score(["good", "Good, good", "bad", "neither"])
    assert found == pytest.approx([w * feature, w * math.log(3), -w * feature, 0], abs=1e-5)


def test_the_bag_of_words_learns_words_and_marks_that_go_with_the_label():
    topics = [f"topic{i} " * (1 + i % 5) for i in range(200)]
    rows = [pair(f"p{i}", f"{t}* sure\n", f"{t}sorry sorry sorry") for i, t in enumerate(topics)]
    turned = [pair(f"q{i}", f"{t}sorry", f"{t}sure") for i, t in enumerate(topics)]
    found = floors.floors(rows, {"turned": turned})
    assert found["source"][""]["longer"]["accuracy"] == 0
    assert found["held out"][""]["bag_of_words"]["accuracy"] == 1
    assert found["turned"][""]["bag_of_words"]["accuracy"] == 0


def test_about_a_fifth_of_the_prompts_is_held_out_whatever_their_responses():
    prompts = [f"question {i}" for i in range(1000)]
    rows = [pair(p, f"a{k}", "no") for p in prompts for k in range(3)]
    held_out = [row for row in rows if is_held_out(row.prompt)]
    assert 3 * 150 < len(held_out) < 3 * 250
    assert {row.prompt for row in held_out}.isdisjoint(
        row.prompt for row in rows if not is_held_out(row.prompt)
    )
    assert floors.floors(rows, {})["held out"][""]["comparisons"] == len(held_out)


def test_the_held_out_part_teaches_nothing():
    """Words that only the held-out rows have score nothing, so that both responses tie."""
    prompts = [f"question {i}" for i in range(50)]
    rows = [
        pair(p, "apple", "pear") if is_held_out((Message("user", p),)) else pair(p, "yes", "no")
        for p in prompts
    ]
    assert floors.floors(rows, {})["held out"][""]["bag_of_words"]["accuracy"] == 0
    assert floors.floors(rows, {"all": rows})["all"][""]["bag_of_words"]["accuracy"] == 1


def test_order_of_rows_does_not_change_the_model():
    rows = [pair(f"p{i}", f"good word{i}", f"bad word{i + 1}") for i in range(20)]
    texts = ["good word3", "bad word7", "word0 word1"]
    assert np.allclose(bag_of_words(rows)(texts), bag_of_words(rows[::-1])(texts), atol=1e-5)
