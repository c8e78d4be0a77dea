"""Pseudo-labels: what is kept, which way round, that no comparison is lost, and when it ends."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import DataError, OptionError
from jaxrm.methods import self_training
from jaxrm.methods.self_training import Selection, confident, of_rewards, self_train, separated


def asked(name, *responses, **known):
    return Comparison(
        (Message("user", f"{name}?"),),
        tuple((Message("assistant", text),) for text in responses or ("x", "y")),
        id=name,
        **known,
    )


def pool(n):
    return [asked(str(i)) for i in range(n)]


def labels(selection):
    return {comparison.id: comparison.ranks for comparison in selection.kept}


def test_a_reward_difference_of_log_4_is_a_probability_of_8_in_10():
    found = of_rewards(np.array([[1.3862944, 0], [0, 1.3862944], [7, 7], [-1000, 1000]]))
    np.testing.assert_allclose(found, [0.8, 0.2, 0.5, 0.0], atol=1e-7)


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_probabilities_of_both_orders_add_up_to_1(a, b):
    found = of_rewards(np.array([[a, b], [b, a]]))
    np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-12)


def test_ser_does_not_depend_on_the_level_of_rewards():
    rewards = np.random.default_rng(0).normal(size=(40, 2))
    one, other = (self_training.ser(pool(40), rewards + level) for level in (0.0, 7.0))
    assert 0 < len(one.kept) < 40
    assert one.kept == other.kept


def test_ssrm_keeps_what_is_above_the_threshold_and_flips_what_is_below_a_half():
    selection = confident(pool(6), np.array([0.81, 0.8, 0.2, 0.19, 0.5, 1.0]))
    assert labels(selection) == {"0": (0, 1), "3": (1, 0), "5": (0, 1)}
    assert [c.id for c in selection.remaining] == ["1", "2", "4"]
    assert selection.flipped == 1
    assert all(c.ranks is None for c in selection.remaining)


def test_indifference_is_never_a_label():
    assert confident(pool(1), np.array([0.5]), threshold=0.5).kept == []


def test_the_label_of_a_pool_is_not_looked_at():
    known = asked("a", ranks=(0, 1), margin=3.0)
    (kept,) = confident([known], np.array([0.1])).kept
    assert (kept.ranks, kept.margin) == ((1, 0), None)


@pytest.mark.parametrize(
    ("first", "second", "ranks"),
    [
        (0.56, 0.44, (0, 1)),  # two sides
        (0.44, 0.56, (1, 0)),
        (0.55, 0.44, None),  # .55 is not above .55, and .11 apart
        (0.56, 0.45, None),  # .45 is not below .45
        (0.95, 0.64, (0, 1)),  # more than .3 apart
        (0.64, 0.95, (1, 0)),
        (0.5, 0.2, None),  # exactly .3 apart
        (0.2, 0.5, None),
        (0.5, 0.5, None),
        (1.0, 0.0, (0, 1)),
    ],
)
def test_ser_by_its_truth_table(first, second, ranks):
    selection = separated(pool(1), np.array([[first, second]]))
    assert labels(selection) == ({} if ranks is None else {"0": ranks})
    assert selection.flipped == (ranks == (1, 0))
    assert len(selection.kept) + len(selection.remaining) == 1


shares = st.floats(0, 1)


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=8))
def test_exchanging_the_responses_exchanges_the_labels(scores):
    scores, opposite = np.array(scores), {(0, 1): (1, 0), (1, 0): (0, 1)}
    one, other = separated(pool(len(scores)), scores), separated(pool(len(scores)), scores[:, ::-1])
    assert labels(other) == {name: opposite[ranks] for name, ranks in labels(one).items()}
    assert one.flipped + other.flipped == len(one.kept)


@given(st.lists(shares, max_size=8), st.floats(0.5, 0.99))
def test_no_comparison_is_lost(probabilities, threshold):
    given_pool = pool(len(probabilities))
    selection = confident(given_pool, np.array(probabilities), threshold)
    names = [c.id for c in selection.kept] + [c.id for c in selection.remaining]
    assert sorted(names) == sorted(c.id for c in given_pool)


def test_what_cannot_be_a_label_is_named():
    for wrong in (np.nan, 1.1, -0.1):
        with pytest.raises(DataError, match="1: field 'probabilities': must be from 0 to 1"):
            confident(pool(2), np.array([0.5, wrong]))
    with pytest.raises(DataError, match="0: field 'scores'"):
        separated(pool(1), np.array([[0.5, np.nan]]))
    with pytest.raises(DataError, match="k: field 'responses'.*here are 3"):
        confident([asked("k", "a", "b", "c")], np.array([0.9]))
    with pytest.raises(ValueError, match="shape"):
        confident(pool(2), np.array([0.5]))
    for threshold in (0.4, 1.0):
        with pytest.raises(OptionError, match="threshold"):
            confident(pool(1), np.array([0.5]), threshold)
    with pytest.raises(OptionError, match="low and high"):
        separated(pool(1), np.zeros((1, 2)), high=0.4, low=0.5)
    with pytest.raises(OptionError, match="gap"):
        separated(pool(1), np.zeros((1, 2)), gap=-0.1)


class Trainer:
    """Trains models that give rewards from a list by name, another list each time."""

    def __init__(self, *models):
        self.models, self.trained = list(models), []

    def __call__(self, comparisons):
        self.trained.append([(c.id, c.ranks) for c in comparisons])
        known = self.models[len(self.trained) - 1]
        return lambda asked: [np.array([known[int(c.id)], 0.0]) for c in asked]


def sure(comparisons, rewards):
    return confident(comparisons, of_rewards(rewards))


SEED = [dataclasses.replace(asked("s"), ranks=(0, 1))]


def test_what_is_labelled_leaves_the_pool_and_keeps_its_label():
    """Round 1 is sure of 0 and of the flipped 1; round 2 of 2, and is not asked again of 0."""
    train = Trainer([5, -5, 0, 0], [-5, 5, 5, 0], [9, 9, 9, 9])
    found = self_train(SEED, pool(4), train, sure, rounds=2)
    first, second = found.rounds
    assert first.counts == {"pool": 4, "kept": 2, "flipped": 1, "remaining": 2, "trained": 3}
    assert second.counts == {"pool": 2, "kept": 1, "flipped": 0, "remaining": 1, "trained": 4}
    assert train.trained[1] == [("s", (0, 1)), ("0", (0, 1)), ("1", (1, 0))]
    assert train.trained[2] == [*train.trained[1], ("2", (0, 1))]
    assert [c.id for c in found.training] == ["s", "0", "1", "2"]
    assert [c.id for c in found.pool] == ["3"]
    assert found.scorer(pool(1))[0][0] == 9  # the last model's


def test_it_ends_with_the_last_model_when_nothing_is_kept():
    train = Trainer([5, 0], [0, 0])
    found = self_train(SEED, pool(2), train, sure, rounds=5)
    assert [one.counts["kept"] for one in found.rounds] == [1, 0]
    assert found.rounds[-1].trained == 0
    assert len(train.trained) == 2
    assert [c.id for c in found.pool] == ["1"]


def test_it_ends_when_the_pool_is_empty():
    train = Trainer([5, 5], [0, 0])
    found = self_train(SEED, pool(2), train, sure, rounds=5)
    assert [one.counts["remaining"] for one in found.rounds] == [0]
    assert len(train.trained) == 2
    assert found.pool == []


def test_nothing_to_begin_with_is_an_error():
    train = Trainer([0])
    with pytest.raises(DataError, match="labelled comparisons to begin with"):
        self_train([], pool(1), train, sure, rounds=1)
    with pytest.raises(DataError, match="it is empty"):
        self_train(SEED, [], train, sure, rounds=1)
    with pytest.raises(DataError, match="k: field 'responses'"):
        self_train(SEED, [asked("k", "a")], train, sure, rounds=1)
    with pytest.raises(OptionError, match="rounds"):
        self_train(SEED, pool(1), train, sure, rounds=0)
    assert train.trained == []


def test_a_selection_may_label_all_at_once():
    everything = Selection([dataclasses.replace(c, ranks=(0, 1)) for c in pool(3)], [], 0)
    found = self_train(SEED, pool(3), Trainer([0] * 3, [0] * 3), lambda *_: everything, rounds=2)
    assert found.rounds[0].counts["trained"] == 4


def test_a_policy_learns_from_its_best_and_worst_sample():
    samples = [asked("a", "p", "q", "r"), asked("b", "p", "q")]
    (only,) = self_training.best_and_worst(samples, [np.array([1, 3, -2]), np.array([4, 4])])
    assert [r[0].content for r in only.responses] == ["q", "r"]
    assert (only.id, only.ranks) == ("a", (0, 1))
    with pytest.raises(DataError, match="b: field 'rewards'"):
        self_training.best_and_worst(samples[1:], [np.array([np.inf, 0])])
    with pytest.raises(DataError, match="two samples"):
        self_training.best_and_worst([asked("c", "p")], [np.array([1.0])])


def test_a_reward_model_learns_from_the_newer_sample_over_the_older():
    newer, older = [asked("a", "new")], [asked("a", "old")]
    (only,) = self_training.newer_over_older(newer, older)
    assert [r[0].content for r in only.responses] == ["new", "old"]
    assert only.ranks == (0, 1)
    with pytest.raises(DataError, match="a: field 'prompt'"):
        self_training.newer_over_older(newer, [asked("b", "old")])
    with pytest.raises(DataError, match="one sample of each"):
        self_training.newer_over_older(newer, [asked("a", "old", "older")])


def test_pairs_at_the_tolerance_are_dropped():
    pairs = pool(4)
    rewards = np.array([[0.0, 0.5], [0.0, 0.49], [0.0, 0.51], [1.0, 0.0]])
    kept, dropped = self_training.not_refuted(pairs, rewards, tolerance=0.5)
    assert [c.id for c in kept] == ["1", "3"]
    assert [c.id for c in dropped] == ["0", "2"]
    # At a tolerance of 0 what is equal is dropped.
    assert self_training.not_refuted(pairs[:1], np.zeros((1, 2)), 0.0)[0] == []
    with pytest.raises(DataError, match="0: field 'rewards'"):
        self_training.not_refuted(pairs[:1], np.array([[np.nan, 0]]), 0.5)
    with pytest.raises(OptionError, match="tolerance"):
        self_training.not_refuted(pairs, rewards, -0.5)


def test_it_goes_on_while_the_newer_policy_wins_often_enough():
    rewards = np.array([[1, 0], [0, 1], [2, 2], [5, 0]])  # 2.5 of 4
    assert self_training.keeps_winning(rewards, least=0.625)
    assert not self_training.keeps_winning(rewards, least=0.63)
    with pytest.raises(DataError, match="win rate"):
        self_training.keeps_winning(np.zeros((0, 2)), 0.5)
    with pytest.raises(DataError, match="win rate"):
        self_training.keeps_winning(np.array([[np.nan, 0]]), 0.5)
    with pytest.raises(OptionError, match="least"):
        self_training.keeps_winning(rewards, 1.5)
