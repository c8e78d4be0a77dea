"""Packed once, read often: what is read lies in its place, and nothing compiles twice."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data.comparison import Comparison
from jaxrm.data.store import with_columns
from jaxrm.models import heads, transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.read import reading
from jaxrm.read.accuracy import order_of
from jaxrm.read.packed import cosine_distance, pack, read
from tests.models.support import CONFIG, random_tree, small_model

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


@pytest.fixture(scope="module")
def options(mesh):
    return {"config": CONFIG, "mesh": mesh, "rows": 2, "row_length": 64, "ask": "all"}


def test_what_is_read_is_what_scoring_reads_in_order(mesh, options):
    model = small_model(CONFIG, HeadConfig())
    data = pack(*pairs(11), **options)
    assert len(data.batches) > 1
    with jax.set_mesh(mesh):
        packed = read(*transformer.split(model), data, BOTH)
    expected = reading.read(model, data.trees, BOTH, mesh=mesh, rows=1, row_length=256, ask="all")
    for name in BOTH:
        assert packed[name].shape == (11, 2)
        np.testing.assert_allclose(packed[name], np.stack(expected[name]), rtol=1e-4, atol=1e-5)


def test_other_pairs_and_other_parameters_share_the_compilation(mesh, options):
    structure, params = transformer.split(small_model(CONFIG, HeadConfig(), seed=1))

    def order(params, data):
        rewards = read(structure, params, data, {"rewards": heads.rewards})["rewards"]
        return order_of(rewards, data.comparisons)

    with jax.set_mesh(mesh):
        first = order(params, pack(*pairs(5), **options))
        compiled = reading._read_batch._cache_size()
        other = jax.tree.map(np.negative, params)
        second = order(other, pack(*pairs(9, seed=1), **options))
    assert reading._read_batch._cache_size() == compiled
    assert (first["n"], second["n"]) == (5, 9)


def test_longer_rows_carry_what_the_shorter_ones_do(options):
    rng = np.random.default_rng(0)
    columns = {"reference_logps": [(-1.0, -2.0)] * 2, "response_score": [(1.0, 0.0)] * 2}
    trees = with_columns([random_tree(rng, 3, (n, 2)) for n in (4, 100)], columns)
    comparisons, _ = pairs(2)
    packed = pack(comparisons, trees, **options | {"row_length": 32, "steps": 6})
    assert [batch.tokens.shape for batch in packed.batches] == [(2, 32), (1, 128)]
    for batch in packed.batches:
        np.testing.assert_array_equal(batch.reference_logps[batch.response_mask], [-1.0, -2.0])
        assert batch.step_end.shape[1] == 6


def test_only_comparisons_of_one_size_are_read_together(options):
    comparisons, _ = pairs(2)
    trees = [random_tree(np.random.default_rng(0), 3, lengths) for lengths in ((2,), (2, 2, 2))]
    with pytest.raises(ValueError, match="different numbers of responses"):
        read(None, None, pack(comparisons, trees, **options), BOTH)


def test_cosine_distance_by_hand():
    before = np.array([[[1.0, 0.0], [0.0, 2.0]]])
    after = np.array([[[0.0, 3.0], [0.0, 1.0]]])
    assert cosine_distance(before, after) == pytest.approx(0.5)
