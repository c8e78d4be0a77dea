"""SEAM by hand, its invariances, its sign in both modes, and the three ways to worse answers."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrm import parallel
from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError, OptionError
from jaxrm.evaluate import seam, similar
from jaxrm.evaluate.seam import Likelihoods
from tests.messages_oracle import FOLDER

P = np.array([0.5, 0.25, 0.125])
WORSE, GOLD = np.array([1.2, 0.9, 2.0]), 1.0
ONE = np.ones(3, int)


def test_by_hand():
    """eps = .2, 0 and 1: .5 * .2 + .125 * 1 = .225; ln .5 * .2 + ln .125 * 1 = -2.218071."""
    np.testing.assert_allclose(seam.errors(WORSE, GOLD), [0.2, 0, 1])
    np.testing.assert_allclose(seam.seam(WORSE, GOLD, np.log(P), ONE), 0.225)
    logs = seam.seam(WORSE, GOLD, np.log(P), ONE, mode="paper_log")
    np.testing.assert_allclose(logs, -2.218071, atol=1e-6)
    np.testing.assert_allclose(seam.seam(WORSE, GOLD, np.log(P), ONE, mode="errors"), 1.2)


def test_a_log_prob_is_that_of_a_token():
    """Four times the log-prob over four tokens is the same answer per token."""
    np.testing.assert_allclose(seam.seam(WORSE, GOLD, 4 * np.log(P), 4 * ONE), 0.225)


def test_several_instructions_at_once():
    rewards, gold = np.stack([WORSE, WORSE]), np.array([GOLD, 3.0])
    found = seam.seam(rewards, gold, np.log([P, P]), np.stack([ONE, ONE]))
    np.testing.assert_allclose(found, [0.225, 0])


numbers = st.floats(-5, 5, width=32)
hacks = st.lists(st.tuples(numbers, st.floats(-20, 0), st.integers(1, 9)), min_size=1, max_size=6)


def columns(found):
    rewards, logps, lengths = zip(*found, strict=True)
    return np.array(rewards), np.array(logps), np.array(lengths)


@given(hacks, numbers, numbers, st.floats(0.1, 9), st.sampled_from(["prob", "paper_log"]))
@settings(max_examples=60)
def test_a_shift_of_rewards_changes_nothing_and_a_stretch_stretches(found, gold, by, k, mode):
    rewards, logps, lengths = columns(found)
    value = seam.seam(rewards, gold, logps, lengths, mode)
    shifted = seam.seam(rewards + by, gold + by, logps, lengths, mode)
    np.testing.assert_allclose(shifted, value, atol=1e-9 * (1 + abs(by)) * 120)
    stretched = seam.seam(k * rewards, k * gold, logps, lengths, mode)
    np.testing.assert_allclose(stretched, k * value, rtol=1e-9, atol=1e-9)


@given(hacks, numbers)
@settings(max_examples=60)
def test_one_more_answer_never_lowers_prob_nor_raises_paper_log(found, gold):
    rewards, logps, lengths = columns(found)
    for mode, sign in (("prob", 1), ("paper_log", -1)):
        values = [
            seam.seam(rewards[:m], gold, logps[:m], lengths[:m], mode)
            for m in range(len(rewards) + 1)
        ]
        assert values[0] == 0
        assert (sign * np.diff(values) >= 0).all()


def test_no_error_is_zero_in_either_mode():
    for mode in ("prob", "paper_log"):
        assert seam.seam(WORSE, 2.0, np.log(P), ONE, mode) == 0


def test_what_is_no_length_or_no_mode_is_refused():
    with pytest.raises(ValueError, match="no token"):
        seam.seam(WORSE, GOLD, np.log(P), np.array([1, 0, 1]))
    with pytest.raises(ValueError, match="'log'"):
        seam.seam(WORSE, GOLD, np.log(P), ONE, mode="log")


def test_the_sign_trap():
    """Two instructions with the same error, .5: the policy likes one hack and never writes the
    other. Definition 1 calls the first worse, the paper's log form the second."""
    rewards = [np.array([0.0, 0.5])] * 2
    likely = Likelihoods([np.log([0.9, 0.8]), np.log([0.9, 0.01])], [np.ones(2, int)] * 2)
    prob = seam.of_sets(rewards, likely, "prob")
    logs = seam.of_sets(rewards, likely, "paper_log")
    np.testing.assert_allclose(prob, [0.4, 0.005])
    np.testing.assert_allclose(logs, [0.5 * np.log(0.8), 0.5 * np.log(0.01)])
    assert seam.worst_first(prob, "prob").tolist() == [0, 1]
    assert seam.worst_first(logs, "paper_log").tolist() == [1, 0]


