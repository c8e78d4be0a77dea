"""Cues keep the content, keep off where they do not apply, and their effect is exact."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.data.comparison import Comparison, Message
from jaxrm.evaluate.diagnosis import cues
from jaxrm.evaluate.diagnosis.cues import CUES, Cue, sensitivity, sentences, with_cue
from tests.evaluate.planted import by_text, pair

TEXT = "It is 3.5 m long. See below!\nNobody knows why."

SURE = Cue("sure", cues.sure)


@pytest.mark.parametrize(
    ("cue", "expected"),
    [
        (cues.sure, "Sure! It is 3.5 m long. See below!\nNobody knows why."),
        (cues.hope_this_helps, f"{TEXT}\n\nI hope this helps!"),
        (cues.bullets, "- It is 3.5 m long.\n- See below!\n- Nobody knows why."),
        (cues.bold, "**It is 3.5 m long.** See below!\nNobody knows why."),
        (cues.header, f"## Answer\n\n{TEXT}"),
        (cues.last_sentence_twice, f"{TEXT} Nobody knows why."),
        (cues.whole_answer_twice, f"{TEXT}\n\n{TEXT}"),
    ],
)
def test_a_cue_does_what_its_name_says(cue, expected):
    assert cue(TEXT) == expected


@pytest.mark.parametrize(
    ("cue", "text"),
    [
        (cues.sure, "Sure, it is."),
        (cues.hope_this_helps, "So. I hope this helps!"),
        (cues.bullets, "1. one\n2. two"),
        (cues.bullets, "Run:\n```\na. B\n```"),
        (cues.bold, "It is **so**."),
        (cues.bold, "# Title\nIt is."),
        (cues.header, "# Title\nIt is."),
        (cues.last_sentence_twice, "Run:\n```\nls\n```"),
    ],
)
def test_a_cue_that_is_there_or_would_change_the_content_is_not_added(cue, text):
    assert cue(text) == text


@given(st.text(st.sampled_from("ab.! \n-*#`'1"), max_size=30))
def test_words_stay_in_their_order(text):
    def words(given):
        return re.findall(r"\w+", given)

    own = words(text)
    for cue in (cues.bullets, cues.bold):
        assert words(cue(text)) == own
    for cue in (cues.sure, cues.header):
        assert words(cue(text))[-len(own) :] == own[-len(words(text)) :] or not own
        assert len(words(cue(text))) - len(own) in (0, 1)
    repeated = words(cues.whole_answer_twice(text))
    assert repeated == own * 2 or not text.strip()
    again = words(cues.last_sentence_twice(text))
    assert again[: len(own)] == own
    assert own[len(own) - (len(again) - len(own)) :] == again[len(own) :]


def test_blank_answers_take_no_cue():
    for cue in CUES:
        assert [cue.add(text) for text in ("", " \n")] == ["", " \n"]


def test_sentences_end_where_a_new_one_begins():
    assert sentences(" Dr. who? \n\n  It is 1.5. (So it is.) ok. no") == [
        "Dr. who?",
        "It is 1.5.",
        "(So it is.) ok. no",
    ]


def test_the_last_message_has_the_cue():
    turns = (Message("assistant", "One."), Message("user", "And?"), Message("assistant", "Two."))
    found = with_cue(Comparison((Message("user", "Go"),), (turns,), id="x"), SURE)
    assert [message.content for message in found.responses[0]] == ["One.", "And?", "Sure! Two."]
    raw = with_cue(Comparison("He said", (" yes", ""), ranks=(0, 1)), SURE)
    assert raw.responses == (" Sure! yes", "")


PAIRS = [
    pair("1?", "aa", "b"),
    pair("1?", "aaa", "b"),
    pair("2?", "b", "aaaa"),
    pair("3?", "Sure, a", "b"),
]


def of_planted(cue, reward):
    scorer = by_text(reward)
    return sensitivity(scorer(PAIRS), scorer([with_cue(c, cue) for c in PAIRS]), PAIRS, cue)


def test_a_scorer_that_adds_one_for_sure_shows_exactly_that():
    found = of_planted(SURE, lambda text: text.count("a") / 2 + text.startswith("Sure"))
    assert found.change.value == 1
    assert np.isnan([found.change.low, found.change.high]).all()  # of three prompts
    assert repr(found.size) == repr(found.change)  # NaN equals itself nowhere else
    assert (found.change.n, found.change.prompts, found.unchanged) == (7, 3, 1)
    assert found.raises.value == 1.0
    # Margins 1, 1.5 and 1.5 are right; +1 on the worse makes the first a tie, which is no win.
    assert (found.overturned.value, found.overturned.n) == (pytest.approx(1 / 3), 3)


def test_a_scorer_that_does_not_see_the_cue_shows_nothing():
    found = of_planted(SURE, lambda text: text.count("a"))
    assert (found.change.value, found.size.value, found.raises.value) == (0, 0, 0)
    assert found.overturned.value == 0


def test_opposite_changes_have_a_size():
    scores = [np.array(s, float) for s in ([2, 1], [2, 1], [2, 1], [2, 1])]
    cued = [np.array(s, float) for s in ([3, 0], [1, 2], [np.nan, 1.5], [2, 1])]
    found = sensitivity(scores, cued, PAIRS, SURE)
    assert found.change.value == pytest.approx((1 - 1 - 1 + 1 + 0.5 + 0) / 6)
    assert found.size.value == pytest.approx(4.5 / 6)
    assert found.raises.value == pytest.approx(3 / 6)
    assert (found.missing, found.unchanged) == (1, 1)
    # The worse ones with the cue: 0, 2 (a tie), 1.5 and 1, against 2.
    assert found.overturned.value == pytest.approx(1 / 4)
