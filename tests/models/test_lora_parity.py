"""LoRA against peft's, from committed fixtures and live: values, gradients, merging and files."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.data.packing import PackShape
from jaxrm.huggingface import adapter, hub, tensorfile
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import RewardModel, split
from tests.models import make_adapter_fixtures
from tests.models.make_adapter_fixtures import ADAPTERS, BASE, VARIANTS
from tests.models.make_fixtures import trees
from tests.models.support import (
    assert_close,
    assert_parity,
    in_order,
    packed,
    parity_loss,
    read_off,
    small_model,
)

SHAPE = PackShape(rows=2, length=40, slots=4, targets=24, ask="all")
SCORE = "base_model.model.score.weight"


def adapted(directory: Path) -> RewardModel:
    """The base with the adapter beside it."""
    base = hub.load(BASE, None)
    found = adapter.read(directory, base.config)
    params = split(base)[1] | {"lora": found.update}
    if found.head is not None:
        params["reward_head"] = found.head_arrays
    params = jax.tree.map(jnp.asarray, params)
    return RewardModel(base.config, found.head or base.head_config, found.lora, params=params)


def read(model: RewardModel) -> tuple[np.ndarray, np.ndarray]:
    """(rewards, log-probs) of the six responses."""
    batch = packed(trees(), SHAPE)
    return tuple(in_order(values, batch, 6) for values in read_off(*split(model), batch))


def _compare(directory: Path, expected: dict[str, np.ndarray], scratch: Path) -> None:
    model, batch = adapted(directory), packed(trees(), SHAPE)
    found, gradients = parity_loss(*split(model), batch)
    assert_parity(found, expected, batch)

    # Gradients have the parameters' structure: saved like an adapter, they get peft's names.
    of_loss = RewardModel(model.config, model.head_config, model.lora_config, params=gradients)
    adapter.save(of_loss, scratch / "gradients", "gqa")
    named = tensorfile.read(scratch / "gradients" / "adapter_model.safetensors")
    theirs = {name[len("gradient:") :] for name in expected if name.startswith("gradient:")}
    held = tensorfile.read(directory / "adapter_model.safetensors").keys()
    assert theirs == held == named.keys() - ({SCORE} - held)  # ours always holds the head
    for name in theirs:
        assert_close(named[name], expected[f"gradient:{name}"], 1e-3, f"gradient of {name}")

    # Merged and exported, the weights are those of merge_and_unload, and compute the same.
    hub.save(model, scratch / "merged")
    exported, base = (
        tensorfile.read(at / "model.safetensors") for at in (scratch / "merged", BASE)
    )
    assert exported.keys() == base.keys()
    for name, weight in exported.items():
        merged = expected.get(f"merged:{name}", base[name])
        np.testing.assert_allclose(weight, merged, rtol=1e-5, atol=1e-6, err_msg=name)
    rewards, logps = read(hub.load(scratch / "merged", None))
    assert_close(rewards, expected["rewards"], 1e-4, "rewards once merged")
    assert_close(logps, expected["logps"], 1e-4, "logps once merged")


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_recorded_peft(variant, tmp_path):
    with np.load(ADAPTERS / variant / "expected.npz") as expected:
        _compare(ADAPTERS / variant, dict(expected), tmp_path)


@pytest.mark.torch
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_a_live_peft(variant, tmp_path):
    pytest.importorskip("peft")
    model = make_adapter_fixtures.torch_adapter(VARIANTS[variant], seed=100)
    make_adapter_fixtures.save(model, tmp_path / "peft")
    _compare(tmp_path / "peft", make_adapter_fixtures.adapter_expectations(model), tmp_path)


def test_without_lora_the_model_is_the_base():
    _, logps = read(adapted(ADAPTERS / "every").without_lora())
    with np.load(BASE / "expected.npz") as base, np.load(ADAPTERS / "every/expected.npz") as lora:
        assert_close(logps, base["logps"], 1e-4, "logps")
        assert np.abs(base["logps"] - lora["logps"]).max() > 1


def changed(directory: Path) -> RewardModel:
    """An adapter that is in no file yet."""
    model = adapted(directory)
    params = split(model)[1]
    params["lora"] = {name: -1.5 * array for name, array in params["lora"].items()}
    params["reward_head"]["weight"] *= -2
    return RewardModel(model.config, model.head_config, model.lora_config, params=params)


@pytest.mark.torch
@pytest.mark.parametrize("variant", VARIANTS)
def test_peft_reads_what_we_save_and_computes_the_same(variant, tmp_path):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification

    model = changed(ADAPTERS / variant)
    adapter.save(model, tmp_path / "adapter", str(BASE))
    base = AutoModelForSequenceClassification.from_pretrained(BASE)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        expected = torch.cat([theirs(torch.tensor(ids)[None]).logits[0] for ids in responses()])
    rewards, _ = read(model)
    np.testing.assert_allclose(rewards, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.torch
def test_grms_scorer_reads_what_we_save_with_an_mlp_head(tmp_path):
    """It loads every tensor by name into a causal language model that peft has wrapped, and the
    head into a torch Sequential behind a dropout."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    base, head = adapted(ADAPTERS / "every"), HeadConfig("mlp", hidden=7, layers=1)
    params = split(base)[1]
    params["reward_head"] = split(small_model(base.config, head))[1]["reward_head"]
    model = RewardModel(base.config, head, base.lora_config, params=params)
    adapter.save(model, tmp_path / "grm", "gqa")

    theirs = AutoModelForCausalLM.from_pretrained(BASE)
    config = peft.PeftConfig.from_pretrained(str(tmp_path / "grm"))
    peft.inject_adapter_in_model(config, theirs)
    summary = torch.nn.Sequential(torch.nn.Linear(24, 7), torch.nn.ReLU(), torch.nn.Linear(7, 1))
    tensors = load_file(tmp_path / "grm" / "model.safetensors")
    unexpected = theirs.load_state_dict(tensors, strict=False).unexpected_keys
    names = {f"v_head.summary.{layer}" for layer in ("0.weight", "0.bias", "2.weight", "2.bias")}
    assert set(unexpected) == names
    summary.load_state_dict({name.removeprefix("v_head.summary."): tensors[name] for name in names})
    theirs.eval()
    with torch.no_grad():
        hidden = [theirs.model(torch.tensor(ids)[None]).last_hidden_state for ids in responses()]
        expected = torch.cat([summary(states[0, -1]) for states in hidden])
    rewards, _ = read(model)
    np.testing.assert_allclose(rewards, expected.numpy(), rtol=1e-4, atol=1e-4)


def responses() -> list[np.ndarray]:
    """Each response's ids behind its own prompt."""
    return [
        np.concatenate([tree.prompt, branch.tokens]).astype(np.int64)
        for tree in trees()
        for branch in tree.branches
    ]
