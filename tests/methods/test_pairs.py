"""Losses on pairs by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm import toy
from jaxrm.data import chat, packing
from jaxrm.data.planning import pair_shape
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.methods.pairs import PAIRS
from jaxrm.models import heads


class Hidden:
    """A model without states, whose rewards are patched in."""

    lora = None

    @staticmethod
    def hidden(batch, rng=None):
        return None


@pytest.fixture
def trees(monkeypatch):
    """One pair, whose chosen reward is 0 and whose rejected reward is 1."""
    monkeypatch.setattr(
        heads, "rewards", lambda model, hidden, batch, rng: batch.response_index.astype(jnp.float32)
    )
    return chat.tokenize(toy.World(0).comparisons("train", 1), load_tokenizer(toy.TOKENIZER))


def terms(name, strength, trees):
    batch = packing.pack(trees, [[0]], pair_shape(2, 160, "none"))
    return PAIRS[name].loss(strength)(Hidden, batch, None)


def test_bsr_is_the_square_of_the_mean_reward(trees):
    level = terms("bsr", 0.3, trees)["regularizer"]
    assert (level.coefficient, float(level.value)) == (0.3, 0.25)


def test_pcrm_holds_the_margin_near_its_prior_on_lengths(trees):
    lengths = [int(branch.targets.sum()) for branch in trees[0].branches]
    target = 2.0 / (min(lengths) / max(lengths) + 0.1)
    loss = terms("pcrm_length", 2.0, trees)["reward"].values[0, 0]
    wanted = np.logaddexp(0, 1) + np.logaddexp(0, -1 - target)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
