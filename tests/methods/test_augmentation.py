"""RRM's augmentation: who borrows from whom, what is made, the filter, and ties in training."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrm import toy
from jaxrm.data import chat, packing
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.planning import pair_shape
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError, OptionError
from jaxrm.losses import preference, regularizers
from jaxrm.methods import augmentation as rrm
from jaxrm.models import heads


def pair(prompt, name, ranks=(0, 1), **known):
    """Responses "<name> good" and "<name> bad", in the order that `ranks` says."""
    texts = ("good", "bad") if ranks[0] <= ranks[1] else ("bad", "good")
    return Comparison(
        (Message("user", prompt),),
        tuple((Message("assistant", f"{name} {text}"),) for text in texts),
        ranks=ranks,
        id=name,
        **known,
    )


def texts(comparison):
    return [response[0].content for response in comparison.responses]


THREE = [pair("1", "a"), pair("2", "b", ranks=(1, 0)), pair("3", "c")]


def test_a_triple_makes_eight_and_six_by_hand():
    """With three rows each borrows from both others, in one order or the other."""
    made = rrm.augment(THREE, seed=0)[:14]
    assert {comparison.prompt for comparison in made} == {THREE[0].prompt}
    contextual = [texts(c) for c in made if c.subset == rrm.NON_CONTEXTUAL]
    borrowed = ("b good", "b bad", "c good", "c bad")
    wanted = {(own, other) for own in ("a good", "a bad") for other in borrowed}
    assert len(contextual) == 8
    assert {tuple(both) for both in contextual} == wanted
    neutral = [frozenset(texts(c)) for c in made if c.subset == rrm.NEUTRAL]
    assert len(neutral) == 6
    assert set(neutral) == {
        frozenset(both) for both in [(a, b) for a in borrowed for b in borrowed if a < b]
    }
    assert [c.ranks for c in made] == [(0, 1)] * 8 + [(0, 0)] * 6


def test_an_id_says_where_each_response_is_from():
    for comparison in rrm.augment(THREE, seed=1):
        named = re.findall(r"(\w)([+-])", comparison.id)
        said = [f"{name} {'good' if sign == '+' else 'bad'}" for name, sign in named]
        assert said == texts(comparison)
    nameless = [dataclasses.replace(c, id="") for c in THREE]
    assert rrm.augment(nameless, seed=1)[14].id.startswith("1+ ")


def test_what_graded_the_responses_elsewhere_is_left_out():
    graded = [dataclasses.replace(c, scores=(1.0, 0.0), margin=2.0, where="f:1") for c in THREE]
    for comparison in rrm.augment(graded, seed=0):
        assert comparison.scores is None
        assert comparison.margin is None
        assert comparison.where == "f:1"


def test_the_seed_alone_decides():
    many = [pair(str(i), f"r{i}") for i in range(20)]
    assert rrm.augment(many, 3) == rrm.augment(many, 3)
    assert rrm.augment(many, 3) != rrm.augment(many, 4)


@given(st.integers(3, 40), st.integers(0, 9))
def test_with_different_prompts_both_partners_are_derangements(n, seed):
    chosen = rrm.partners(range(n), seed)
    rows = np.arange(n)
    for column in chosen.T:
        assert sorted(column) == list(rows)
        assert (column != rows).all()
    assert (chosen[:, 0] != chosen[:, 1]).all()


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=3, max_size=25), st.integers(0, 9))
def test_the_three_prompts_always_differ(prompts, seed):
    if len(set(prompts)) < 3:
        with pytest.raises(DataError, match="at least 3 different prompts"):
            rrm.partners(prompts, seed)
        return
    for i, (j, k) in enumerate(rrm.partners(prompts, seed)):
        assert len({prompts[i], prompts[j], prompts[k]}) == 3


def test_rows_of_one_prompt_do_not_lend_to_each_other():
    rows = [pair("same", f"s{i}") for i in range(9)] + [pair("2", "b"), pair("3", "c")]
    for comparison in rrm.augment(rows, seed=0):
        borrowed = re.findall(r"(\w+)[+-]", comparison.id)[-1]
        assert comparison.prompt != next(c.prompt for c in rows if c.id == borrowed)


def test_rows_that_are_no_pairs_with_a_better_response_are_named():
    with pytest.raises(DataError, match=r"a: field 'ranks'.*one better response"):
        rrm.augment([dataclasses.replace(THREE[0], ranks=(0, 0)), *THREE[1:]], 0)
    with pytest.raises(DataError, match=r"a: field 'ranks'"):
        rrm.augment([dataclasses.replace(THREE[0], ranks=None), *THREE[1:]], 0)
    lone = dataclasses.replace(THREE[0], responses=THREE[0].responses[:1], ranks=(0,))
    with pytest.raises(DataError, match=r"a: field 'responses'.*here are 1"):
        rrm.augment([lone, *THREE[1:]], 0)
    with pytest.raises(DataError, match="found 2"):
        rrm.augment(THREE[:2], 0)
    raw = Comparison.pair("4", "d good", "d bad", where="raw.jsonl:4")
    with pytest.raises(DataError, match="responses"):
        rrm.augment([*THREE[:2], raw], 0)


def test_the_filter_keeps_labels_that_surprise():
    """sigmoid(1) = .731 differs by .269 from a label of 1, and by .231 from a tie; sigmoid(2) =
    .881 by .119; sigmoid(.5) = .622 by .122 from a tie; sigmoid(1) by .731 from a label of 0."""
    ordered, tie = pair("1", "a"), dataclasses.replace(pair("1", "t"), ranks=(0, 0))
    other = pair("1", "o", ranks=(1, 0))
    asked = [ordered, ordered, tie, tie, other, ordered]
    rewards = np.array([[1, 0], [3, 1], [0, 1], [0.5, 0], [1, 0], [-500.0, 500.0]])
    kept, remaining = rrm.confidently_wrong(asked, rewards)
    assert [c.id for c in kept] == ["a", "t", "o", "a"]
    assert [c.id for c in remaining] == ["a", "t"]
    assert len(rrm.confidently_wrong(asked, rewards, 0.25)[0]) == 3
    assert rrm.confidently_wrong([], np.zeros((0, 2))) == ([], [])


def test_the_filter_names_what_it_cannot_read():
    one = pair("1", "a")
    with pytest.raises(DataError, match="a: field 'rewards'"):
        rrm.confidently_wrong([one], np.array([[np.nan, 0.0]]))
    with pytest.raises(DataError, match="two ranks"):
        rrm.confidently_wrong([dataclasses.replace(one, ranks=None)], np.zeros((1, 2)))
    with pytest.raises(OptionError, match="threshold"):
        rrm.confidently_wrong([one], np.zeros((1, 2)), 0.0)
    with pytest.raises(ValueError, match="shape"):
        rrm.confidently_wrong([one], np.zeros((2, 2)))


def test_half_of_both_orders_is_a_tie():
    tie = dataclasses.replace(pair("1", "t"), ranks=(0, 0))
    one, other = rrm.both_orders([tie])
    assert (one.ranks, other.ranks) == ((0, 1), (1, 0))
    assert one.responses == other.responses == tie.responses
    assert (one.id, other.id) == ("t >", "t <")
    first, second = jnp.array([0.3]), jnp.array([-1.2])
    halves = preference.bradley_terry(first, second) + preference.bradley_terry(second, first)
    np.testing.assert_allclose(halves / 2, regularizers.neutral(first, second), rtol=1e-6)


class Hidden:
    """A model without states, whose rewards are patched in."""

    lora = None

    @staticmethod
    def hidden(batch, rng=None):
        return None


def test_ties_and_pairs_weigh_alike(monkeypatch):
    """A pair with rewards 0 and 1 costs log(1 + e) = 1.313262, a tie with 2 and 3
    (1.313262 + .313262) / 2 = .813262."""
    monkeypatch.setattr(
        heads, "rewards", lambda model, hidden, batch, rng: batch.response_index.astype(jnp.float32)
    )
    pairs = toy.World(0).comparisons("train", 5)
    tie = rrm.augment(pairs, 0)[8]
    trees = chat.tokenize([pairs[0], tie], load_tokenizer(toy.TOKENIZER))
    batch = packing.pack(trees, [[0, 1]], pair_shape(2, 160, "none"))
    term = rrm.rrm_loss(None)(Hidden, batch, None)["reward"]
    counted = np.asarray(term.weights) > 0
    np.testing.assert_allclose(np.asarray(term.weights)[counted], [1, 1])
    np.testing.assert_allclose(np.asarray(term.values)[counted], [1.313262, 0.813262], atol=1e-6)
