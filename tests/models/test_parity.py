"""Our model against Hugging Face's torch Gemma, from committed fixtures and live."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.data.packing import PackShape
from jaxrm.models import heads, hub, tensorfile
from jaxrm.models.transformer import RewardModel, merge, split
from tests.models.make_fixtures import FIXTURES, KV_HEADS, expectations, torch_model, trees
from tests.models.support import in_order, packed

SHAPE = PackShape(rows=2, length=40, slots=4, targets=24, ask="all")


@functools.partial(jax.jit, static_argnums=0)
def _everything(structure, params, batch):
    def loss_fn(params):
        model = merge(structure, params)
        hidden = model.hidden(batch)
        rewards = in_order(heads.rewards(model, hidden, batch), batch, 6)
        logps = in_order(heads.response_logps(model, hidden, batch), batch, 6)
        loss = -jax.nn.log_sigmoid(rewards[0::2] - rewards[1::2]).sum() - 0.01 * logps.sum()
        return loss, (hidden, rewards, logps)

    return jax.value_and_grad(loss_fn, has_aux=True)(params)


def _compare(directory: Path, expected: dict[str, np.ndarray], scratch: Path) -> None:
    model = hub.load(directory, None)
    structure, params = split(model)
    batch = packed(trees(), SHAPE)
    (loss, (hidden, rewards, logps)), gradients = _everything(structure, params, batch)

    def close(ours, theirs, tolerance, name):
        scale = np.abs(theirs).max()
        assert scale > 1e-3, f"{name} is too small to tell anything"
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale, err_msg=name)

    close(loss, expected["loss"], 1e-4, "loss")
    close(rewards, expected["rewards"], 1e-4, "rewards")
    close(logps, expected["logps"], 1e-4, "logps")
    for row, slot in np.argwhere(batch.response_mask):
        response = batch.response_index[row, slot]
        tree = batch.response_comparison[row, slot]
        branch = batch.branch[row, batch.response_end[row, slot]]
        of_tree = batch.comparison[row] == tree
        mine = of_tree & ((batch.branch[row] == 0) | (batch.branch[row] == branch))
        close(hidden[row][mine], expected[f"hidden_{response}"], 1e-4, f"hidden_{response}")

    # Gradients have the parameters' structure: saved like a model, they get torch's names.
    hub.save(RewardModel(model.config, model.head_config, params=gradients), scratch / "gradients")
    named = tensorfile.read(scratch / "gradients" / "model.safetensors")
    theirs = {name[len("gradient:") :] for name in expected if name.startswith("gradient:")}
    assert set(named) == theirs
    for name, gradient in named.items():
        close(gradient, expected[f"gradient:{name}"], 1e-3, f"gradient of {name}")


@pytest.mark.parametrize("variant", KV_HEADS)
def test_equals_the_recorded_torch_gemma(variant, tmp_path):
    with np.load(FIXTURES / variant / "expected.npz") as expected:
        _compare(FIXTURES / variant, dict(expected), tmp_path)


@pytest.mark.torch
@pytest.mark.parametrize(("variant", "kv_heads"), KV_HEADS.items())
def test_equals_a_live_torch_gemma(variant, kv_heads, tmp_path):
    pytest.importorskip("torch")
    model = torch_model(kv_heads, seed=100)
    model.save_pretrained(tmp_path / "torch")
    _compare(tmp_path / "torch", expectations(model, trees()), tmp_path)


@pytest.mark.torch
def test_a_saved_reward_model_gives_the_same_rewards_in_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    model = hub.load(FIXTURES / "gqa", None)
    params = split(model)[1]
    params["reward_head"]["weight"] = params["reward_head"]["weight"] * -2.0
    ours = RewardModel(model.config, model.head_config, params=params)
    hub.save(ours, tmp_path / "saved")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert (theirs.config.num_labels, theirs.config.problem_type) == (1, "regression")

    responses = [
        np.concatenate([tree.prompt, branch.tokens]) for tree in trees() for branch in tree.branches
    ]
    ids = np.zeros((len(responses), max(map(len, responses))), np.int64)
    for row, response in zip(ids, responses, strict=True):
        row[: len(response)] = response
    ids = torch.tensor(ids)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=ids != 0).logits[:, 0].numpy()
    batch = packed(trees(), SHAPE)
    rewards = in_order(heads.rewards(ours, ours.hidden(batch), batch), batch, 6)
    np.testing.assert_allclose(rewards, expected, rtol=1e-4, atol=1e-5)
    assert jnp.std(rewards) > 0.1
