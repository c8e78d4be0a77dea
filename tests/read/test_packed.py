"""Pairs in batches of one shape: what is read lies in its place, and nothing compiles twice."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data import packing
from jaxrm.data.comparison import Comparison
from jaxrm.data.store import with_columns
from jaxrm.errors import DataError
from jaxrm.models import heads, transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.read import packed as module
from jaxrm.read import reading
from jaxrm.read.packed import (
    cosine_distance,
    of_rewards,
    order_of,
    pack_alike,
    pair_shape,
    read,
    reading_shape,
)
from tests.models.support import CONFIG, random_tree, small_model

SHAPE = reading_shape(2, 64, "all")
BOTH = {"rewards": heads.rewards, "logps": heads.response_logps}


def pairs(n, seed=0):
    """n pairs of one to twelve tokens a text, each in a subset "even" or "odd"."""
    rng = np.random.default_rng(seed)
    trees = [random_tree(rng, *rng.integers(1, 13, 1), rng.integers(1, 13, 2)) for _ in range(n)]
    subsets = ["odd" if i % 2 else "even" for i in range(n)]
    return [Comparison("", ("a", "b"), ranks=(0, 1), subset=subset) for subset in subsets], trees


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(devices=jax.devices()[:1])


def test_what_is_read_is_what_scoring_reads_in_order(mesh):
    model = small_model(CONFIG, HeadConfig())
    data = pack_alike(*pairs(11), SHAPE)
    assert len(data.batches) > 1
    with jax.set_mesh(mesh):
        found = read(*transformer.split(model), data, BOTH)
    expected = reading.read(model, data.trees, BOTH, mesh=mesh, rows=1, row_length=256, ask="all")
    for name in BOTH:
        assert found[name].shape == (11, 2)
        np.testing.assert_allclose(found[name], np.stack(expected[name]), rtol=1e-4, atol=1e-5)


def test_other_pairs_and_other_parameters_share_the_compilation(mesh):
    structure, params = transformer.split(small_model(CONFIG, HeadConfig(), seed=1))
    with jax.set_mesh(mesh):
        first = of_rewards(structure, params, pack_alike(*pairs(5), SHAPE))
        compiled = reading._read_batch._cache_size()
        other = jax.tree.map(np.negative, params)
        second = of_rewards(structure, other, pack_alike(*pairs(9, seed=1), SHAPE))
    assert reading._read_batch._cache_size() == compiled
    assert (first["n"], second["n"]) == (5, 9)


def test_figures_of_rewards_by_hand(monkeypatch):
    rewards = np.array([[2.0, 1.0], [0.0, 1.0], [5.0, 1.0]], np.float32)
    monkeypatch.setattr(module, "read", lambda *_: {"rewards": rewards})
    figures = of_rewards(None, None, pack_alike(*pairs(3), SHAPE))
    losses = [math.log1p(math.exp(-1)), math.log1p(math.exp(1)), math.log1p(math.exp(-4))]
    # Right, wrong, right: both of "even", none of "odd".
    expected = {"macro": 0.5, "accuracy": 2 / 3, "n": 3, "loss": sum(losses) / 3}
    assert figures == pytest.approx(expected)


def test_figures_follow_the_ranks_wherever_the_best_stands_and_pass_over_ties():
    rewards = np.array([[1.0, 2.0, 4.0], [5.0, 1.0, 1.0], [0.0, 9.0, 9.0]], np.float32)
    ranks = [(2, 1, 0), (1, 0, 1), (0, 0, 0)]
    comparisons = [Comparison("", ("a", "b", "c"), ranks=each) for each in ranks]

    def loss(*margins):
        return sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins)

    expected = {"n": 2, "accuracy": 0.5, "macro": 0.5, "loss": (loss(1, 2, 3) + loss(-4, 0)) / 2}
    assert order_of(rewards, comparisons) == pytest.approx(expected)
    with pytest.raises(DataError, match="ranks"):
        order_of(rewards[2:], comparisons[2:])


def test_longer_rows_carry_what_the_shorter_ones_do():
    rng = np.random.default_rng(0)
    columns = {"reference_logps": [(-1.0, -2.0)] * 2, "response_score": [(1.0, 0.0)] * 2}
    trees = with_columns([random_tree(rng, 3, (n, 2)) for n in (4, 100)], columns)
    comparisons, _ = pairs(2)
    shape = replace(reading_shape(2, 32, "none"), steps=6)
    packed = pack_alike(comparisons, trees, shape)
    assert [batch.tokens.shape[1] for batch in packed.batches] == [32, 128]
    for batch in packed.batches:
        np.testing.assert_array_equal(batch.reference_logps[batch.response_mask], [-1.0, -2.0])
    assert [batch.step_end.shape[1] for batch in packed.batches] == [6, 24]


def test_shapes_by_hand():
    shape = pair_shape(8, 160, "best")
    assert (shape.slots, shape.pairs, shape.groups, shape.group_size) == (20, 10, 10, 2)
    targets = {ask: pair_shape(8, 160, ask).targets for ask in ("none", "best", "all")}
    assert targets == {"none": 0, "best": 160, "all": 160}
    alone = reading_shape(8, 160, "best")
    assert (alone.slots, alone.pairs, alone.groups, alone.group_size) == (20, 0, 0, 0)


@pytest.mark.parametrize("ask", ["none", "best", "all"])
def test_a_row_is_full_of_tokens_first_however_long_the_best_response_is(ask):
    tree = random_tree(np.random.default_rng(0), 2, (155, 2))
    sizes = packing.measure([tree], ask=ask, preferences=True)
    assert (sizes <= pair_shape(8, 160, ask).capacity).all()


def test_only_comparisons_of_one_size_are_packed():
    comparisons, _ = pairs(2)
    trees = [random_tree(np.random.default_rng(0), 3, lengths) for lengths in ((2,), (2, 2, 2))]
    with pytest.raises(ValueError, match="different numbers of responses"):
        pack_alike(comparisons, trees, SHAPE)


def test_cosine_distance_by_hand():
    before = np.array([[[1.0, 0.0], [0.0, 2.0]]])
    after = np.array([[[0.0, 3.0], [0.0, 1.0]]])
    assert cosine_distance(before, after) == pytest.approx(0.5)
