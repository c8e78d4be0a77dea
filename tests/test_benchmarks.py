"""What the step benchmark counts, by hand, and that it runs. Nothing here is timed."""

import dataclasses

import numpy as np
import pytest

from benchmarks import step
from experiments.grm_gemma import PRESETS
from jaxrm.data import packing, planning
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.models.config import ModelConfig
from jaxrm.parallel import MeshShape


def small_batch():
    def branch(count):
        return Branch(np.arange(count, dtype=np.int32), np.ones(count, bool))

    tree = TokenTree(np.arange(3, dtype=np.int32), (branch(2), branch(1)), ranks=(0, 1))
    shape = planning.fit_shape([tree], rows=1, length=16, ask="best")
    return packing.pack([tree], [[0]], shape)


# Two layers of 1024 + 512 + 512 + 1024 + 3 * 2048 weights; 6 tokens that see 1 + 2 + 3 + 4 + 5 + 4;
# 2 targets over 512 words of 32 features; LoRA of 2 * (2048 + 1536 + 1536 + 2048) weights.
TRUNK = 2 * 6 * 18432 + 4 * 19 * 2 * 16 * 2
VOCABULARY = 2 * 2 * 32 * 512


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("gemma-2b-it-full", 3 * (TRUNK + VOCABULARY)),
        ("gemma-2b-it-lora", 2 * (TRUNK + VOCABULARY) + 6 * 6 * 14336),
    ],
)
def test_useful_work_by_hand(preset, expected):
    decoder = ModelConfig.from_hf(step.SHAPES["tiny"])
    assert step.useful_flops(decoder, small_batch(), PRESETS[preset]) == expected


def test_the_published_shapes_are_the_models():
    sizes = {}
    for name in ("gemma-2b", "gemma-2-2b"):
        declared = step.transformer.declare(ModelConfig.from_hf(step.SHAPES[name]), None)
        leaves = step.jax.tree.leaves(declared, is_leaf=lambda leaf: hasattr(leaf, "init"))
        sizes[name] = sum(np.prod(leaf.shape) for leaf in leaves)
    assert sizes == {"gemma-2b": 2_506_172_416, "gemma-2-2b": 2_614_341_888}


def test_a_step_is_measured(monkeypatch):
    tiny = dataclasses.replace(PRESETS["gemma-2b-it-lora"], row_length=64, max_length=48)
    monkeypatch.setitem(step.PRESETS, "gemma-2b-it-lora", tiny)
    config = step.Config(shapes="tiny", rows=8, steps=2, peak=1.0, mesh=MeshShape(2, 2, 2))
    found = step.measure(config)
    assert found["pairs"] > 4
    assert 0.5 < found["token_efficiency"] <= 1
    assert found["memory_gib"]["state_and_batch"] > 0
    assert found["memory_gib"]["total"] > found["memory_gib"]["temporary"]
    rate = found["useful_tflops"] / found["seconds"] / 8
    assert found["mfu"] == pytest.approx(rate)
    assert found["pairs_per_second"] == pytest.approx(found["pairs"] / found["seconds"])
