"""Sums worked out by the author: what is drawn, how it is written, and how he goes on."""

from __future__ import annotations

import math
import random

import numpy as np

from jaxrm.toy import steps, worked
from jaxrm.toy.worked import Worked


def solved(asked, slips):
    return Worked(f"ada of dover: work out {asked}.", asked, steps.solution(asked, slips))


def test_parts_share_no_sum_and_a_longer_list_begins_with_a_shorter():
    drawn = {part: worked.draw(part, 40, 0, solutions=2, largest=5) for part in worked.PARTS}
    sums = [text for part in drawn.values() for text in {w.sum for w in part}]
    assert len(sums) == len(set(sums))
    assert worked.draw("train", 7, 0, solutions=2, largest=5) == drawn["train"][:14]
    assert worked.draw("train", 7, 1, solutions=2, largest=5) != drawn["train"][:14]
    assert {int(n) for text in sums for n in text.split()[::2]} == {1, 2, 3, 4, 5}


def test_steps_are_written_out_with_what_the_author_took_for_the_total():
    right, wrong = (solved("7 plus 4 minus 2", slips) for slips in ({}, {0: 1}))
    assert right.texts == ["7 plus 4 is 11", "11 minus 2 is 9"]
    assert wrong.texts == ["7 plus 4 is 12", "12 minus 2 is 10"]
    (both,) = worked.comparisons([right, wrong], 2, [[1.0, 1.0], [0.0, math.nan]])
    assert both.prompt[0].content == right.question
    assert both.responses[1][0].content == "7 plus 4 is 12, 12 minus 2 is 10"
    assert [step.end for step in both.steps[1]] == [14, 32]
    assert [step.label for step in both.steps[0]] == [1, 1]
    assert [len(c.responses) for c in worked.comparisons([right] * 5, 2)] == [2, 2, 1]


def test_roll_outs_go_on_from_the_authors_total():
    asked, rng = "5 plus 1 plus 1 plus 1", random.Random(0)
    # After the last step nothing is left to draw, and the slips have cancelled.
    assert solved(asked, {0: 2, 2: -2}).outcomes(5, rng)[2] == [True] * 5
    assert solved(asked, {1: 1}).outcomes(5, rng)[2] == [False] * 5
    # From a slip on, only a slip of the same size the other way helps; from the right total, none.
    shares = [np.mean(solved(asked, slips).outcomes(4000, rng)[0]) for slips in ({}, {0: 2})]
    # With two steps left: no slip .4, two that cancel .1; a single one, of the right size, .5 / 4.
    np.testing.assert_allclose(shares, [0.5, 0.125], atol=0.04)
