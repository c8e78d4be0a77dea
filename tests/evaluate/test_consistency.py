"""Contrast Instructions from pairs: what an item holds, and what a blind scorer makes."""

import numpy as np

from jaxrm.data.comparison import Comparison, Message
from jaxrm.evaluate.consistency import contrast_instructions
from jaxrm.read.accuracy import accuracy

BAND = {"low": 0.1, "high": 0.99}


def pair(prompt, best, **known):
    return Comparison.pair((Message("user", prompt),), best, "worse", **known)


ROWS = [
    pair("what colour is the sky", "blue", id="sky", subset="colours", where="f, row 1"),
    pair("what colour is the grass", "green", id="grass"),
    pair("what colour is the sky", "azure", id="again"),
    pair("sing a song", "la", id="song"),
]


def texts(comparison):
    return comparison.prompt[0].content, *(r[0].content for r in comparison.responses)


def test_an_item_is_two_comparisons_of_the_same_two_answers():
    found = contrast_instructions(ROWS, **BAND)
    assert [c.id for c in found] == ["sky/q", "sky/r", "grass/q", "grass/r"]
    assert texts(found[0]) == ("what colour is the sky", "blue", "green")
    assert texts(found[1]) == ("what colour is the grass", "green", "blue")
    assert texts(found[2]) == ("what colour is the grass", "green", "blue")
    assert all(c.ranks == (0, 1) for c in found)
    assert (found[1].subset, found[1].where) == ("colours", "f, row 1")


def test_items_without_ids_of_their_own_are_numbered():
    same = [pair(f"what is {word}", word, id="x") for word in ("red", "blue")]
    assert [c.id for c in contrast_instructions(same, **BAND)] == ["0/q", "0/r", "1/q", "1/r"]


def test_a_scorer_that_is_blind_to_prompts_has_half_of_them_right():
    """R = length of the answer: right on exactly one of (y, y') and (y', y), whatever they are."""

    def length(comparisons):
        return [np.array([len(r[0].content) for r in c.responses]) for c in comparisons]

    found = contrast_instructions(ROWS, **BAND)
    rewards = length(found)
    assert accuracy(rewards, found).accuracy == 0.5
    # C_ins: the same answer under two prompts, first of "/q" and second of "/r", ties always.
    assert all(q[0] == r[1] for q, r in zip(rewards[::2], rewards[1::2], strict=True))


def test_raw_text_stays_raw_text():
    rows = [Comparison.pair(f"colour of {x}?", x, "no") for x in ("sky", "sea")]
    first = contrast_instructions(rows, **BAND)[0]
    assert (first.prompt, first.responses) == ("colour of sky?", ("sky", "sea"))
