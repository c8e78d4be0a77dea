"""The work that a forward pass cannot do without, counted honestly.

Each prompt once, no padding, no recomputation, and the vocabulary only where a target's log-prob is
used. A backward pass that reaches all weights is two forward passes more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxrm.data.packing import Ask, TokenTree, measure, tree_length
from jaxrm.models import transformer
from jaxrm.models.config import ModelConfig


def forward_flops(config: ModelConfig, *, tokens: int, seen: int, targets: int) -> float:
    """Floating-point operations of the trunk and of the vocabulary's logits.

    Args:
      tokens: that the model reads.
      seen: tokens that each of them attends to, itself among them, summed over all.
      targets: tokens whose log-prob is asked for.
    """
    layers = transformer.declare(config, None)["layers"]
    matrices = sum(np.prod(p.shape) for name, p in layers.items() if "norm" not in name)
    attention = 4 * seen * config.num_heads * config.head_dim * config.num_layers
    vocabulary = 2 * targets * config.hidden_size * config.vocab_size
    return float(2 * tokens * matrices + attention + vocabulary)


def forward_flops_of(config: ModelConfig, trees: Sequence[TokenTree], ask: Ask = "none") -> float:
    """`forward_flops` of every tree once, wherever it is packed."""
    # A token at position p of its tree sees p + 1 tokens.
    seen = sum(
        _sum_to(len(tree.prompt))
        + sum(
            _sum_to(len(tree.prompt) + len(branch.tokens)) - _sum_to(len(tree.prompt))
            for branch in tree.branches
        )
        for tree in trees
    )
    targets = int(measure(trees, ask=ask, preferences=False)[:, 3].sum())
    return forward_flops(config, tokens=sum(map(tree_length, trees)), seen=seen, targets=targets)


def _sum_to(n: int) -> int:
    """1 + 2 + ... + n."""
    return n * (n + 1) // 2
