"""Small models, random token trees and their packed and unpacked batches."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrm.data import planning
from jaxrm.data.packing import Branch, PackShape, TokenTree, measure, pack
from jaxrm.huggingface import families, hub, tensorfile
from jaxrm.models import heads
from jaxrm.models.config import ModelConfig
from jaxrm.models.parameters import Tree
from jaxrm.models.transformer import Compute, RewardModel, declare, merge

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
# A window shorter than any text here, caps that bind, and a query scale of its own; an odd number
# of layers, of which the first and the last have the window.
GEMMA2 = GEMMA | {
    "model_type": "gemma2",
    "num_hidden_layers": 3,
    "sliding_window": 4,
    "query_pre_attn_scalar": 7,
    "attn_logit_softcapping": 1.5,
    "final_logit_softcapping": 2.0,
}
# The other families, smaller still; an epsilon that is felt.
_SMALL = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 22,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_theta": 500.0,
    "rms_norm_eps": 0.01,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
FAMILIES = {
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    # Local, global and local layers, each kind with a rotary embedding of its own.
    "gemma3_text": _SMALL
    | {
        "model_type": "gemma3_text",
        "num_hidden_layers": 3,
        "head_dim": 10,
        "sliding_window": 4,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 7,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        "rope_local_base_freq": 20.0,
    },
    "llama": _SMALL | {"model_type": "llama", "head_dim": 10, "tie_word_embeddings": False},
    "mistral": _SMALL
    | {
        "model_type": "mistral",
        "num_key_value_heads": 1,
        "sliding_window": 4,
        "tie_word_embeddings": False,
    },
    "qwen2": _SMALL | {"model_type": "qwen2", "tie_word_embeddings": False},
    "qwen3": _SMALL | {"model_type": "qwen3", "head_dim": 10, "tie_word_embeddings": True},
}
"""A small decoder of every family, as the raw contents of a `config.json`."""

CONFIG = families.read(GEMMA)


def random_tree(rng: np.random.Generator, prompt: int, branches: tuple[int, ...]) -> TokenTree:
    """Ranks follow the branches' order; the first token of a branch is not always a target."""

    def ids(count: int) -> np.ndarray:
        return rng.integers(3, GEMMA["vocab_size"], count).astype(np.int32)

    made = tuple(Branch(ids(count), rng.random(count) < 0.8) for count in branches)
    return TokenTree(ids(prompt), made, ranks=tuple(range(len(branches))))


def packed(trees: list[TokenTree], shape: PackShape):
    """The trees in as few rows as they need, the rest of the batch empty."""
    sizes = measure(trees, ask=shape.ask, preferences=False)
    rows = planning.plan_rows(sizes, shape.capacity, np.arange(len(trees)))
    return pack(trees, rows, shape)


def alone(trees: list[TokenTree], shape: PackShape):
    """Every response in a row of its own, with a prompt of its own."""
    single = [TokenTree(tree.prompt, (branch,)) for tree in trees for branch in tree.branches]
    return pack(single, [[i] for i in range(len(single))], shape)


def small_model(
    config: ModelConfig, head: heads.HeadConfig | None, seed: int = 0, **compute
) -> RewardModel:
    """A model in which no parameter is at its neutral value, without compiling an initialiser."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda p: jnp.asarray(0.2 * rng.standard_normal(p.shape), jnp.float32),
        declare(config, head),
    )
    return RewardModel(config, head, compute=Compute(**compute), params=params)


def in_order(values: jax.Array, batch, count: int) -> jax.Array:
    """Values per slot [R, S] of `count` responses, [count] in the order of the trees."""
    where = jnp.where(batch.response_mask, batch.response_index, count)
    return jnp.zeros(count + 1).at[where].set(values)[:count]


# A small model runs once in a test: code that is ready sooner is faster there.
quick_jit = functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)


@quick_jit
def read_off(structure, params, batch):
    """(rewards, response log-probs), each [R, S]."""
    model = merge(structure, params)
    hidden = model.hidden(batch)
    return heads.rewards(model, hidden, batch), heads.response_logps(model, hidden, batch)


def _values(structure, params, batch):
    model = merge(structure, params)
    hidden = model.hidden(batch)
    rewards = in_order(heads.rewards(model, hidden, batch), batch, 6)
    return hidden, rewards, in_order(heads.response_logps(model, hidden, batch), batch, 6)


@quick_jit
def parity_values(structure, params, batch):
    """(hidden, rewards [6], log-probs [6]) of `make_fixtures.trees` in JAX."""
    return _values(structure, params, batch)


@quick_jit
def parity_loss(structure, params, batch):
    """((loss, `parity_values`), gradients) of `make_fixtures.expectations` in JAX."""

    def loss_fn(params):
        _, rewards, logps = values = _values(structure, params, batch)
        loss = -jax.nn.log_sigmoid(rewards[0::2] - rewards[1::2]).sum() - 0.01 * logps.sum()
        return loss, values

    return jax.value_and_grad(loss_fn, has_aux=True)(params)


def named_gradients(model: RewardModel, gradients: Tree, scratch: Path) -> dict[str, np.ndarray]:
    """Gradients in the structure of a model's parameters, by torch's names of these."""
    # Saved like a model they get the names. The files of a reward model leave out a language-model
    # head that is not the embedding.
    of_loss = RewardModel(model.config, model.head_config, params=gradients)
    kinds = {"rewards": of_loss}
    if not model.config.tie_embeddings:
        kinds["language"] = of_loss.language_model()
    named: dict[str, np.ndarray] = {}
    for kind, holder in kinds.items():
        hub.save(holder, scratch / kind)
        named |= tensorfile.read(scratch / kind / "model.safetensors")
    return named


def assert_close(ours, theirs, tolerance: float, name: str) -> None:
    """Equal up to a share `tolerance` of the largest value."""
    scale = np.abs(theirs).max()
    assert scale > 1e-3, f"{name} is too small to tell anything"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale, err_msg=name)


def assert_parity(found, expected, batch) -> None:
    """What `parity_loss` found, gradients apart, equals what `make_fixtures` recorded."""
    loss, values = found
    assert_close(loss, expected["loss"], 1e-4, "loss")
    assert_values(values, expected, batch)


def assert_values(values, expected, batch) -> None:
    """What `parity_values` found equals what `make_fixtures` recorded."""
    hidden, rewards, logps = values
    assert_close(rewards, expected["rewards"], 1e-4, "rewards")
    assert_close(logps, expected["logps"], 1e-4, "logps")
    for row, slot in np.argwhere(batch.response_mask):
        response = batch.response_index[row, slot]
        tree = batch.response_comparison[row, slot]
        branch = batch.branch[row, batch.response_end[row, slot]]
        of_tree = batch.comparison[row] == tree
        mine = of_tree & ((batch.branch[row] == 0) | (batch.branch[row] == branch))
        name = f"hidden_{response}"
        assert_close(hidden[row][mine], expected[name], 1e-4, name)
