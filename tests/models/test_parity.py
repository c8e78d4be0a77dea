"""Our model against Hugging Face's torch Gemma, from committed fixtures and live."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.data.packing import PackShape
from jaxrm.models import heads, hub, tensorfile
from jaxrm.models.transformer import RewardModel, split
from tests.models.make_fixtures import FIXTURES, VARIANTS, expectations, torch_model, trees
from tests.models.support import (
    GEMMA2,
    assert_close,
    assert_parity,
    in_order,
    packed,
    parity_loss,
    read_off,
)

SHAPE = PackShape(rows=2, length=40, slots=4, targets=24, ask="all")


def _compare(directory: Path, expected: dict[str, np.ndarray], scratch: Path) -> None:
    model = hub.load(directory, None)
    batch = packed(trees(), SHAPE)
    found, gradients = parity_loss(*split(model), batch)
    assert_parity(found, expected, batch)

    # Gradients have the parameters' structure: saved like a model, they get torch's names.
    hub.save(RewardModel(model.config, model.head_config, params=gradients), scratch / "gradients")
    named = tensorfile.read(scratch / "gradients" / "model.safetensors")
    theirs = {name[len("gradient:") :] for name in expected if name.startswith("gradient:")}
    assert set(named) == theirs
    for name, gradient in named.items():
        assert_close(gradient, expected[f"gradient:{name}"], 1e-3, f"gradient of {name}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_recorded_torch_gemma(variant, tmp_path):
    with np.load(FIXTURES / variant / "expected.npz") as expected:
        _compare(FIXTURES / variant, dict(expected), tmp_path)


@pytest.mark.parametrize(
    "plainer",
    [
        {"windows": ()},
        {"attention_softcap": None},
        {"logit_softcap": None},
        {"query_scale": GEMMA2["head_dim"] ** -0.5},
    ],
    ids=lambda plainer: next(iter(plainer)),
)
def test_the_gemma2_fixture_would_notice_a_part_left_out(plainer):
    model = hub.load(FIXTURES / "gemma2", None)
    config, params = dataclasses.replace(model.config, **plainer), split(model)[1]
    without = RewardModel(config, model.head_config, params=params)
    batch = packed(trees(), SHAPE)
    rewards, logps = (in_order(values, batch, 6) for values in read_off(*split(without), batch))
    with np.load(FIXTURES / "gemma2" / "expected.npz") as expected:
        noticed = [  # by ten times what parity allows
            np.abs(ours - expected[name]).max() > 1e-3 * np.abs(expected[name]).max()
            for name, ours in (("rewards", rewards), ("logps", logps))
        ]
    assert noticed == ["logit_softcap" not in plainer, True]


@pytest.mark.torch
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_a_live_torch_gemma(variant, tmp_path):
    pytest.importorskip("torch")
    model = torch_model(VARIANTS[variant], seed=100)
    model.save_pretrained(tmp_path / "torch")
    _compare(tmp_path / "torch", expectations(model, trees()), tmp_path)


@pytest.mark.torch
@pytest.mark.parametrize("variant", ["gqa", "gemma2"])
def test_a_saved_reward_model_gives_the_same_rewards_in_transformers(variant, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    model = hub.load(FIXTURES / variant, None)
    params = split(model)[1]
    params["reward_head"]["weight"] = params["reward_head"]["weight"] * -2.0
    ours = RewardModel(model.config, model.head_config, params=params)
    hub.save(ours, tmp_path / "saved")
    theirs = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "saved", attn_implementation="eager"
    )
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
