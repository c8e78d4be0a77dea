"""Swapped prompts are always other prompts, and tell who reads them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.data.comparison import Comparison, Message, plain_text
from jaxrm.errors import DataError
from jaxrm.evaluate.diagnosis.blind import blind, swap_prompts
from tests.evaluate.planted import by_text, pair

PAIRS = [
    pair("red?", "red!", "blue!!"),
    pair("blue?", "blue!!", "red!"),
    pair("green?", "green", "red!"),
]


def follows_prompt(comparisons):
    """1 for an answer that begins with the question's word."""
    return [
        np.array([float(plain_text(r).startswith(plain_text(c.prompt)[:-1])) for r in c.responses])
        for c in comparisons
    ]


@given(
    st.lists(st.tuples(st.sampled_from("uar"), st.integers(0, 3)), min_size=1, max_size=12),
    st.integers(0, 5),
)
def test_no_comparison_keeps_its_prompt_or_changes_its_kind(drawn, seed):
    roles = {"u": "user", "a": "assistant"}
    prompts = [
        f"raw {n}" if kind == "r" else (Message("user", "hi"), Message(roles[kind], str(n)))
        for kind, n in drawn
    ]
    answers = tuple((Message("user", "so?"), Message("assistant", text)) for text in "xy")
    comparisons = [
        Comparison(p, ("x", "y") if isinstance(p, str) else answers, ranks=(0, 1), id=str(i))
        for i, p in enumerate(prompts)
    ]
    kinds = {kind: {n for of, n in drawn if of == kind} for kind, _ in drawn}
    if all(len(numbers) < 2 for numbers in kinds.values()):
        with pytest.raises(DataError, match="two or more distinct"):
            swap_prompts(comparisons, seed)
        return
    places, swapped = swap_prompts(comparisons, seed)
    assert places.tolist() == [i for i, (kind, _) in enumerate(drawn) if len(kinds[kind]) > 1]
    for i, other in zip(places, swapped, strict=True):
        own = comparisons[i]
        assert other.prompt != own.prompt
        assert other.prompt in prompts
        assert type(other.prompt) is type(own.prompt)
        if not isinstance(own.prompt, str):
            assert other.prompt[-1].role == own.prompt[-1].role
        assert dataclasses.replace(other, prompt=own.prompt) == own
    assert swap_prompts(comparisons, seed)[1] == swapped


def test_who_reads_the_answer_alone_loses_nothing():
    scorer = by_text(len)
    places, swapped = swap_prompts(PAIRS)
    found = blind(scorer(PAIRS), scorer(swapped), PAIRS, places)
    assert repr(found.own) == repr(found.swapped)  # NaN equals itself nowhere else
    assert found.own.value == pytest.approx(2 / 3)  # two of the three better answers are longer
    assert found.lost.value == 0
    assert np.isnan([found.lost.low, found.lost.high]).all()  # of three prompts
    assert found.same_order.value == 1.0
    assert (found.left_out, found.missing) == (0, 0)


def test_who_reads_the_prompt_loses_by_it():
    places, swapped = swap_prompts(PAIRS)
    found = blind(follows_prompt(PAIRS), follows_prompt(swapped), PAIRS, places)
    assert found.own.value == 1.0
    # No better answer is right for another question; ties are no wins.
    assert found.swapped.value == 0.0
    assert found.lost.value == 1.0
    assert found.same_order.value == 0.0


def test_what_has_no_other_prompt_and_no_reward_is_counted():
    alone = Comparison.pair("raw text", "a", "b")
    everything = [*PAIRS, alone]
    places, _ = swap_prompts(everything)
    assert places.tolist() == [0, 1, 2]
    scores = [np.array([1.0, 0]), np.array([1.0, 0]), np.array([1.0, np.nan]), np.array([0.0, 1])]
    other = [np.array([np.nan, 0]), np.array([1.0, 0]), np.array([1.0, 0])]
    found = blind(scores, other, everything, places)
    assert (found.left_out, found.missing) == (1, 2)
    assert found.own.value == pytest.approx(2 / 3)
    assert found.swapped.value == pytest.approx(2 / 3)
    assert (found.same_order.value, found.same_order.n) == (1.0, 1)


def test_a_single_prompt_cannot_be_swapped():
    same = [pair("one?", "a", "b", where="in.jsonl, row 1"), pair("one?", "c", "d")]
    with pytest.raises(DataError, match="in.jsonl, row 1: field 'prompt'"):
        swap_prompts(same)
