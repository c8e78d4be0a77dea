"""The probe finds what is there and nothing else; its fit by hand, in any unit; what it refuses."""

import jax
import numpy as np
import pytest
import scipy.special

from jaxrm import parallel
from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError
from jaxrm.evaluate.probe import RIDGE, as_scorer, fit_head, probe
from jaxrm.huggingface import hub
from jaxrm.read.accuracy import accuracy
from jaxrm.read.packed import Packed, pack
from tests.evaluate.planted import pair
from tests.messages_oracle import FOLDER


def pairs(count):
    return [pair(f"{i}?", "a", "b") for i in range(count)]


def apart(*differences):
    """States of pairs that lie so far apart, better minus worse."""
    return [
        np.stack([np.asarray(d, np.float32), np.zeros(len(d), np.float32)]) for d in differences
    ]


def test_differences_that_are_all_alike_have_a_weight_by_hand():
    weight, nothing = fit_head(apart([2, 0], [2, 0], [2, 0]), pairs(3))
    # Over its root mean square of 2 each difference is 1, and -log sigmoid(w) + w^2 / 200 is least
    # where sigmoid(-w) = w / 100: near 3.36, for 1 / (1 + 28.8) = .0336.
    assert scipy.special.expit(-2 * weight) == pytest.approx(RIDGE * 2 * weight)
    assert 2 * weight == pytest.approx(3.36, abs=0.005)
    assert nothing == 0


def test_a_direction_counts_by_its_size_and_not_by_its_spread():
    # Nine differences of 1 and one of -1 have a root mean square of 1 and a deviation of .6.
    (weight,) = fit_head(apart(*[[1]] * 9, [-1]), pairs(10))
    missed = 0.9 * scipy.special.expit(-weight) - 0.1 * scipy.special.expit(weight)
    assert missed == pytest.approx(RIDGE * weight)


@pytest.mark.parametrize("unit", [1e-7, 1e4])
def test_the_unit_of_the_states_changes_no_reward(unit):
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(30, 3)) + 0.5
    plain = fit_head(apart(*differences), pairs(30))
    np.testing.assert_allclose(unit * fit_head(apart(*unit * differences), pairs(30)), plain, 1e-4)


def test_states_far_apart_do_not_overflow():
    with np.errstate(over="raise"):
        weights = fit_head(apart([1e6, 1], [1e6, -1], [-1, 1e6]), pairs(3))
    assert np.isfinite(weights).all()


TIE = Comparison("?", ("a", "b"), ranks=(0, 0), where="mine.jsonl, row 3")
ALONE = Comparison("?", ("a",), ranks=(0,), where="mine.jsonl, row 3")
UNRANKED = Comparison("?", ("a", "b"), where="mine.jsonl, row 3")


@pytest.mark.parametrize("comparisons", [[TIE], [ALONE], [UNRANKED], [TIE, TIE], []])
def test_without_an_order_there_is_nothing_to_fit(comparisons):
    where = "mine.jsonl, row 3" if comparisons else "comparison"
    states = [np.ones((len(c.responses), 2)) for c in comparisons]
    with pytest.raises(DataError, match=f"^{where}: field 'ranks'"):
        fit_head(states, comparisons)
    # Before the model is asked.
    for split in ((comparisons, pairs(1)), (pairs(1), comparisons)):
        with pytest.raises(DataError, match="field 'ranks'"):
            probe(None, *(Packed(rows, [], []) for rows in split), mesh=None)


def test_ties_among_ordered_comparisons_are_left_out():
    states = apart([1, 0], [0, 1])
    known = fit_head(states, pairs(2))
    np.testing.assert_array_equal(
        fit_head([states[0], np.ones((2, 2)), states[1]], [*pairs(1), TIE, *pairs(1)]), known
    )


def planted(seed, count, *, marked):
    """Pairs whose better answer begins "yes", or, unless `marked`, pairs of no difference."""
    rng = np.random.default_rng(seed)
    words = ["figs", "oats", "peas", "eggs", "seeds", "cheese", "apples", "grass"]
    rows = []
    for _ in range(count):
        said = [" ".join(rng.choice(words, 3)) for _ in range(2)]
        ends = "!." if marked else ".."
        answers = [
            (Message("assistant", text + end),) for text, end in zip(said, ends, strict=True)
        ]
        rows.append(Comparison((Message("user", "what?"),), tuple(answers), ranks=(0, 1)))
    return rows


@pytest.mark.parametrize(("marked", "low", "high"), [(True, 0.7, 1.0), (False, 0.35, 0.65)])
def test_the_probe_finds_what_states_hold(marked, low, high):
    model, tokenizer = hub.load(FOLDER, None), load_tokenizer(FOLDER)
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    both = [planted(seed, 100, marked=marked) for seed in (0, 1)]
    train, test = (
        pack(rows, chat.tokenize(rows, tokenizer), model.config, mesh=mesh, rows=2, row_length=256)
        for rows in both
    )
    found = probe(model, train, test, mesh=mesh)
    assert found.n == 100
    assert low <= found.accuracy <= high
    scorer = as_scorer(model, tokenizer, both[0], mesh=mesh, rows=2, row_length=256)
    assert accuracy(scorer(both[1]), both[1]).accuracy == found.accuracy