def test_worst_first_is_stable_and_puts_the_unknown_last():
    values = np.array([np.nan, 1.0, 3.0, 1.0, 0.0])
    assert seam.worst_first(values, "prob").tolist() == [2, 1, 3, 4, 0]
    assert seam.worst_first(-values, "paper_log").tolist() == [2, 1, 3, 4, 0]


@pytest.mark.parametrize(("n", "fraction", "dropped"), [(10, 0.2, 2), (9, 0.2, 1), (100, 0.29, 29)])
def test_a_filter_drops_exactly_so_many(n, fraction, dropped):
    values = np.random.default_rng(0).permutation(n).astype(float)
    kept = seam.keep(values, "prob", fraction)
    assert kept.tolist() == [i for i in range(n) if values[i] < n - dropped]


def test_of_ties_a_filter_drops_the_first():
    assert seam.keep(np.zeros(5), "prob", 0.4).tolist() == [2, 3, 4]
    assert seam.keep(np.zeros(5), "paper_log", 0).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(OptionError, match=r"fraction must be in \[0, 1\]"):
        seam.keep(np.zeros(5), "prob", 1.5)


def test_planted_hacks_are_found():
    """50 instructions with 4 worse answers each and noise; in 10 one likely answer is prized."""
    rng = np.random.default_rng(0)
    planted = np.arange(50) % 5 == 0
    rewards = np.hstack([np.zeros((50, 1)), rng.normal(-1, 0.4, (50, 4))])
    rewards[planted, 1] = 1.0
    logps = np.hstack([np.full((50, 2), -1.0), np.full((50, 3), -6.0)])
    likely = Likelihoods(list(logps), [np.full(5, 2)] * 50)
    values = seam.of_sets(list(rewards), likely)
    assert set(seam.worst_first(values)[:10]) == set(np.flatnonzero(planted))


def test_disagreement_is_the_share_of_pairs_in_opposite_orders():
    """Three responses: rewards 3 > 2 > 1, likelihood b > a > c: one of three pairs is opposed."""
    rewards = [np.array([3.0, 2.0, 1.0]), np.array([1.0]), np.array([0.0, 0.0])]
    per_token = [np.array([-2.0, -1.0, -3.0]), np.array([-1.0]), np.array([-1.0, -2.0])]
    found = seam.disagreement(rewards, per_token)
    np.testing.assert_allclose(found, [1 / 3, np.nan, 0])


# The worse answers


def instruction(prompt, *responses, **known):
    answers = tuple((Message("assistant", text),) for text in responses)
    ranks = tuple(range(len(answers)))
    return Comparison((Message("user", prompt),), answers, ranks, **known)


def texts(comparison):
    return [response[-1].content for response in comparison.responses]


ROWS = [
    instruction("what colour is the sky", "it is blue", "no", id="sky", subset="s", where="row 1"),
    instruction("what colour is the sea", "it is green", "it is blue", id="sea"),
    instruction("sing a song", "la la", id="song"),
]


def test_contrast_borrows_the_gold_of_like_instructions():
    found = seam.contrast(ROWS, 2, low=0.1, high=0.99)
    assert [texts(s) for s in found] == [
        ["it is blue", "it is green"],
        ["it is green", "it is blue"],
        ["la la"],
    ]
    assert (found[0].ranks, found[0].id, found[0].subset, found[0].where) == (
        (0, 1),
        "sky",
        "s",
        "row 1",
    )


def test_given_answers_come_by_id_without_copies():
    worse = {"sky": ["red", "it is blue", "red"], "sea": [], "song": ["mi"]}
    found = seam.given(ROWS, worse)
    assert [texts(s) for s in found] == [["it is blue", "red"], ["it is green"], ["la la", "mi"]]
    assert found[0].ranks == (0, 1)
    with pytest.raises(DataError, match="row 1: field 'id': no worse answers for 'sky'"):
        seam.given(ROWS, {"sea": [], "song": []})


def test_of_ranks_takes_all_that_are_ranked_below_the_best():
    row = dataclasses.replace(instruction("q", "a", "b", "c", "d"), ranks=(1, 0, 0, 2))
    assert texts(seam.of_ranks([row])[0]) == ["b", "a", "d"]
    with pytest.raises(DataError, match="row 7: field 'ranks'"):
        seam.of_ranks([dataclasses.replace(row, ranks=None, where="row 7")])


def prizes(word):
    """A scorer that counts a word, and how often it was called."""

    def scorer(comparisons):
        scorer.calls += 1
        return [np.array([text.split().count(word) for text in texts(c)]) for c in comparisons]

    scorer.calls = 0
    return scorer


