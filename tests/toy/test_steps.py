from __future__ import annotations

import random

import pytest

from jaxrm.toy import steps


def test_a_sum_is_worked_out_total_by_total():
    right = steps.solution("7 plus 4 minus 2 plus 5")
    assert right.steps == ("11", "9", "14")
    assert right.labels == (True, True, True)
    assert right.outcome
    assert right.text == "11, 9, 14"


def test_a_slip_is_carried_on_and_a_second_may_hide_it():
    slipped = steps.solution("7 plus 4 minus 2 plus 5", {0: 1})
    assert slipped.steps == ("12", "10", "15")
    assert slipped.labels == (False, True, True)
    assert not slipped.outcome
    hidden = steps.solution("7 plus 4 minus 2 plus 5", {0: 1, 2: -1})
    assert hidden.steps == ("12", "10", "14")
    assert hidden.labels == (False, True, False)
    assert hidden.outcome


@pytest.mark.parametrize("text", ["7", "7 plus", "7 times 2", "seven plus 2", "7 plus 2 plus"])
def test_what_is_no_sum_is_refused(text):
    with pytest.raises(ValueError, match=r"not a sum|invalid literal"):
        steps.solution(text)


def test_drawn_sums_have_three_to_five_steps_and_no_total_below_zero():
    rng = random.Random(0)
    for _ in range(500):
        worked = steps.solution(steps.draw_sum(range(2, 10), rng))
        assert 3 <= len(worked.steps) <= 5
        assert min(map(int, worked.steps)) >= 0


def test_a_fifth_of_the_right_answers_hide_two_slips():
    rng = random.Random(1)
    drawn = []
    for _ in range(2000):
        question = steps.draw_sum(range(2, 10), rng)
        slips = steps.draw_slips(len(steps.solution(question).steps), rng)
        drawn.append(steps.solution(question, slips))
    right = [worked for worked in drawn if worked.outcome]
    hidden = [worked for worked in right if not all(worked.labels)]
    assert len(right) / len(drawn) == pytest.approx(0.5, abs=0.04)
    assert len(hidden) / len(right) == pytest.approx(0.2, abs=0.04)
