"""Averages of weights by hand, where they meet ensembles, and what must not be averaged."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxrm import parallel
from jaxrm.data.packing import PackShape
from jaxrm.errors import ModelFileError, OptionError
from jaxrm.huggingface import hub
from jaxrm.huggingface import orbax as orbax_directory
from jaxrm.models import average, transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import RewardModel
from jaxrm.train.state import abstract_state, create_state
from tests.models.support import CONFIG, packed, random_tree, read_off, small_model


def tree(*values, dtype=np.float32, steps=7):
    return {"a": {"b": np.array(values, dtype)}, "steps": np.array(steps)}


# Members at their end


def test_a_weighted_mean_by_hand():
    members = [tree(1, 2), tree(5, 10)]
    np.testing.assert_array_equal(average.average(members)["a"]["b"], [3, 6])
    # (1 * 1 + 3 * 5) / 4, whatever the scale of the weights.
    for weights in ([1, 3], [0.25, 0.75], np.array([2.0, 6.0])):
        np.testing.assert_array_equal(average.average(members, weights)["a"]["b"], [4, 8])
    np.testing.assert_array_equal(average.average(members, [0, 2])["a"]["b"], [5, 10])


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float64])
def test_copies_of_one_member_are_that_member(dtype):
    # In float32 (.1 + .1 + .1) / 3 is not .1.
    one = tree(0.1, 1e-30, -3e30, dtype=dtype)
    found = average.average([one] * 3, [0.3, 0.1, 7.0])
    assert found["a"]["b"].dtype == one["a"]["b"].dtype
    np.testing.assert_array_equal(found["a"]["b"], one["a"]["b"])


def test_half_precision_is_averaged_in_float32():
    # Next to 1 bfloat16 has steps of 1/128. A mean that is rounded each time stays at 1.
    members = [tree(1, dtype=jnp.bfloat16)] + [tree(1 + 1 / 128, dtype=jnp.bfloat16)] * 7
    assert average.average(members)["a"]["b"].astype(np.float32) == 1 + 1 / 128


def test_what_is_not_floating_point_stays():
    found = average.average([tree(1.0, steps=7), tree(3.0, steps=7)])
    assert found["steps"] == 7
    assert found["steps"].dtype == np.array(7).dtype
    with pytest.raises(ModelFileError, match="member 1 has another steps"):
        average.average([tree(1.0, steps=7), tree(3.0, steps=8)])


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"a": {}, "steps": np.array(7)}, "only the first member has a/b"),
        (tree(1.0, 2.0) | {"c": np.zeros(1)}, "only member 2 has c"),
        (tree(1.0, 2.0, 3.0), r"member 2 has a/b \(\(3,\), 'float32'\), the first member"),
        (tree(1.0, 2.0, dtype=np.float16), "'float16'"),
    ],
)
def test_members_that_differ_are_named(other, problem):
    with pytest.raises(ModelFileError, match=problem):
        average.average([tree(1.0, 2.0), tree(1.0, 2.0), other])


def test_no_members_and_bad_weights():
    with pytest.raises(ModelFileError, match="no models"):
        average.average([])
    for weights in ([0, 0], [1, -1], [1, np.nan], [1, np.inf]):
        with pytest.raises(OptionError, match="weights of members"):
            average.average([tree(1.0), tree(2.0)], weights)
    with pytest.raises(ValueError, match="zip"):
        average.average([tree(1.0), tree(2.0)], [1, 1, 1])


def test_members_may_come_from_an_iterator():
    assert average.average(tree(value) for value in (1.0, 2.0, 6.0))["a"]["b"] == 3


def test_arrays_on_devices_stay_where_they_are():
    sharding = jax.sharding.NamedSharding(
        parallel.make_mesh(devices=jax.devices()[:1]), PartitionSpec("fsdp")
    )
    member = jax.device_put({"w": jnp.arange(4.0)}, sharding)
    found = average.average([member, jax.tree.map(jnp.zeros_like, member)])["w"]
    assert found.sharding == sharding
    np.testing.assert_array_equal(found, [0, 0.5, 1, 1.5])


# Whole models


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    trees = [random_tree(rng, 5, (4, 6)), random_tree(rng, 3, (7, 2))]
    shape = PackShape(1, 64, slots=4, pairs=0, targets=32, groups=0, group_size=0, ask="all")
    return packed(trees, shape)


def rewards(params, batch, head=HeadConfig()):
    structure = transformer.split(small_model(CONFIG, head))[0]
    return np.asarray(read_off(structure, params, batch)[0], np.float64)[0]


def test_heads_alone_average_to_the_mean_reward(batch):
    params = transformer.split(small_model(CONFIG, HeadConfig()))[1]
    heads = [np.random.default_rng(m).standard_normal((24, 1)) for m in range(3)]
    members = [params | {"reward_head": {"weight": jnp.float32(head)}} for head in heads]
    each = [rewards(member, batch) for member in members]
    found = rewards(average.average(members), batch)
    assert np.std(each, axis=0).min() > 0.1
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5, atol=1e-5)


def test_beyond_the_head_the_ensemble_is_met_to_second_order(batch):
    start = transformer.split(small_model(CONFIG, HeadConfig()))[1]
    moves = [transformer.split(small_model(CONFIG, HeadConfig(), seed=m))[1] for m in (1, 2)]

    def apart(scale):
        members = [jax.tree.map(lambda s, d: s + scale * d, start, move) for move in moves]
        each = [rewards(member, batch) for member in members]
        return np.linalg.norm(rewards(average.average(members), batch) - np.mean(each, axis=0))

    ratios = [apart(0.08) / apart(0.04), apart(0.04) / apart(0.02)]
    assert apart(0.02) > 1e-5  # well above rounding
    np.testing.assert_allclose(ratios, 4, rtol=0.1)


def test_models_are_averaged_however_they_were_loaded(tmp_path):
    first, second = (small_model(CONFIG, HeadConfig(), seed=seed) for seed in (0, 1))
    hub.save(first, tmp_path / "files")
    orbax_directory.save(second, tmp_path / "orbax")
    loaded = (hub.load(tmp_path / "files", None), orbax_directory.load(tmp_path / "orbax"))
    found = average.average_models(model for model in loaded)
    for name in ("embedding", "final_norm"):
        expected = (getattr(first, name)[...] + getattr(second, name)[...]) / 2
        np.testing.assert_allclose(getattr(found, name)[...], expected, rtol=1e-6, atol=1e-7)
    assert found.head_config == HeadConfig()


def test_lora_is_merged_before_it_is_averaged():
    lora = LoraConfig(rank=2, alpha=6.0, targets=("query",))  # updates count threefold
    declared = transformer.declare(CONFIG, None, lora)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: jnp.float32(rng.standard_normal(p.shape)), declared)
    other = params | {"lora": jax.tree.map(lambda x: x[::-1], params["lora"])}
    members = [RewardModel(CONFIG, None, lora, params=of) for of in (params, other)]
    found = average.average_models(members)
    assert found.lora is None
    updates = [
        np.einsum("ler,lrhd->lehd", of["lora"]["query_a"], of["lora"]["query_b"])
        for of in (params, other)
    ]
    expected = params["layers"]["query"] + 3 * np.mean(updates, axis=0)
    np.testing.assert_allclose(found.layers.arrays()["query"], expected, rtol=1e-4, atol=1e-4)


def test_models_of_other_configurations_are_refused():
    first = small_model(CONFIG, HeadConfig())
    with pytest.raises(ModelFileError, match="member 1 differs from the first in its head_config"):
        average.average_models([first, small_model(CONFIG, HeadConfig(outputs=2))])
    with pytest.raises(ModelFileError, match="no models"):
        average.average_models([])


def test_cosines_tell_heads_of_one_start():
    # [1, 0] and [1, 1] / sqrt 2, with the leaves of a member as one vector.
    heads = [{"w": np.array([3.0]), "b": np.array([0.0])}]
    heads += [{"w": np.array([2.0]), "b": np.array([2.0])}, {"w": np.zeros(1), "b": np.zeros(1)}]
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        average.cosines(heads), [[1, half, 0], [half, 1, 0], [0, 0, 0]], atol=1e-12
    )
    with pytest.raises(ModelFileError, match="member 1 has w"):
        average.cosines([{"w": np.zeros(2)}, {"w": np.zeros(3)}])


# Between two members


def test_the_barrier_of_a_double_well_is_its_hill():
    hill = average.line(
        lambda p: (p["x"] ** 2 - 1) ** 2, {"x": np.float64(-1)}, {"x": np.float64(1)}
    )
    np.testing.assert_allclose(hill.shares, np.linspace(0, 1, 11))
    np.testing.assert_allclose(hill.losses[[0, 5, 10]], [0, 1, 0], atol=1e-12)
    assert hill.barrier == pytest.approx(1)


def test_a_slope_is_no_barrier_and_a_hill_is_measured_from_the_slope():
    ends = {"x": np.float64(0)}, {"x": np.float64(1)}
    assert average.line(lambda p: 5 * p["x"], *ends).barrier == pytest.approx(0)
    assert average.line(lambda p: p["x"] ** 2, *ends).barrier == 0
    # 2 x + x (1 - x): the chord is 2 x, the hill 1/4 at the middle.
    bent = average.line(lambda p: 2 * p["x"] + p["x"] * (1 - p["x"]), *ends, points=3)
    assert bent.barrier == pytest.approx(0.25)
    with pytest.raises(OptionError, match="at least 3"):
        average.line(lambda p: 0.0, *ends, points=2)


# One model as it trains


def trained(optimizer, steps, dtype=jnp.float32):
    """From 0, with a gradient of -1 at every step."""
    params = {"w": jnp.zeros(2, dtype)}
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(
            jax.tree.map(lambda p: -jnp.ones_like(p), params), state, params
        )
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def test_a_moving_average_by_hand():
    params, state = trained(optax.chain(optax.sgd(1.0), average.ema(0.5)), 3)
    np.testing.assert_array_equal(params["w"], [3, 3])  # as without the average
    # Parameters 1, 2 and 3 with weights 1/8, 1/4 and 1/2, over their sum 7/8; the start has none.
    found = average.ema_params(state, params)
    np.testing.assert_allclose(found["w"], [17 / 7] * 2, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9999, 1 - 1e-6])
def test_after_one_step_the_average_is_what_was_reached(decay):
    params, state = trained(optax.chain(optax.sgd(0.7), average.ema(decay)), 1)
    np.testing.assert_allclose(average.ema_params(state, params)["w"], params["w"], rtol=1e-6)


def test_without_decay_the_last_parameters_count():
    params, state = trained(optax.chain(optax.sgd(0.7), average.ema(0.0)), 4)
    np.testing.assert_allclose(average.ema_params(state, params)["w"], params["w"], rtol=1e-6)


def test_of_half_precision_the_average_is_kept_in_float32():
    params, state = trained(optax.chain(optax.sgd(1.0), average.ema(0.99)), 3, jnp.bfloat16)
    kept = optax.tree_utils.tree_get(state, "parameter_average")["w"]
    assert kept.dtype == jnp.float32
    weights = 0.99 ** np.array([2, 1, 0])
    np.testing.assert_allclose(kept, weights @ [1, 2, 3] / weights.sum(), rtol=1e-5)
    assert average.ema_params(state, params)["w"].dtype == jnp.bfloat16


def test_the_average_is_found_inside_another_optimizer_and_follows_its_parameter():
    def at(learning_rate):
        return optax.chain(optax.adam(learning_rate), average.ema(0.9))

    params, axes = {"w": np.zeros((2, 3), np.float32)}, {"w": ("embed", "mlp")}
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    abstract = abstract_state(
        params,
        axes,
        at,
        trainable=lambda path: True,
        mesh=mesh,
        rules=parallel.ShardingRules(),
    )
    kept = optax.tree_utils.tree_get(abstract.optimizer, "parameter_average")
    assert kept["w"].shape == (2, 3)
    assert kept["w"].sharding == abstract.trainable["w"].sharding
    state = create_state(params, at, abstract, seed=0)
    np.testing.assert_array_equal(average.ema_params(state.optimizer, state.trainable)["w"], 0)


def test_what_has_no_average_or_no_parameters():
    params, state = trained(optax.sgd(1.0), 1)
    with pytest.raises(ValueError, match="keeps no average"):
        average.ema_params(state, params)
    optimizer = average.ema(0.9)
    with pytest.raises(ValueError, match="needs them"):
        optimizer.update(params, optimizer.init(params))
    for decay in (-0.1, 1.0):
        with pytest.raises(OptionError, match="EMA's decay"):
            average.ema(decay)