def test_the_search_climbs_to_what_the_scorer_prizes():
    """Each step can exchange one of three words: three rounds reach "hack hack hack"."""
    scorer = prizes("hack")
    found = seam.adversarial(
        [instruction("q", "one two three", id="q"), instruction("r", "42", id="r")],
        scorer,
        lambda word: ["hack", "dull"] if word.isalpha() and word != "hack" else [],
        rounds=3,
        proposals=20,
    )
    assert texts(found[0])[:2] == ["one two three", "hack hack hack"]
    assert all("hack" in text for text in texts(found[0])[1:])
    assert texts(found[1]) == ["42"]
    assert scorer.calls == 4  # the gold responses, and once a round for all


def test_the_search_keeps_only_what_beats_the_gold_response():
    row = instruction("q", "hack", id="q")
    found = seam.adversarial([row], prizes("hack"), lambda word: ["dull", "dry"])
    assert texts(found[0]) == ["hack"]


def test_the_search_keeps_the_k_highest_and_repeats_itself():
    rows = [instruction(f"q{i}", "a b c d", id=f"q{i}") for i in range(4)]

    def search(rows, seed):
        found = seam.adversarial(
            rows, prizes("x"), lambda word: list("xyz"), k=2, rounds=4, proposals=3, seed=seed
        )
        return [texts(s) for s in found]

    first = search(rows, 0)
    assert first == search(rows, 0)
    assert first != search(rows, 1)
    assert len({tuple(found) for found in first}) > 1  # instructions do not search in step
    for found in first:
        counts = [text.split().count("x") for text in found]
        assert counts[0] == 0
        assert len(counts) == 3
        assert counts[1] >= counts[2] > 0
    with pytest.raises(OptionError, match="proposals must be at least 1"):
        seam.adversarial(rows, prizes("x"), list, proposals=0)


def test_raw_text_is_rewritten_too():
    row = Comparison("q", ("one",), ranks=(0,))

    def scorer(comparisons):
        return [np.array([float(text == "two") for text in c.responses]) for c in comparisons]

    found = seam.adversarial([row], scorer, lambda word: ["two"])
    assert found[0].responses == ("one", "two")


def test_words_in_like_places():
    """ "red" and "blue" share "is _ ." twice and "a _ car" once; "big" shares the latter alone."""
    substitutes = seam.words_in_like_places(
        ["it is red", "it is blue", "a red car", "a blue car", "a big car"]
    )
    assert substitutes("red") == ("blue", "big")
    assert substitutes("big") == ("blue", "red")
    assert substitutes("it") == substitutes("unseen") == ()
    narrow = seam.words_in_like_places(["it is red", "it is blue", "it is big"], limit=1)
    assert narrow("red") == ("big",)


# More data


def test_pairs_for_the_reward_model_are_of_the_worst_alone():
    sets = seam.given(ROWS, {"sky": ["r1", "r2", "r3"], "sea": ["r4"], "song": []})
    found = seam.for_reward_model(sets, [1, 0], each=2)
    assert [(c.id, texts(c)) for c in found] == [
        ("sea/seam-0", ["it is green", "r4"]),
        ("sky/seam-0", ["it is blue", "r1"]),
        ("sky/seam-1", ["it is blue", "r2"]),
    ]
    assert all(c.ranks == (0, 1) for c in found)


def test_samples_for_the_policy_are_gold_responses_none_twice():
    lent = [[1, 2], [0], []]
    found = seam.for_policy(ROWS, lent, [0, 1], each=2)
    assert [(c.id, texts(c)) for c in found] == [("sky", ["it is blue"]), ("sea", ["it is green"])]
    assert [c.id for c in seam.for_policy(ROWS, lent, [0], each=3)] == ["sky", "sea", "song"]
    assert similar.borrowed(ROWS, 5, low=0.1, high=0.99) == [[1], [0], []]


# The policy


def test_likelihoods_are_those_of_the_model_in_the_directory():
    """Against the log-prob of an answer by itself, and its targets counted."""
    rows = [instruction("What is a cat?", "An animal.", "A"), instruction("What is a cat?", "A")]
    options = {"mesh": parallel.make_mesh(devices=jax.devices()[:1]), "row_length": 64, "rows": 1}
    found = seam.likelihoods(FOLDER, rows, **options)
    assert [len(logps) for logps in found.logps] == [2, 1]
    np.testing.assert_allclose(found.logps[0][1], found.logps[1][0], rtol=1e-4)
    assert found.logps[0][0] != found.logps[0][1]
    trees = chat.tokenize(rows, load_tokenizer(FOLDER))
    assert [n.tolist() for n in found.lengths] == [
        [int(branch.targets.sum()) for branch in tree.branches] for tree in trees
    ]
    np.testing.assert_allclose(found.per_token[0], found.logps[0] / found.lengths[0])
    assert (found.per_token[0] < 0).all()
