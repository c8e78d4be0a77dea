from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrm.data.packing import PackShape
from jaxrm.models import heads, transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.models.parameters import shapes
from jaxrm.models.transformer import Compute, RewardModel, create, merge, split
from jaxrm.parallel import MeshShape, ShardingRules, make_mesh, shard_rows, shardings
from tests.models.support import CONFIG, packed, random_tree, small_model

HEAD = HeadConfig("mlp", hidden=8)
SHAPE = PackShape(rows=4, length=24, slots=3, targets=16, ask="all")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(2)
    return packed([random_tree(rng, 6, (5, 4, 3)) for _ in range(4)], SHAPE)


@pytest.fixture(scope="module")
def fresh():
    return split(RewardModel(CONFIG, HEAD, seed=3))


@functools.partial(jax.jit, static_argnums=0)
def _loss_and_gradient(structure, params, batch):
    def loss(params):
        model = merge(structure, params)
        hidden = model.hidden(batch)
        logps = heads.response_logps(model, hidden, batch)
        return (heads.rewards(model, hidden, batch) ** 2).sum() - 0.1 * logps.sum()

    return jax.value_and_grad(loss)(params)


def _assert_close(ours, theirs, tolerance):
    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())

    jax.tree.map(close, ours, theirs)


def test_fresh_values_have_the_declared_scale(fresh):
    params = fresh[1]
    for name in ("query", "key", "value", "output", "gate", "up", "down"):
        assert float(params["layers"][name].std()) == pytest.approx(0.02, rel=0.1)
        first, second = params["layers"][name]
        assert (first != second).mean() > 0.99
    assert (params["layers"]["mlp_norm"] == 0).all()
    plain = dataclasses.replace(CONFIG, norm_offset=0.0)
    declared = transformer.declare(plain, None)
    assert (declared["final_norm"].init(jax.random.key(0), (3,)) == 1).all()


def test_a_model_created_in_shards_has_the_same_values(fresh):
    mesh = make_mesh(MeshShape(2, 2, 2))
    structure, params = split(create(CONFIG, HEAD, seed=3, mesh=mesh))
    assert structure == fresh[0]
    _assert_close(params, fresh[1], 1e-6)
    gate = params["layers"]["gate"]
    assert {shard.data.shape for shard in gate.addressable_shards} == {(2, 12, 20)}
    embedding = params["embedding"]
    assert {shard.data.shape for shard in embedding.addressable_shards} == {(61, 12)}
    declared = transformer.declare(CONFIG, HEAD)
    whole = transformer.placements(declared, mesh, ShardingRules(embed=None, mlp=None))
    assert whole["layers"]["gate"].is_fully_replicated


def test_split_and_merge_are_inverse_and_the_structure_is_hashable(fresh):
    structure, params = fresh
    assert isinstance(params["layers"]["query"], jax.Array)
    model = merge(structure, params)
    again, same = split(model)
    assert again == structure
    assert hash(again) == hash(structure)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    assert (model.config, model.head_config, model.compute) == (CONFIG, HEAD, Compute())
    other = split(small_model(CONFIG, HEAD, dtype="bfloat16"))[0]
    assert other != structure


def test_a_subclass_with_parameters_of_its_own_splits_and_merges_too():
    class Gated(RewardModel):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.gate = nnx.Param(jnp.ones(3), axes=("outputs",))

    plain = small_model(CONFIG, None)
    structure, params = split(Gated(CONFIG, None, params=split(plain)[1]))
    assert params["gate"].shape == (3,)
    assert transformer.axes(merge(structure, params))["gate"] == ("outputs",)


def test_axes_name_every_dimension_of_every_parameter(fresh):
    structure, params = fresh
    axes = transformer.axes(merge(structure, params))
    named = jax.tree.map(lambda value, names: len(names) == value.ndim, params, axes)
    assert jax.tree.all(named)
    assert axes["layers"]["query"] == ("layers", "embed", "heads", "head_dim")


def test_parameters_of_another_model_are_refused(fresh):
    with pytest.raises(ValueError, match="params are not those"):
        RewardModel(dataclasses.replace(CONFIG, vocab_size=62), HEAD, params=fresh[1])
    with pytest.raises(ValueError, match="params are not those"):
        RewardModel(CONFIG, None, params=fresh[1])


@pytest.fixture(scope="module")
def plain_result(batch):
    return _loss_and_gradient(*split(small_model(CONFIG, HEAD)), batch)


def test_eight_devices_compute_what_one_computes(batch, plain_result):
    mesh = make_mesh(MeshShape(2, 2, 2))
    model = small_model(CONFIG, HEAD)
    structure, params = split(model)
    placed = shardings(transformer.axes(model), params, mesh, ShardingRules())
    with jax.set_mesh(mesh):
        found = _loss_and_gradient(
            structure, jax.device_put(params, placed), shard_rows(batch, mesh)
        )
    _assert_close(found, plain_result, 1e-5)


def test_remat_changes_memory_and_nothing_else(batch):
    deep = dataclasses.replace(CONFIG, num_layers=6)
    expected, memory = None, {}
    for remat in ("none", "dots", "full"):
        structure, params = split(small_model(deep, HEAD, remat=remat))
        compiled = _loss_and_gradient.lower(structure, params, batch).compile()
        memory[remat] = compiled.memory_analysis().temp_size_in_bytes
        found = compiled(params, batch)
        expected = found if expected is None else expected
        _assert_close(found, expected, 1e-5)
    assert memory["none"] > 1.2 * memory["dots"] > 1.2 * 1.2 * memory["full"]


@functools.partial(jax.jit, static_argnums=0)
def _hidden(structure, params, batch):
    return merge(structure, params).hidden(batch)


def _hidden_with(batch, **changes):
    return _hidden(*split(small_model(dataclasses.replace(CONFIG, **changes), None)), batch)


@pytest.mark.parametrize(
    ("windows", "sees"), [((), True), ((1, 1), False), ((3, None), True), ((2, 2), False)]
)
def test_windows_limit_what_a_layer_sees(batch, windows, sees):
    earlier = batch.tokens.copy()
    earlier[0, 0] += 1
    last = batch.response_end[0, 0]
    before = _hidden_with(batch, windows=windows)[0, last]
    after = _hidden_with(dataclasses.replace(batch, tokens=earlier), windows=windows)[0, last]
    assert bool((before != after).any()) == sees


def test_the_attention_cap_is_applied(batch):
    plain, loose, tight = (_hidden_with(batch, attention_softcap=cap) for cap in (None, 1e4, 0.01))
    real = batch.comparison >= 0
    np.testing.assert_allclose(loose[real], plain[real], atol=1e-4)
    assert jnp.abs(tight - plain)[real].max() > 0.1


def test_a_token_beyond_the_vocabulary_is_not_read_as_another_one(batch):
    tokens = batch.tokens.copy()
    tokens[1, 0] = CONFIG.vocab_size
    hidden = _hidden_with(dataclasses.replace(batch, tokens=tokens))
    assert jnp.isnan(hidden[1, 0]).all()
    assert jnp.isfinite(hidden[0]).all()


def test_shapes_of_declarations_are_those_of_values(fresh):
    assert shapes(transformer.declare(CONFIG, HEAD)) == shapes(fresh[1])
