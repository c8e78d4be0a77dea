from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.data.packing import Branch, PackShape, TokenTree, pack
from jaxrm.errors import ModelFileError, OptionError
from jaxrm.models import heads
from jaxrm.models.heads import HeadConfig
from jaxrm.models.parameters import initialise
from jaxrm.models.transformer import RewardModel, split
from tests.models.support import CONFIG, packed, random_tree, read_off, small_model

SHAPE = PackShape(rows=2, length=24, slots=5, targets=14, ask="all")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(5)
    return packed([random_tree(rng, 5, (4, 3)), random_tree(rng, 4, (2, 6, 2))], SHAPE)


@pytest.fixture(scope="module")
def hidden():
    rng = np.random.default_rng(6)
    return jnp.asarray(rng.standard_normal((2, 24, CONFIG.hidden_size)), jnp.float32)


def _states(hidden, batch) -> np.ndarray:
    return np.stack([hidden[r, batch.response_end[r]] for r in range(2)])


def test_the_linear_head_is_a_product_at_the_last_token(hidden, batch):
    model = small_model(CONFIG, HeadConfig())
    expected = _states(hidden, batch) @ np.asarray(model.reward_head.weight[...])[:, 0]
    found = heads.rewards(model, hidden, batch)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found[batch.response_mask], expected[batch.response_mask], rtol=1e-5)
    assert (~batch.response_mask).any()
    assert (np.asarray(found)[~batch.response_mask] == 0).all()


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_the_mlp_head_alternates_linear_and_relu(hidden, batch, layers):
    head = HeadConfig("mlp", hidden=7, layers=layers, outputs=3)
    model = small_model(CONFIG, head)
    weights = {name: np.asarray(value) for name, value in model.reward_head.arrays().items()}
    assert len(weights) == 2 * (layers + 1)
    expected = _states(hidden, batch)
    for i in range(layers + 1):
        expected = np.maximum(expected, 0) if i else expected
        expected = expected @ weights[f"weight_{i}"] + weights[f"bias_{i}"]
    found = heads.outputs(model, hidden, batch)
    assert found.shape == (2, 5, 3)
    real = batch.response_mask
    np.testing.assert_allclose(found[real], expected[real], rtol=1e-5, atol=1e-6)


def stepped(tree: TokenTree) -> TokenTree:
    """The tree with two steps in every branch, the second without a label: at its first token and
    at the last but one."""
    return dataclasses.replace(
        tree,
        branches=tuple(
            dataclasses.replace(
                branch,
                step_ends=np.array([0, len(branch.tokens) - 2], np.int32),
                step_labels=np.array([1.0, np.nan]),
            )
            for branch in tree.branches
        ),
    )


def test_a_steps_score_is_the_reward_of_the_response_that_ends_there():
    rng = np.random.default_rng(8)
    trees = [stepped(random_tree(rng, 5, (4, 3))), stepped(random_tree(rng, 4, (3, 6, 5)))]
    shape = PackShape(rows=2, length=30, slots=5, steps=12)
    model = small_model(CONFIG, HeadConfig())
    batch = packed(trees, shape)
    assert [len(set(row[row >= 0])) for row in batch.comparison] == [2, 0]  # both in one row
    found = heads.steps_by_response(model, model.hidden(batch), batch)
    assert found.dtype == jnp.float32
    prefixes = [
        TokenTree(tree.prompt, (Branch(branch.tokens[: end + 1], branch.targets[: end + 1]),))
        for tree in trees
        for branch in tree.branches
        for end in branch.step_ends
    ]
    single = PackShape(rows=10, length=12, slots=1)
    apart = pack(prefixes, [[i] for i in range(len(prefixes))], single)
    expected = heads.rewards(model, model.hidden(apart), apart)[:, 0]
    order = np.argsort(batch.response_index[0])
    np.testing.assert_allclose(found[0, order, :2].ravel(), expected, rtol=1e-4, atol=1e-5)
    assert (np.asarray(found)[:, :, 2:] == 0).all()
    assert (np.asarray(found)[1] == 0).all()


