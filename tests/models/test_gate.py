"""A gate weighs attributes by the prompt alone, and makes one reward of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.evaluate.probe import final_states
from jaxrm.huggingface import hub
from jaxrm.models.gate import ConstantGate, Gated, PromptGate, prompt_states
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import RewardModel, split
from jaxrm.read.reading import read
from tests.messages_oracle import FOLDER

SMALL = PromptGate(hidden=8, layers=2, dropout=0.0, temperature=1.0)


def test_weights_are_a_softmax_over_attributes_that_sums_to_the_scale():
    params = SMALL.init(jax.random.key(0), 3, 4)
    prompts = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)), jnp.float32)
    weights = SMALL(params, prompts)
    assert weights.shape == (2, 5, 4)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
    scaled = SMALL(params | {"log_scale": jnp.log(3.0)}, prompts)
    np.testing.assert_allclose(scaled, 3 * weights, rtol=1e-5)


def test_the_gate_by_hand():
    """relu([2, -1]) = [2, 0]; logits [2 log 3, 0] at temperature 2: softmax [3/4, 1/4]."""
    gate = PromptGate(hidden=2, layers=1, dropout=0.5, temperature=2.0)
    params = {
        "log_scale": jnp.log(2.0),
        "weight_0": jnp.array([[1.0, 0.0], [0.0, 1.0]]),
        "bias_0": jnp.array([1.0, 0.0]),
        "weight_1": jnp.array([[jnp.log(3.0), 0.0], [7.0, 7.0]]),
        "bias_1": jnp.zeros(2),
    }
    np.testing.assert_allclose(gate(params, jnp.array([1.0, -1.0])), [1.5, 0.5], rtol=1e-6)
    dropped = gate(params, jnp.tile(jnp.array([1.0, -1.0]), (50, 1)), jax.random.key(0))
    assert len(np.unique(np.round(dropped[:, 0], 4))) == 2  # the unit is gone, or doubled


def test_gates_start_where_they_say():
    params = PromptGate().init(jax.random.key(0), 16, 19)
    assert params["weight_0"].shape == (16, 1024)
    assert params["weight_3"].shape == (1024, 19)
    constant = ConstantGate()
    weights = constant(constant.init(jax.random.key(0), 16, 4), jnp.zeros((2, 16)))
    np.testing.assert_allclose(weights, np.full((2, 4), 0.25), rtol=1e-6)


def test_the_margin_is_the_gate_times_the_difference_of_attributes():
    rng = np.random.default_rng(0)
    heads, prompts = rng.normal(size=(3, 4)), rng.normal(size=(6, 3))
    chosen, rejected = rng.normal(size=(2, 6, 3))
    gated = Gated(SMALL, SMALL.init(jax.random.key(1), 3, 4))
    margin = gated.rewards(chosen @ heads, prompts) - gated.rewards(rejected @ heads, prompts)
    weights = SMALL(gated.params, jnp.asarray(prompts))
    np.testing.assert_allclose(
        margin, (np.asarray(weights) * ((chosen - rejected) @ heads)).sum(-1), atol=1e-5
    )


def question(text, *answers):
    responses = tuple((Message("assistant", answer),) for answer in answers)
    return Comparison((Message("user", text),), responses)


def test_a_finished_model_reads_responses_like_any_reading():
    model = hub.load(FOLDER, None)
    d = model.config.hidden_size
    weight = np.random.default_rng(0).normal(size=(d, 4)).astype(np.float32)
    params = split(model)[1] | {"reward_head": {"weight": jnp.asarray(weight)}}
    model = RewardModel(model.config, HeadConfig(outputs=4), params=params)
    asked = [
        question("what does the narvel eat?", "figs", "it eats oats", "figs"),
        question("one?", "yes"),
    ]
    trees = chat.tokenize(asked, load_tokenizer(FOLDER))
    gated = Gated(SMALL, SMALL.init(jax.random.key(1), d, 4))
    readings = {"rewards": gated, "states": final_states, "prompts": prompt_states}
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    found = read(model, trees, readings, mesh=mesh, rows=2, row_length=256)
    assert [len(rewards) for rewards in found["rewards"]] == [3, 1]
    of_first = found["prompts"][0]
    np.testing.assert_array_equal(of_first, np.broadcast_to(of_first[0], of_first.shape))
    assert np.abs(of_first[0] - found["prompts"][1][0]).max() > 1e-3
    assert np.abs(of_first[0] - found["states"][0][0]).max() > 1e-3
    for i, rewards in enumerate(found["rewards"]):
        states, prompts = found["states"][i], found["prompts"][i]
        weights = np.asarray(SMALL(gated.params, jnp.asarray(prompts)))
        np.testing.assert_allclose(rewards, (weights * (states @ weight)).sum(-1), rtol=1e-4)
    # The same answer elsewhere in a row: where it lies decides the last bits of what is summed.
    assert found["rewards"][0][0] == pytest.approx(found["rewards"][0][2], abs=1e-5)
    assert found["rewards"][0][0] != pytest.approx(found["rewards"][0][1], rel=1e-3)
