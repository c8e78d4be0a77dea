"""The bench: what is trained and read there, for comparisons of any number of responses."""

from __future__ import annotations

import dataclasses
from typing import get_args

import jax
import numpy as np
import pytest

from jaxrm import toy
from jaxrm.data import packing, planning
from jaxrm.errors import DataError
from jaxrm.evaluate.probe import final_states
from jaxrm.losses import preference
from jaxrm.methods.bench import Bench
from jaxrm.methods.method import (
    REFERENCE_LOGPS,
    Fill,
    Method,
    bradley_terry,
    head_alone,
    pairwise,
)
from jaxrm.models import heads, transformer
from tests.methods.small_base import small_base

BT = Method("Bradley-Terry")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(small_base(tmp_path_factory.mktemp("base")), rows=2)


@pytest.fixture(scope="module")
def world():
    return toy.World(seed=0)


def test_a_fit_is_the_last_point_of_training_and_steps_take_the_place_of_epochs(bench, world):
    trees = bench.trees(world.comparisons("train", 20))
    loader = bench.loader(BT, trees, 0)
    assert loader.steps(2) == 2 * loader.steps(1) > 2
    fitted = bench.fit(BT, trees, rate=1e-2, steps=3)
    *_, last = bench.points(BT, trees, rate=1e-2, steps=3, count=3)
    assert fitted.steps == last.step == 3
    jax.tree.map(np.testing.assert_array_equal, fitted.params, jax.device_get(last.params))
    longer = bench.fit(BT, trees, rate=1e-2, epochs=2)
    assert longer.tokens == 2 * sum(map(packing.tree_length, trees))


def test_only_what_a_recipe_trains_moves_from_where_it_began(bench, world):
    start = bench.start(1)
    fitted = bench.fit(
        Method("", trains=head_alone), bench.trees(world.comparisons("train", 8)), rate=1.0, seed=1
    )
    np.testing.assert_array_equal(fitted.params["embedding"], start["embedding"])
    moved = fitted.params["reward_head"]["weight"] - start["reward_head"]["weight"]
    assert np.abs(moved).max() > 0.1


def test_pairs_of_rankings_are_trained_on_and_read_in_order(bench, world):
    rankings = world.comparisons("train", 6, k=4)
    trees = bench.trees(rankings)
    shape = bench.shape(bench, BT, trees)
    batch = packing.pack(trees, [[0, 1], [2]], shape)
    assert batch.pair_mask.sum() == 3 * 6
    np.testing.assert_allclose((batch.pair_weight * batch.pair_mask).sum(), 3)
    params = bench.start(0)
    found = bench.read(params, bench.pack(rankings, "all"), {"r": heads.rewards})["r"]
    assert found.shape == (6, 4)
    alone = bench.read(
        params, bench.pack(world.comparisons("train", 6, k=4)[2:3]), {"r": heads.rewards}
    )
    np.testing.assert_allclose(found[2], alone["r"][0], rtol=1e-5)


def test_a_pairwise_loss_is_a_term_over_pairs_by_their_weights(bench, world):
    trees = bench.trees(world.comparisons("train", 2, k=3))
    batch = packing.pack(trees, [[0], [1]], bench.shape(bench, BT, trees))
    margin = pairwise(lambda c, r, batch, strength: preference.bradley_terry(c, r, strength))
    model = transformer.merge(bench.structure(), bench.start(0))
    terms = margin(1000.0)(model, batch, jax.random.key(0))
    mean = (terms["reward"].values * terms["reward"].weights).sum() / terms["reward"].weights.sum()
    np.testing.assert_allclose(mean, 1000 - terms["margin"].summary().values, rtol=1e-4)
    plain = bradley_terry(None)(model, batch, jax.random.key(0))["reward"]
    np.testing.assert_array_equal(plain.weights, terms["reward"].weights)
    assert plain.coefficient == 1.0


def test_the_reference_is_the_base_itself(bench, world):
    data = bench.pack(world.comparisons("train", 3), "all")
    trees = bench.filled(data, (REFERENCE_LOGPS,)).trees
    logps = bench.read(bench.start(5), data, {"logps": heads.response_logps})["logps"]
    np.testing.assert_allclose(
        [tree.columns["reference_logps"] for tree in trees], logps, rtol=1e-6
    )
    assert (logps < 0).all()


def test_a_method_says_what_its_loss_reads_and_every_tree_must_have_it(bench, world):
    def loss(chosen, rejected, batch, strength):
        return preference.bradley_terry(chosen, rejected, batch.pairs(batch.reference_logps)[0])

    silent, said = (Method("", pairwise(loss), fills=fills) for fills in ((), (REFERENCE_LOGPS,)))
    data = bench.filled(bench.pack(world.comparisons("train", 4)), (REFERENCE_LOGPS,))
    trees = list(data.trees)
    with pytest.raises(DataError, match="this batch has no reference_logps"):
        bench.fit(silent, trees, rate=1e-3)
    assert bench.fit(said, trees, rate=1e-3, steps=1).steps == 1
    bare = dataclasses.replace(trees[3], columns={})
    with pytest.raises(DataError, match="comparison 3, counting from 0, has no reference_logps"):
        bench.fit(said, [*trees[:3], bare], rate=1e-3)


def test_the_base_fills_columns_of_any_width(bench, world):
    states = Fill("base_state", final_states)
    data = bench.pack(world.comparisons("train", 3))
    filled = bench.filled(data, (states, REFERENCE_LOGPS))
    expected = bench.read(bench.start(3), data, {"states": final_states})["states"]
    for tree, of_tree in zip(filled.trees, expected, strict=True):
        np.testing.assert_allclose(tree.columns["base_state"], of_tree, rtol=1e-5, atol=1e-6)
        assert tree.columns["reference_logps"].shape == (2,)
    shape = bench.shape(bench, Method("", fills=(states, REFERENCE_LOGPS)), filled.trees)
    assert [column.width for column in shape.columns] == [16, 0]


def test_a_comparison_longer_than_a_row_is_refused(bench, world):
    short = Bench(bench.base, rows=2, length=16)
    with pytest.raises(ValueError, match="a row holds"):
        short.fit(BT, short.trees(world.comparisons("train", 2)), rate=1e-3)


@pytest.mark.parametrize("split", get_args(toy.Split))
def test_one_shape_serves_every_split_and_one_plan_all_methods(bench, world, split):
    data = bench.pack(world.comparisons(split, 40))
    wanted = packing.pack([], [], planning.reading_shape(bench.rows, bench.length, "none"))
    for batch in data.batches:
        assert jax.tree.map(np.shape, batch) == jax.tree.map(np.shape, wanted)
    index = np.concatenate([b.response_index[b.response_mask] for b in data.batches])
    assert sorted(index) == list(range(80))
    plans = []
    for ask in get_args(packing.Ask):
        sizes = packing.measure(data.trees, ask=ask, preferences=True)
        shape = bench.shape(bench, Method("", ask=ask), data.trees)
        plans.append(planning.plan_epoch(sizes, shape, 0, 0))
    assert plans[0] == plans[1] == plans[2]
