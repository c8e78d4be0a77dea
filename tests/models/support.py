"""Small models, random token trees and their packed and unpacked batches."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrm.data.packing import (
    Branch,
    PackShape,
    TokenTree,
    measure,
    pack,
    plan_rows,
    tree_length,
)
from jaxrm.models import heads
from jaxrm.models.config import ModelConfig
from jaxrm.models.transformer import merge

# head_dim is not hidden_size / num_attention_heads, and no two sizes are equal, so that no mistaken
# reshape goes unnoticed.
GEMMA = {
    "model_type": "gemma",
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "rope_theta": 500.0,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
CONFIG = ModelConfig.from_hf(GEMMA)


def random_tree(rng: np.random.Generator, prompt: int, branches: tuple[int, ...]) -> TokenTree:
    """Ranks follow the branches' order; the first token of a branch is not always a target."""

    def ids(count: int) -> np.ndarray:
        return rng.integers(3, GEMMA["vocab_size"], count).astype(np.int32)

    made = tuple(Branch(ids(count), rng.random(count) < 0.8) for count in branches)
    return TokenTree(ids(prompt), made, ranks=tuple(range(len(branches))))


def unshared(trees: list[TokenTree]) -> list[TokenTree]:
    """The same responses, each with a prompt of its own."""
    return [TokenTree(tree.prompt, (branch,)) for tree in trees for branch in tree.branches]


def packed(trees: list[TokenTree], length: int):
    """All trees in as few rows of `length` as they need, with all their targets."""
    sizes = measure(trees, ask="all", preferences=False)
    room = np.array([length, 99, 0, 999, 0])
    rows = plan_rows(sizes, room, np.arange(len(trees)))
    most = np.array([sizes[row].sum(0) for row in rows]).max(0)
    shape = PackShape(
        rows=len(rows), length=length, slots=int(most[1]), targets=int(most[3]), ask="all"
    )
    return pack(trees, rows, shape)


def alone(trees: list[TokenTree]):
    """Every tree in a row of its own, no longer than the longest needs."""
    length = max(tree_length(tree) for tree in trees)
    shape = PackShape.fit(trees, rows=len(trees), length=length, ask="all", preferences=False)
    return pack(trees, [[i] for i in range(len(trees))], shape)


def in_order(values: jax.Array, batch, count: int) -> jax.Array:
    """Values per slot [R, S] of `count` responses, [count] in the order of the trees."""
    where = jnp.where(batch.response_mask, batch.response_index, count)
    return jnp.zeros(count + 1).at[where].set(values)[:count]


@functools.partial(jax.jit, static_argnums=0)
def read_off(structure, params, batch):
    """(rewards, response log-probs), each [R, S]."""
    model = merge(structure, params)
    hidden = model.hidden(batch)
    return heads.rewards(model, hidden, batch), heads.response_logps(model, hidden, batch)
