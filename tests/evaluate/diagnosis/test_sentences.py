"""What a diagnosis says of few prompts and of many: no verdict that its n does not carry."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from jaxrm.evaluate.diagnose import diagnose
from jaxrm.evaluate.diagnosis import sentences
from jaxrm.evaluate.diagnosis.calibration import calibration
from jaxrm.evaluate.diagnosis.cues import CUES
from jaxrm.evaluate.diagnosis.geometry import geometry
from jaxrm.evaluate.diagnosis.language import language
from jaxrm.evaluate.diagnosis.sentences import told
from jaxrm.evaluate.diagnosis.spread import spread
from jaxrm.evaluate.estimates import NOTHING, Estimate
from tests.evaluate.planted import by_text, pair

UNTOLD = "cannot be told with"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.06, 0.2, "above"),
        (-0.2, -0.06, "below"),
        (0.01, 0.2, "above"),
        (0.01, 0.04, "near"),
        (-0.04, 0.04, "near"),
        (-0.04, 0.06, "open"),
        (-0.3, 0.4, "open"),
        (math.nan, math.nan, "open"),
    ],
)
def test_which_sentence_an_interval_allows(low, high, expected):
    words = dict.fromkeys(("above", "below", "near", "open"))
    words = {name: name for name in words}
    assert told(Estimate(0.1, low, high, 9, 9), 0.05, **words) == expected


def of_margins(margin, right, wrong):
    """Pairs of as many prompts with this margin, `right` for the better response, then `wrong`."""
    scores = [[margin, 0.0]] * right + [[0.0, margin]] * wrong
    pairs = [pair(f"{i}?", f"yes {i}", f"no {i}") for i in range(right + wrong)]
    return [np.array(row) for row in scores], pairs


SURE = "Whether the model is too sure, or not sure enough,"


# sigmoid(.364) is .59.
@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [
        (5, 1, f"{SURE} {UNTOLD} 6 pairs of 6 prompts"),
        (2, 1, f"{SURE} {UNTOLD} 3 pairs of 3 prompts"),
        (500, 100, "The model is not sure enough"),
        (240, 360, "The model is too sure"),
        (1180, 820, "On the whole the model is about as sure as it should be"),
    ],
)
def test_a_confidence_of_59_percent_is_judged_by_as_many_pairs_as_there_are(right, wrong, verdict):
    says = sentences.calibration(calibration(*of_margins(0.364, right, wrong)))
    assert says.startswith(f"{verdict}: it trusts the winner that it picks by 59.0 %")


def test_another_scale_is_recommended_where_it_is_told_to_fit_better():
    few, many = (calibration(*of_margins(0.364, 5 * n, n)) for n in (1, 100))
    # 5 of 6 right is log-odds of 1.609: margins would have to be 4.4 times as large.
    untold = f"Whether another scale fits better {UNTOLD} 6 pairs of 6 prompts: dividing rewards by"
    assert f"{untold} 0.23" in sentences.calibration(few)
    assert "Dividing rewards by 0.23 (" in sentences.calibration(many)
    assert "fits best and would take the loss" in sentences.calibration(many)
    fits = sentences.calibration(calibration(*of_margins(math.log(3), 6000, 2000)))
    assert "Another scale hardly fits better: dividing rewards by 1.00 (" in fits
    coin = sentences.calibration(calibration(*of_margins(1.0, 1, 2)))
    assert "beats a coin on these 3 pairs of 3 prompts." in coin
    perfect = sentences.calibration(calibration(*of_margins(1.0, 3, 0)))
    assert "None of these 3 pairs of 3 prompts is wrong" in perfect
    assert UNTOLD in perfect


def trees(n):
    """Right answers that are longer and wrong ones, to n prompts."""
    return [
        pair(f"What is {i}?", f"A tree. It has {'many ' * (i % 7)}leaves.", f"No {i}. Ask again.")
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def by_n():
    """The diagnosis of a scorer by length that also likes "Sure", of 3, 6 and 300 prompts."""
    scorer = by_text(lambda text: 0.02 * len(text) + 3 * ("Sure" in text))
    return {n: diagnose(scorer, trees(n)) for n in (3, 6, 300)}


def test_of_three_prompts_no_verdict_is_given(by_n):
    d = by_n[3]
    assert f"Whether length moves the reward {UNTOLD} 6 answers of 3 prompts" in sentences.length(
        d.length
    )
    assert f"the longer one {UNTOLD} 3 pairs of 3 prompts" in sentences.length(d.length)
    assert f"use of the prompt {UNTOLD} 3 comparisons of 3 prompts" in sentences.prompts(d.blind)
    assert f"Whether any cue moves the reward {UNTOLD} 6 answers of 3 prompts" in sentences.cues(
        d.cues
    )
    assert UNTOLD in sentences.calibration(d.calibration)


def test_of_many_prompts_there_is_a_verdict(by_n):
    d = by_n[300]
    for says in (
        sentences.length(d.length),
        sentences.prompts(d.blind),
        sentences.cues(d.cues),
    ):
        assert UNTOLD not in says
    assert sentences.length(d.length).startswith("It likes length: twice the length goes with +")
    # It reads the answer alone, so that the prompt changes nothing.
    assert "next to no use of the prompt, 0.0 points" in sentences.prompts(d.blind)
    most = f"the largest change is of {CUES[0].name}, by +"
    assert sentences.cues(d.cues).startswith("Of the cues that can be told to move the rew")
    assert most in sentences.cues(d.cues)


def test_no_use_of_the_prompt_is_no_verdict_of_six(by_n):
    assert f"use of the prompt {UNTOLD} 6 comparisons of 6 prompts, 0.0 points (" in (
        sentences.prompts(by_n[6].blind)
    )


def test_a_scorer_that_no_cue_moves(by_n):
    silent = {name: dataclasses.replace(cue, change=NOTHING, overturned=NOTHING)
              for name, cue in by_n[6].cues.items()}  # fmt: skip
    says = sentences.cues(silent)
    assert says.startswith("No answer has a reward with a cue and without it. No pair was right")
    still = diagnose(by_text(lambda text: float("tree" in text)), trees(300))
    says = sentences.cues(still.cues)
    assert says.startswith("No cue moves the reward by more than 0.1 deviations")
    assert says.endswith("no cue overturns any of the 300 pairs of 300 prompts that were right.")


def test_the_share_of_the_variance_has_its_interval(by_n):
    assert sentences.rewards(by_n[300].spread).startswith("The rewards of 600 responses have a dev")
    generator, pairs = np.random.default_rng(0), trees(200)
    # As much from prompt to prompt as within one.
    scores = [generator.normal() + generator.normal(size=2) for _ in pairs]
    widths = []
    for n in (3, 20, 200):
        found = spread(scores[:n], pairs[:n])
        share, says = found.share_within, sentences.rewards(found)
        assert share.value == found.within**2 / (found.within**2 + found.between**2)
        assert f"so that {100 * share.value:.1f} % (" in says or n < 5
        widths.append(share.high - share.low)
    assert share.low < 0.5 < share.high
    assert math.isnan(widths[0])
    assert widths[1] > 1.5 * widths[2]
    one = diagnose(by_text(lambda text: 1.0), trees(3)).spread
    assert "variance" not in sentences.rewards(one)


def test_directions_are_out_of_those_that_so_many_responses_can_use():
    generator = np.random.default_rng(0)
    pairs = trees(6)
    few = geometry([generator.normal(size=(2, 40)) for _ in pairs], pairs)
    assert "of the 12 that so many responses can use" in sentences.states(few)
    many = geometry([generator.normal(size=(2, 4)) for _ in pairs], pairs)
    assert "of the model's 4, and" in sentences.states(many)


def test_what_is_left_of_writing_says_of_how_many():
    logps, pairs = of_margins(1.0, 3, 0)
    says = sentences.language(language(logps, [np.array([1, 1])] * 3, pairs))
    assert says.endswith("in 100.0 % of 3 comparisons of 3 prompts.")
