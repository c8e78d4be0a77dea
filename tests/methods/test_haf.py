"""HaF and DPO: losses at the base, HaF without its policy, and the rewards of a policy by hand."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from jaxrm import toy
from jaxrm.data import packing
from jaxrm.methods import haf
from jaxrm.methods.bench import Bench, Fitted
from jaxrm.methods.library import METHODS
from jaxrm.methods.method import REFERENCE_LOGPS
from jaxrm.methods.task import Model
from jaxrm.models import heads, transformer
from jaxrm.train.terms import Term, total_weight, weighted_sum
from tests.methods.small_base import small_base


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(small_base(tmp_path_factory.mktemp("base")), rows=4)


@pytest.fixture(scope="module")
def data(bench):
    return bench.pack(toy.World(0).comparisons("train", 10))


@pytest.fixture(scope="module")
def trees(bench, data):
    return bench.filled(data, (REFERENCE_LOGPS,)).trees


def test_the_loss_at_the_base_is_log_two_for_each_part(bench, trees):
    shape = bench.shape(bench, METHODS["haf"], trees)
    batch = packing.pack(trees, [[0], [1], [2]], shape)
    structure, params = bench.structure(), bench.start(0)

    def total(params, loss_fn):
        terms = loss_fn(transformer.merge(structure, params), batch, jax.random.key(0)).values()
        return sum(
            t.coefficient * weighted_sum(t.values, t.weights) / total_weight(t.weights)
            for t in terms
            if isinstance(t, Term)
        )

    both = functools.partial(total, loss_fn=haf.haf(0.2))
    policy = functools.partial(total, loss_fn=haf.dpo(0.1))
    zero_head = jax.tree.map(np.zeros_like, params["reward_head"])
    with jax.set_mesh(bench.devices):
        of_both = jax.jit(both)(params | {"reward_head": zero_head})
        of_policy, slopes = jax.jit(jax.value_and_grad(policy))(params)
    np.testing.assert_allclose(of_both, 1.2 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(of_policy, np.log(2), rtol=1e-5)
    assert not np.any(slopes.pop("reward_head")["weight"])
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(slopes)) > 1e-4


def test_without_its_policy_haf_is_bradley_terry(bench, trees):
    alone = bench.fit(METHODS["haf"], trees, rate=1e-3, strength=0.0).params
    baseline = bench.fit(METHODS["bt"], trees, rate=1e-3).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone, baseline)


def test_a_policy_that_is_the_reference_has_no_preference(bench, data, trees):
    dpo = METHODS["dpo"]
    begun = Fitted(bench.structure(), bench.start(0), steps=0)
    np.testing.assert_allclose(Model(bench, dpo, begun).scores(data), np.zeros((10, 2)), atol=1e-5)
    model = Model(bench, dpo, bench.fit(dpo, trees, rate=1e-2, strength=0.1))
    asked = bench.pack_trees(data.comparisons, data.trees, "all")
    logps = model.read(asked, {"logps": heads.response_logps})["logps"]
    reference = np.array([tree.columns["reference_logps"] for tree in trees])
    expected = haf.BETA * (logps - reference)
    np.testing.assert_allclose(model.scores(data), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.01
