"""Our model against Hugging Face's torch ones, from committed fixtures and live."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.data.packing import PackedBatch, PackShape, TokenTree
from jaxrm.huggingface import hub
from jaxrm.models import split_attention
from jaxrm.models.config import ModelConfig
from jaxrm.models.parameters import Tree
from jaxrm.models.rotary import Dynamic, Llama3, Rope
from jaxrm.models.transformer import RewardModel, split
from tests.models.make_fixtures import (
    FIXTURES,
    VARIANTS,
    WITH_GRADIENTS,
    expectations,
    torch_model,
    trees,
)
from tests.models.support import (
    GEMMA2,
    assert_close,
    assert_parity,
    assert_values,
    named_gradients,
    packed,
    parity_loss,
    parity_values,
)

SHAPE = PackShape(rows=2, length=40, slots=4, targets=24, ask="all")


def batch_for(config: ModelConfig) -> PackedBatch:
    """The six responses, as trees or, where a prompt turns differently before a longer response,
    each with a prompt of its own."""
    if not config.rope.depends_on_length:
        return packed(trees(), SHAPE)
    return packed([TokenTree(t.prompt, (branch,)) for t in trees() for branch in t.branches], SHAPE)


@functools.cache
def recorded(variant: str) -> RewardModel:
    return hub.load(FIXTURES / variant, None)


def compare(model: RewardModel, expected: dict[str, np.ndarray], scratch: Path) -> None:
    batch = batch_for(model.config)
    found, gradients = parity_loss(*split(model), batch)
    assert_parity(found, expected, batch)
    named = named_gradients(model, gradients, scratch)
    theirs = {name[len("gradient:") :] for name in expected if name.startswith("gradient:")}
    assert set(named) == theirs
    for name, gradient in named.items():
        assert_close(gradient, expected[f"gradient:{name}"], 1e-3, f"gradient of {name}")


@pytest.mark.parametrize("variant", WITH_GRADIENTS)
def test_values_and_gradients_equal_the_recorded_torch_ones(variant, tmp_path):
    with np.load(FIXTURES / variant / "expected.npz") as expected:
        compare(recorded(variant), dict(expected), tmp_path)


@pytest.mark.parametrize("variant", WITH_GRADIENTS)
def test_attention_in_blocks_equals_them_too(variant, tmp_path, monkeypatch):
    monkeypatch.setattr(split_attention, "BLOCK", 8)  # rows of 40 tokens are five
    model = recorded(variant)
    compute = dataclasses.replace(model.compute, attention="split")
    head, params = model.head_config, split(model)[1]
    blocked = RewardModel(model.config, head, compute=compute, params=params)
    with np.load(FIXTURES / variant / "expected.npz") as expected:
        compare(blocked, dict(expected), tmp_path)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in WITH_GRADIENTS])
def test_values_equal_the_recorded_torch_ones(variant):
    model = recorded(variant)
    batch = batch_for(model.config)
    with np.load(FIXTURES / variant / "expected.npz") as expected:
        assert_values(parity_values(*split(model), batch), expected, batch)


@pytest.mark.torch
@pytest.mark.parametrize("variant", VARIANTS)
def test_values_and_gradients_equal_live_torch_ones(variant, tmp_path):
    pytest.importorskip("torch")
    model = torch_model(VARIANTS[variant], seed=100)
    model.save_pretrained(tmp_path / "torch")
    compare(hub.load(tmp_path / "torch", None), expectations(model, trees()), tmp_path)


def test_the_llama_3_fixture_keeps_smooths_and_divides():
    raw = VARIANTS["llama_3"]
    exponents = np.arange(0, raw["head_dim"], 2) / raw["head_dim"]
    scaling = raw["rope_scaling"]
    original = scaling["original_max_position_embeddings"]
    turns = original * raw["rope_theta"] ** -exponents / (2 * math.pi)
    kept, divided = turns > scaling["high_freq_factor"], turns < scaling["low_freq_factor"]
    assert (kept.sum(), (~kept & ~divided).sum(), divided.sum()) == (1, 2, 2)


def test_texts_are_shorter_and_longer_than_the_dynamic_fixtures_length():
    lengths = [
        len(tree.prompt) + len(branch.tokens) for tree in trees() for branch in tree.branches
    ]
    original = VARIANTS["llama_dynamic"]["max_position_embeddings"]
    assert min(lengths) < original < max(lengths)


Edit = Callable[[ModelConfig, Tree], tuple[ModelConfig, Tree]]


def replaced(**changes) -> Edit:
    return lambda config, params: (dataclasses.replace(config, **changes), params)


def layers_at(value: float, *names: str) -> Edit:
    """Sets these parameters of every layer to `value`."""

    def edit(config: ModelConfig, params: Tree) -> tuple[ModelConfig, Tree]:
        layers = params["layers"]
        neutral = {name: jnp.full_like(layers[name], value) for name in names}
        return config, params | {"layers": layers | neutral}

    return edit


def without_qk_norms(config: ModelConfig, params: Tree) -> tuple[ModelConfig, Tree]:
    gone = ("query_norm", "key_norm")
    layers = {name: value for name, value in params["layers"].items() if name not in gone}
    return dataclasses.replace(config, qk_norms=False), params | {"layers": layers}


def tied(config: ModelConfig, params: Tree) -> tuple[ModelConfig, Tree]:
    return config, params | {"lm_head": params["embedding"]}


# What is changed, in which variant.
EDITS: dict[str, tuple[str, Edit]] = {
    "gemma2: no windows": ("gemma2", replaced(windows=())),
    "gemma2: no attention soft-cap": ("gemma2", replaced(attention_softcap=None)),
    "gemma2: query scale": ("gemma2", replaced(query_scale=GEMMA2["head_dim"] ** -0.5)),
    "gemma3: no windows": ("gemma3", replaced(windows=())),
    "gemma3: no scaling": ("gemma3", replaced(rope=Rope(500.0))),
    "gemma3: local rope": ("gemma3", replaced(local_rope=None)),
    "gemma3: no query and key norms": ("gemma3", without_qk_norms),
    "llama: theta": ("llama", replaced(rope=Rope())),
    "llama: epsilon": ("llama", replaced(rms_norm_eps=1e-5)),
    "llama: no linear scaling": ("llama_linear", replaced(rope=Rope(500.0))),
    "llama: no dynamic scaling": ("llama_dynamic", replaced(rope=Rope(500.0))),
    "llama: dynamic scaling of short texts": (
        "llama_dynamic",
        replaced(rope=Rope(500.0, Dynamic(4.0, 5))),
    ),
    "llama 3: no scaling": ("llama_3", replaced(rope=Rope(20.0))),
    "llama 3: none smoothed": (
        "llama_3",
        replaced(rope=Rope(20.0, Llama3(8.0, 0.999, 1.0, original_length=8))),
    ),
    "mistral: a window one wider": ("mistral", replaced(windows=(5, 5))),
    "qwen2: no query bias": ("qwen2", layers_at(0.0, "query_bias")),
    "qwen2: no value bias": ("qwen2", layers_at(0.0, "value_bias")),
    "qwen2: no windows": ("qwen2_window", replaced(windows=())),
    "qwen2: windows everywhere": ("qwen2_window", replaced(windows=(4, 4, 4))),
    "qwen3: no query and key norms": ("qwen3", without_qk_norms),
    "qwen3: neutral query norm": ("qwen3", layers_at(1.0, "query_norm")),
    "qwen3: neutral key norm": ("qwen3", layers_at(1.0, "key_norm")),
}


EDITS_OF_LOGITS: dict[str, tuple[str, Edit]] = {
    "gemma2: no soft-cap": ("gemma2", replaced(logit_softcap=None)),
    "gemma3: no soft-cap": ("gemma3_capped", replaced(logit_softcap=None)),
    "llama: embedding as language-model head": ("llama", tied),
}


def noticed(variant: str, edit: Edit) -> tuple[bool, bool]:
    """Whether rewards and log-probs of the edited model differ from those recorded."""
    model = recorded(variant)
    config, params = edit(model.config, split(model)[1])
    edited = RewardModel(config, model.head_config, params=params)
    _, rewards, logps = parity_values(*split(edited), batch_for(model.config))

    def differ(ours: jax.Array, theirs: np.ndarray) -> bool:  # by ten times what parity allows
        return bool(np.abs(ours - theirs).max() > 1e-3 * np.abs(theirs).max())

    with np.load(FIXTURES / variant / "expected.npz") as expected:
        return differ(rewards, expected["rewards"]), differ(logps, expected["logps"])


@pytest.mark.parametrize("edit", EDITS)
def test_a_fixture_would_notice_a_part_left_out(edit):
    assert noticed(*EDITS[edit]) == (True, True)


@pytest.mark.parametrize("edit", EDITS_OF_LOGITS)
def test_a_fixture_would_notice_a_part_of_the_logits_left_out(edit):
    assert noticed(*EDITS_OF_LOGITS[edit]) == (False, True)
