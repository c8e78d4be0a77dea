"""Low-rank updates: what they add, what they leave alone, and what merging makes of them."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data.packing import PackShape
from jaxrm.errors import OptionError
from jaxrm.models import lora as lora_module
from jaxrm.models import transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig, apply_update, declare_update
from jaxrm.models.parameters import initialise
from jaxrm.models.transformer import RewardModel, declare, merge, split
from tests.models.support import CONFIG, packed, random_tree

EVERYWHERE = ("query", "key", "value", "output", "gate", "up", "down")
LORA = LoraConfig(rank=3, alpha=5.0, dropout=0.5, targets=EVERYWHERE)
BATCH = packed(
    [random_tree(np.random.default_rng(0), 5, (4, 3))],
    PackShape(rows=2, length=24, slots=2, targets=16, ask="all"),
)


def updated_model(lora: LoraConfig = LORA) -> RewardModel:
    """A model whose updates are far from 0."""
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda p: jnp.asarray(0.2 * rng.standard_normal(p.shape), jnp.float32),
        declare(CONFIG, HeadConfig(), lora),
    )
    return RewardModel(CONFIG, HeadConfig(), lora, params=params)


@functools.partial(jax.jit, static_argnums=0)
def _hidden(structure, params, rng):
    return merge(structure, params).hidden(BATCH, rng)


def hidden(model, rng=None):
    return _hidden(*split(model), rng)


def real(states):
    return np.asarray(states)[np.asarray(BATCH.comparison) >= 0]


def test_one_update_by_hand():
    lora = LoraConfig(rank=2, alpha=3.0, targets=("query",))
    a, b = jnp.array([[1.0, 0.0], [2.0, 1.0]]), jnp.array([[[10.0], [1.0]], [[100.0], [0.0]]])
    found = apply_update(lora, {"query_a": a, "query_b": b}, "query", jnp.array([[1.0, 1.0]]), None)
    # x a = [3, 1]; times b = [[130], [3]]; times alpha / rank.
    np.testing.assert_allclose(found, [[[195.0], [4.5]]])
    assert apply_update(lora, {}, "key", a, None) == 0.0


@pytest.mark.parametrize(("rank_stabilised", "scale"), [(False, 2.0), (True, 8 / 2)])
def test_scale(rank_stabilised, scale):
    lora = LoraConfig(rank=4, alpha=8.0, rank_stabilised=rank_stabilised)
    assert lora.scale == scale


def test_a_fresh_update_changes_nothing():
    base = RewardModel(CONFIG, HeadConfig(), seed=3)
    fresh = RewardModel(CONFIG, HeadConfig(), LORA, seed=3)
    np.testing.assert_array_equal(real(hidden(fresh)), real(hidden(base)))
    a = split(fresh)[1]["lora"]["down_a"]
    bound = CONFIG.intermediate_size**-0.5
    assert np.abs(a).max() <= bound
    assert np.abs(a).std() > bound / 5


def test_without_lora_is_the_base_and_merged_is_the_whole():
    model = updated_model()
    structure, params = split(model)
    params.pop("lora")
    base = RewardModel(CONFIG, HeadConfig(), params=params)
    np.testing.assert_array_equal(real(hidden(model.without_lora())), real(hidden(base)))

    whole = hidden(model)
    assert np.abs(real(whole) - real(hidden(base))).max() > 0.1
    merged = model.merged()
    assert merged.lora is None
    np.testing.assert_allclose(real(hidden(merged)), real(whole), rtol=1e-4, atol=1e-5)
    assert structure == split(model)[0], "the model itself stays as it was"


@pytest.mark.parametrize("target", EVERYWHERE)
def test_every_projection_can_be_the_only_one(target):
    lora = dataclasses.replace(LORA, targets=(target,))
    model = updated_model(lora)
    assert set(split(model)[1]["lora"]) == {f"{target}_a", f"{target}_b"}
    whole = real(hidden(model))
    assert np.abs(whole - real(hidden(model.without_lora()))).max() > 1e-2
    np.testing.assert_allclose(real(hidden(model.merged())), whole, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_alone_and_differs_by_key():
    model = updated_model()
    scored = real(hidden(model))
    one, other = (real(hidden(model, jax.random.key(i))) for i in (0, 1))
    assert np.abs(one - scored).max() > 1e-2
    assert np.abs(one - other).max() > 1e-2
    off = updated_model(dataclasses.replace(LORA, dropout=0.0))
    np.testing.assert_array_equal(real(hidden(off, jax.random.key(0))), scored)


def test_every_layer_and_projection_has_a_dropout_of_its_own(monkeypatch):
    keys = []

    def recorded(x, rate, key):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return x

    monkeypatch.setattr(lora_module, "dropout", recorded)
    with jax.disable_jit():  # a scan is then a loop, whose keys are numbers
        updated_model().hidden(BATCH, jax.random.key(0))
    assert len(keys) == len(set(keys)) == CONFIG.num_layers * len(EVERYWHERE)


def test_updates_and_their_dropout_are_the_same_on_a_mesh():
    mesh = parallel.make_mesh(parallel.MeshShape(2, 2, 2))
    model = updated_model()
    structure, params = split(model)
    placement = transformer.placements(
        declare(CONFIG, HeadConfig(), LORA), mesh, parallel.ShardingRules()
    )
    spread = jax.device_put(params, placement)
    rng = jax.random.key(5)
    with jax.set_mesh(mesh):
        found = _hidden(structure, spread, rng)
    np.testing.assert_allclose(real(found), real(hidden(model, rng)), rtol=1e-4, atol=1e-5)


def test_parameters_lie_where_the_weights_that_they_update_lie():
    declared = declare_update(LORA, declare(CONFIG, None)["layers"])
    assert declared["output_a"].axes == ("layers", "heads", "head_dim", "rank")
    assert declared["output_a"].shape == (2, 4, 10, 3)
    assert declared["value_b"].axes == ("layers", "rank", "kv_heads", "head_dim")
    assert declared["value_b"].shape == (2, 3, 2, 10)
    values = initialise(declared, 0)
    assert not np.any(values["value_b"])


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": ()}, {"targets": ("up", "up")}],
)
def test_an_update_that_cannot_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(OptionError, match=f"LoRA's {name} must be"):
        LoraConfig(**wrong)