def test_steps_are_read_by_the_head_of_responses(hidden):
    rng = np.random.default_rng(5)
    shape = dataclasses.replace(SHAPE, steps=14)
    batch = packed([stepped(random_tree(rng, 5, (4, 3))), random_tree(rng, 4, (2, 6, 2))], shape)
    model = small_model(CONFIG, HeadConfig("mlp", hidden=7, outputs=3))
    at_ends = dataclasses.replace(
        batch,
        step_end=batch.response_end,
        step_slot=np.arange(5) * np.ones((2, 1), np.int32),
        step_present=batch.response_mask,
    )
    np.testing.assert_array_equal(
        heads.step_outputs(model, hidden, at_ends), heads.outputs(model, hidden, batch)
    )
    found = np.asarray(heads.step_outputs(model, hidden, batch))
    assert (found[batch.step_present] != 0).all()
    assert (found[~batch.step_present] == 0).all()
    assert batch.step_present.sum() == 2 * batch.step_mask.sum() == 4
    with pytest.raises(ModelFileError, match="has 3 outputs"):
        heads.steps_by_response(model, hidden, batch)
    with pytest.raises(ValueError, match="carries no steps"):
        heads.step_outputs(model, hidden, dataclasses.replace(batch, step_end=None))


def test_dropout_needs_a_key_and_keeps_the_mean(hidden, batch):
    model = small_model(CONFIG, HeadConfig(dropout=0.25))
    plain = heads.rewards(model, hidden, batch)
    keys = jax.random.split(jax.random.key(0), 4000)
    dropped = jax.vmap(lambda key: heads.rewards(model, hidden, batch, key))(keys)
    error = jnp.abs(dropped.mean(0) - plain) / (dropped.std(0) / 4000**0.5 + 1e-9)
    assert dropped.std(0)[batch.response_mask].min() > 0.05
    assert error.max() < 5
    unused = small_model(CONFIG, HeadConfig())
    np.testing.assert_array_equal(heads.rewards(unused, hidden, batch, keys[0]), plain)


def test_rewards_need_a_head_of_one_output(hidden, batch):
    with pytest.raises(ValueError, match="no reward head"):
        heads.rewards(small_model(CONFIG, None), hidden, batch)
    with pytest.raises(ModelFileError, match="one number, and the model's head has 2 outputs"):
        heads.rewards(small_model(CONFIG, HeadConfig(outputs=2)), hidden, batch)


