"""The laboratory: what is trained and read there, for comparisons of any number of responses."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxrm import toy
from jaxrm.data import packing
from jaxrm.data.carried import REFERENCE
from jaxrm.errors import DataError
from jaxrm.losses import preference
from jaxrm.models import heads, transformer
from jaxrm.study import recipe
from jaxrm.study.lab import Lab
from jaxrm.study.recipe import Recipe, head_alone, pairwise
from tests.study.small_base import small_base


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(small_base(tmp_path_factory.mktemp("base")), rows=2)


@pytest.fixture(scope="module")
def world():
    return toy.World(seed=0)


def test_a_fit_is_the_last_point_of_training_and_steps_take_the_place_of_epochs(lab, world):
    trees = lab.trees(world.comparisons("train", 20))
    assert lab.steps(Recipe(), trees, 2, 0) == 2 * lab.steps(Recipe(), trees, 1, 0) > 2
    fitted = lab.fit(Recipe(), trees, rate=1e-2, steps=3)
    *_, last = lab.train(Recipe(), trees, rate=1e-2, steps=3, points=3)
    assert fitted.steps == last.step == 3
    jax.tree.map(np.testing.assert_array_equal, fitted.params, jax.device_get(last.params))
    longer = lab.fit(Recipe(), trees, rate=1e-2, epochs=2)
    assert longer.tokens == 2 * sum(map(packing.tree_length, trees))


def test_only_what_a_recipe_trains_moves_from_where_it_began(lab, world):
    start = lab.start(1).params
    fitted = lab.fit(
        Recipe(trains=head_alone), lab.trees(world.comparisons("train", 8)), rate=1.0, seed=1
    )
    np.testing.assert_array_equal(fitted.params["embedding"], start["embedding"])
    moved = fitted.params["reward_head"]["weight"] - start["reward_head"]["weight"]
    assert np.abs(moved).max() > 0.1


def test_pairs_of_rankings_are_trained_on_and_read_in_order(lab, world):
    rankings = world.comparisons("train", 6, k=4)
    trees = lab.trees(rankings)
    shape = lab.shape(Recipe(responses=4))
    batch = packing.pack(trees, [[0, 1], [2]], shape)
    assert batch.pair_mask.sum() == 3 * 6
    np.testing.assert_allclose((batch.pair_weight * batch.pair_mask).sum(), 3)
    params = lab.start(0).params
    found = lab.read(params, lab.pack(rankings, "all"), {"r": heads.rewards})["r"]
    assert found.shape == (6, 4)
    alone = lab.read(
        params, lab.pack(world.comparisons("train", 6, k=4)[2:3]), {"r": heads.rewards}
    )
    np.testing.assert_allclose(found[2], alone["r"][0], rtol=1e-5)


def test_a_pairwise_loss_is_a_term_over_pairs_by_their_weights(lab, world):
    shape = lab.shape(Recipe(responses=3))
    batch = packing.pack(lab.trees(world.comparisons("train", 2, k=3)), [[0], [1]], shape)
    margin = pairwise(lambda c, r, batch, strength: preference.bradley_terry(c, r, strength))
    model = transformer.merge(lab.start(0).structure, lab.start(0).params)
    terms = margin(1000.0)(model, batch, jax.random.key(0))
    mean = (terms["reward"].values * terms["reward"].weights).sum() / terms["reward"].weights.sum()
    np.testing.assert_allclose(mean, 1000 - terms["margin"].summary().values, rtol=1e-4)
    plain = recipe.bradley_terry(None)(model, batch, jax.random.key(0))["reward"]
    np.testing.assert_array_equal(plain.weights, terms["reward"].weights)
    assert plain.coefficient == 1.0


def test_the_reference_is_the_base_itself(lab, world):
    data = lab.pack(world.comparisons("train", 3), "all")
    trees = lab.with_references(data)
    logps = lab.read(lab.start(5).params, data, {"logps": heads.response_logps})["logps"]
    np.testing.assert_allclose(
        [tree.columns["reference_logps"] for tree in trees], logps, rtol=1e-6
    )
    assert (logps < 0).all()


def test_a_recipe_says_what_its_loss_reads_and_every_tree_must_have_it(lab, world):
    def loss(chosen, rejected, batch, strength):
        return preference.bradley_terry(chosen, rejected, batch.pairs(batch.reference_logps)[0])

    silent, said = Recipe(pairwise(loss)), Recipe(pairwise(loss), columns=(REFERENCE,))
    trees = lab.with_references(lab.pack(world.comparisons("train", 4), "all"))
    with pytest.raises(DataError, match="this batch has no reference_logps"):
        lab.fit(silent, trees, rate=1e-3)
    assert lab.fit(said, trees, rate=1e-3, steps=1).steps == 1
    bare = dataclasses.replace(trees[3], columns={})
    with pytest.raises(DataError, match="comparison 3, counting from 0, has no reference_logps"):
        lab.fit(said, [*trees[:3], bare], rate=1e-3)
    with pytest.raises(DataError, match="comparison 4, .* has 3 responses, but a group"):
        lab.fit(said, [*trees, *lab.trees(world.comparisons("train", 1, k=3))], rate=1e-3)


def test_a_comparison_longer_than_a_row_is_refused(lab, world):
    short = Lab(lab.base, rows=2, length=16)
    with pytest.raises(ValueError, match="a row holds"):
        short.fit(Recipe(), short.trees(world.comparisons("train", 2)), rate=1e-3)
