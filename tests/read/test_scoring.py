"""What scores in a directory of any kind, and values against the parts' own."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.errors import ModelFileError
from jaxrm.huggingface import hub, mixture
from jaxrm.huggingface.mixture import Member
from jaxrm.models import heads
from jaxrm.models.gate import ConstantGate, Gated, PromptGate, prompt_states
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import RewardModel
from jaxrm.parallel import MeshShape
from jaxrm.read import scoring
from jaxrm.read.reading import read
from jaxrm.read.scoring import Part
from tests.models.make_adapter_fixtures import ADAPTERS
from tests.models.support import CONFIG, random_tree, small_model

GATE = ConstantGate(scale=0.5)
SIZES = {"rows": 2, "row_length": 64}


@pytest.fixture(scope="module")
def trees():
    rng = np.random.default_rng(0)
    shapes = [(5, (3, 4)), (9, (8,)), (4, (6, 2, 7))]
    return [random_tree(rng, prompt, branches) for prompt, branches in shapes]


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(devices=jax.devices()[:1])


def read_of(model: RewardModel, trees, mesh, **readings):
    return read(model, trees, readings, mesh=mesh, ask="all", **SIZES)


def scored(directory, trees, mesh):
    parts = scoring.load(directory, mesh=mesh)
    return scoring.rewards(parts, trees, mesh=mesh, **SIZES)


def assert_all_close(ours, theirs):
    assert [len(rewards) for rewards in ours] == [len(rewards) for rewards in theirs]
    assert {rewards.dtype for rewards in ours} == {np.dtype(np.float32)}
    np.testing.assert_allclose(np.concatenate(ours), np.concatenate(theirs), rtol=1e-4, atol=1e-5)


def test_a_plain_directory_is_one_part_whose_rewards_are_the_model_s_to_the_bit(
    tmp_path, trees, mesh
):
    model = small_model(CONFIG, HeadConfig())
    hub.save(model, tmp_path / "model")
    [part] = scoring.load(tmp_path / "model")
    assert (part.reading, part.ask, part.weight, part.offset) == (heads.rewards, "none", 1.0, 0.0)
    expected = read(model, trees, {"rewards": heads.rewards}, mesh=mesh, **SIZES)["rewards"]
    for ours, theirs in zip(scored(tmp_path / "model", trees, mesh), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_ensemble_by_hand(tmp_path, trees, mesh):
    models = [small_model(CONFIG, HeadConfig(), seed) for seed in (0, 1)]
    members = (Member("a", "rewards", 0.25, -1.5), Member("b", "rewards", -2.0, 0.5))
    mixture.save(tmp_path / "both", list(zip(models, members, strict=True)))
    a, b = (read_of(model, trees, mesh, rewards=heads.rewards)["rewards"] for model in models)
    by_hand = [0.25 * (x + 1.5) - 2.0 * (y - 0.5) for x, y in zip(a, b, strict=True)]
    assert_all_close(scored(tmp_path / "both", trees, mesh), by_hand)


def test_dpo_s_implicit_reward_by_hand(tmp_path, trees, mesh):
    models = [small_model(CONFIG, None, seed) for seed in (0, 1)]
    members = Member("policy", "logps", 0.5), Member("reference", "logps", -0.5)
    mixture.save(tmp_path / "dpo", list(zip(models, members, strict=True)))
    policy, reference = (
        read_of(model, trees, mesh, logps=heads.response_logps)["logps"] for model in models
    )
    by_hand = [0.5 * (x - y) for x, y in zip(policy, reference, strict=True)]
    assert np.abs(np.concatenate(by_hand)).max() > 0.1
    assert_all_close(scored(tmp_path / "dpo", trees, mesh), by_hand)


@pytest.mark.parametrize("shape", [MeshShape(1, 1, 1), MeshShape(2, 2, 2)])
def test_a_gate_by_hand_and_on_a_mesh(tmp_path, trees, shape):
    count = shape.data * shape.fsdp * shape.tensor
    mesh = parallel.make_mesh(shape, jax.devices()[:count])
    model = small_model(CONFIG, HeadConfig(outputs=3))
    params = {"log_scale": np.log(0.5), "logits": np.log([0.2, 0.3, 0.5])}
    hub.save(model, tmp_path / "armo", gate=Gated(GATE, params))
    alone = parallel.make_mesh(devices=jax.devices()[:1])
    outputs = read_of(model, trees, alone, outputs=heads.outputs)["outputs"]
    by_hand = [of_tree @ [0.1, 0.15, 0.25] for of_tree in outputs]
    assert_all_close(scored(tmp_path / "armo", trees, mesh), by_hand)


def test_the_gate_reads_the_prompt(tmp_path, trees, mesh):
    model = small_model(CONFIG, HeadConfig(outputs=3))
    gate = PromptGate(hidden=8, layers=1, temperature=1.0)
    gated = Gated(gate, gate.init(jax.random.key(0), CONFIG.hidden_size, 3))
    hub.save(model, tmp_path / "armo", gate=gated)
    values = read_of(model, trees, mesh, outputs=heads.outputs, prompts=prompt_states)
    by_hand = [
        gated.rewards(outputs, prompts)
        for outputs, prompts in zip(values["outputs"], values["prompts"], strict=True)
    ]
    assert_all_close(scored(tmp_path / "armo", trees, mesh), by_hand)


def test_small_differences_of_large_log_probs_are_kept():
    parts = [Part(None, weight=0.1), Part(None, weight=-0.1)]
    large = np.float32([-5e4, -5e4]), np.float32([-5e4, -5e4 - 1 / 128])
    np.testing.assert_allclose(scoring.total(parts, large), [0.0, 0.1 / 128], rtol=1e-6)


def test_a_mixture_takes_no_adapter(tmp_path):
    mixture.save(tmp_path / "mixture", [(small_model(CONFIG, None), Member("one", "logps"))])
    with pytest.raises(ModelFileError, match="is a mixture of models, which takes no adapter"):
        scoring.load(tmp_path / "mixture", adapter=ADAPTERS / "every")


def test_the_vocabulary_is_the_smallest_member_s(tmp_path):
    larger = dataclasses.replace(CONFIG, vocab_size=64)
    models = [small_model(config, HeadConfig()) for config in (larger, CONFIG)]
    parts = [(model, Member(f"m{i}")) for i, model in enumerate(models)]
    mixture.save(tmp_path / "mixture", parts)
    assert scoring.read_config(tmp_path / "mixture").vocab_size == 61
    assert scoring.read_config(tmp_path / "mixture" / "m0").vocab_size == 64