def test_fresh_heads_give_rewards_of_unit_scale():
    for head, shape in ((HeadConfig(), (624, 1)), (HeadConfig("mlp", hidden=99), (624, 99))):
        values = initialise(heads.declare(head, 624), seed=1)
        matrix = values["weight" if head.kind == "linear" else "weight_0"]
        assert matrix.shape == shape
        assert matrix.dtype == jnp.float32
        assert float(matrix.std()) == pytest.approx(625**-0.5, rel=0.1)
    assert (values["bias_0"] == 0).all()
    again = initialise(heads.declare(head, 624), seed=1)
    other = initialise(heads.declare(head, 624), seed=2)
    np.testing.assert_array_equal(values["weight_0"], again["weight_0"])
    assert (values["weight_0"] != other["weight_0"]).mean() > 0.99


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("chunk", "cap"), [(1, None), (5, 0.8), (14, None), (1000, 0.8)])
def test_chunks_equal_the_whole_log_softmax(hidden, batch, chunk, cap, tied):
    config = dataclasses.replace(CONFIG, logit_softcap=cap, tie_embeddings=tied)
    model = small_model(config, None, logp_chunk=chunk)
    weight = (model.embedding if tied else model.lm_head)[...]

    def chunked(hidden, weight):
        params = split(model)[1] | {"embedding" if tied else "lm_head": weight}
        changed = RewardModel(config, None, compute=model.compute, params=params)
        return heads.target_logps(changed, hidden, batch)

    def whole(hidden, weight):
        logits = jnp.stack([hidden[r, batch.predictor[r]] for r in range(2)]) @ weight.T
        logits = logits if cap is None else cap * jnp.tanh(logits / cap)
        logps = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(logps, jnp.asarray(batch.target)[..., None], -1)[..., 0]
        return jnp.where(batch.target_mask, chosen, 0.0)

    def with_gradients(logps_of):
        weights = jnp.cos(jnp.arange(28.0)).reshape(2, 14)

        def weighted(*arrays):
            logps = logps_of(*arrays)
            return (logps * weights).sum(), logps

        return jax.jit(jax.grad(weighted, argnums=(0, 1), has_aux=True))(hidden, weight)

    assert (~batch.target_mask).any()
    (gradients, logps), (true_gradients, true_logps) = map(with_gradients, (chunked, whole))
    assert logps.dtype == jnp.float32
    np.testing.assert_allclose(logps, true_logps, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients, true_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_chunk_without_targets_is_passed_over():
    shape = PackShape(rows=1, length=20, slots=1, targets=20, ask="all")
    batch = packed([random_tree(np.random.default_rng(0), 3, (12,))], shape)
    assert 0 < batch.target_mask.sum() < 16
    model = small_model(CONFIG, None, logp_chunk=1)
    # Where spare targets point lies what would leave no gradient whole.
    hidden = jnp.ones((1, 20, CONFIG.hidden_size)).at[:, 0].set(jnp.nan)

    def total(weight):
        params = split(model)[1] | {"embedding": weight}
        changed = RewardModel(CONFIG, None, compute=model.compute, params=params)
        return heads.target_logps(changed, hidden, batch).sum()

    assert np.isfinite(jax.jit(jax.grad(total))(model.embedding[...])).all()


def test_chunking_bounds_the_memory_of_the_backward_pass():
    config = dataclasses.replace(CONFIG, vocab_size=16_384)
    shape = PackShape(rows=2, length=300, slots=1, targets=256, ask="all")
    batch = packed([random_tree(np.random.default_rng(0), 3, (250,))], shape)
    hidden = jnp.ones((2, 300, CONFIG.hidden_size))

    def temporary_bytes(chunk: int) -> int:
        model = small_model(config, None, logp_chunk=chunk)
        gradient = jax.grad(lambda hidden: heads.target_logps(model, hidden, batch).sum())
        return jax.jit(gradient).lower(hidden).compile().memory_analysis().temp_size_in_bytes

    all_logits = 2 * 256 * 16_384 * 4
    assert temporary_bytes(256) > all_logits
    assert temporary_bytes(16) < all_logits / 4


def test_response_logps_sum_each_response_over_its_own_tokens(hidden, batch):
    model = small_model(CONFIG, None)
    per_token = np.asarray(heads.target_logps(model, hidden, batch))
    expected = np.zeros((2, 5))
    for r, n in np.argwhere(batch.target_mask):
        expected[r, batch.target_slot[r, n]] += per_token[r, n]
    found = heads.response_logps(model, hidden, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert ((expected < 0) == (batch.response_length > 0)).all()
    without = dataclasses.replace(batch, logp_mask=np.zeros_like(batch.logp_mask))
    assert (heads.response_logps(model, hidden, without) == 0).all()


def test_a_batch_without_targets_has_no_logps(hidden, batch):
    empty = {
        name: getattr(batch, name)[:, :0]
        for name in ("predictor", "target", "target_slot", "target_mask")
    }
    none = dataclasses.replace(batch, **empty)
    model = small_model(CONFIG, None)
    assert heads.target_logps(model, hidden, none).shape == (2, 0)
    assert (heads.response_logps(model, hidden, none) == 0).all()


def test_bfloat16_stays_near_float32_and_answers_in_float32(batch):
    head = HeadConfig("mlp", hidden=7)
    wide, narrow = (
        read_off(*split(small_model(CONFIG, head, dtype=dtype)), batch)
        for dtype in ("float32", "bfloat16")
    )
    for ours, theirs in zip(narrow, wide, strict=True):
        assert ours.dtype == jnp.float32
        assert not np.array_equal(ours, theirs)
        np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.05)


def test_the_gradient_of_a_bfloat16_model_is_summed_in_the_parameters_type(hidden, batch):
    model = small_model(CONFIG, None, dtype="bfloat16", logp_chunk=3)

    def total(embedding, dtype):
        params = split(model)[1] | {"embedding": embedding}
        changed = RewardModel(CONFIG, None, compute=model.compute, params=params)
        return heads.target_logps(changed, hidden.astype(dtype), batch).sum()

    found, expected = (
        jax.jit(jax.grad(total), static_argnums=1)(model.embedding[...], dtype)
        for dtype in ("bfloat16", "float32")
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=0.01 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize(
    "wrong", [{"hidden": 0}, {"layers": -1}, {"dropout": 1.0}, {"dropout": -0.1}, {"outputs": 0}]
)
def test_a_head_that_cannot_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(OptionError, match=f"a head's {name} must be"):
        heads.HeadConfig("mlp", **wrong)
