"""Counted work, by hand."""

from __future__ import annotations

import numpy as np

from jaxrm.data import packing
from jaxrm.data.packing import PackShape
from jaxrm.models import transformer
from jaxrm.models.flops import forward_flops, forward_flops_of
from tests.models.support import CONFIG, random_tree


def test_a_token_more_costs_two_operations_for_every_weight():
    layers = transformer.declare(CONFIG, None)["layers"]
    weights = sum(np.prod(p.shape) for name, p in layers.items() if "norm" not in name)
    one, two = (forward_flops(CONFIG, tokens=n, seen=0, targets=0) for n in (1, 2))
    assert two - one == one == 2 * weights


def test_a_target_costs_two_operations_for_every_word_and_feature():
    found = forward_flops(CONFIG, tokens=0, seen=0, targets=3)
    assert found == 3 * 2 * CONFIG.vocab_size * CONFIG.hidden_size


def test_trees_cost_what_their_packed_rows_do_without_the_padding():
    rng = np.random.default_rng(0)
    trees = [random_tree(rng, 3, (2, 4)), random_tree(rng, 5, (1,))]
    shape = PackShape(rows=2, length=32, slots=4, targets=32, ask="all")
    batch = packing.pack(trees, [[0], [1]], shape)
    real = batch.comparison >= 0
    tokens, targets = real.sum(), batch.target_mask.sum()
    seen = (batch.positions[real] + 1).sum()
    by_hand = [1 + 2 + 3, 4 + 5, 4 + 5 + 6 + 7, 1 + 2 + 3 + 4 + 5, 6]
    assert seen == sum(by_hand)
    expected = forward_flops(CONFIG, tokens=tokens, seen=seen, targets=targets)
    assert forward_flops_of(CONFIG, trees, "all") == expected
