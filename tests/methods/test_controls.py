"""Controls, by hand: the pull to the start, the text beside the comparisons, the fitted head."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm import toy
from jaxrm.data import packing
from jaxrm.data.planning import reading_shape
from jaxrm.errors import OptionError
from jaxrm.evaluate.probe import final_states, fit_head
from jaxrm.methods.bench import Bench, WithText
from jaxrm.methods.controls import pull_to_start, replay
from jaxrm.methods.library import METHODS
from jaxrm.methods.task import InMemory, Task
from jaxrm.models import transformer
from jaxrm.models.heads import HeadConfig
from tests.methods.small_base import small_base

VOCABULARY = json.loads((toy.TOKENIZER / "config.json").read_text())["vocab_size"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(small_base(tmp_path_factory.mktemp("base")), rows=2)


@pytest.fixture(scope="module")
def pairs():
    return toy.World(seed=0, label_noise=0.25, cue_agreement=0.7).comparisons("train", 30)


def test_the_pull_by_hand(bench):
    params, gradient = {"w": jnp.array([1.0])}, {"w": jnp.array([0.5])}
    pull = pull_to_start(10.0)
    updates, _ = pull.update(gradient, pull.init(params), {"w": jnp.array([3.0])})
    assert updates["w"] == pytest.approx(20.5)  # 0.5 + 10 (3 - 1)
    pulled = bench.optimizer_at(METHODS["l2"], 2.0)(0.1)
    updates, _ = pulled.update({"w": jnp.zeros(1)}, pulled.init(params), {"w": jnp.array([3.0])})
    assert updates["w"] == pytest.approx(-0.4)  # -0.1 x 2 (3 - 1), and nothing of Adam's


def test_replay_shares_its_loss_with_text(bench, pairs):
    trees = bench.trees(pairs[:3])
    texts = bench.texts(toy.World(seed=0).pretraining_text(4))
    assert max(map(packing.tree_length, texts)) <= bench.length
    batch = WithText(
        packing.pack(trees, [[0, 1], [2]], bench.shape(bench, METHODS["replay"], trees)),
        packing.pack(texts, [[0]], reading_shape(2, bench.length, "all")),
    )
    tokens = [*map(packing.tree_length, trees), packing.tree_length(texts[0])]
    assert (batch.comparison >= 0).sum() == sum(tokens)
    start = bench.start(0)

    @jax.jit
    def losses(params):
        model = transformer.merge(bench.structure(), params)
        return replay(0.2)(model, batch, jax.random.key(0))

    terms = losses(start | {"embedding": np.zeros_like(start["embedding"])})
    reward, text = terms["reward"], terms["text"]
    np.testing.assert_allclose([reward.coefficient, text.coefficient], [0.8, 0.2], rtol=1e-6)
    assert reward.weights.sum() == 3
    # Without an embedding every reward is 0, and every token as likely as any other.
    np.testing.assert_allclose(reward.values[reward.weights > 0], math.log(2), rtol=1e-6)
    assert text.weights.sum() == packing.measure(texts[:1], ask="all", preferences=False)[0, 3]
    np.testing.assert_allclose(text.values[text.weights > 0], math.log(VOCABULARY), rtol=1e-6)


def test_lp_ft_starts_from_the_fitted_head(bench, pairs, monkeypatch):
    begun = []
    points = Bench.points

    def watched(bench, *args, params, **options):
        begun.append(params)
        return points(bench, *args, params=params, **options)

    monkeypatch.setattr(Bench, "points", watched)
    packed = bench.pack(pairs)
    Task(bench, InMemory(packed), packed, 1e-3, None, 1, 0, steps=1).train(METHODS["lp_ft"])
    states = bench.read(bench.start(0), packed, {"states": final_states})["states"]
    weight = begun[0]["reward_head"]["weight"]
    np.testing.assert_allclose(weight[:, 0], fit_head(list(states), pairs), rtol=1e-4)
    rewards = states @ weight[:, 0]
    loss = np.logaddexp(0, rewards[:, 1] - rewards[:, 0]).mean()
    assert loss < math.log(2)  # that of a head that knows nothing
    deep = Bench(bench.base, head=HeadConfig("mlp", hidden=4))
    with pytest.raises(OptionError, match="must be linear"):
        Task(deep, InMemory(packed), packed, 1e-3, None, 1, 0).train(METHODS["lp_ft"])
