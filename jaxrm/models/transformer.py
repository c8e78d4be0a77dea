"""The decoder with its reward head: declaration, creation and the forward pass.

Flax NNX holds the parameters and nothing more; computation is plain functions of arrays. Layers are
stacked along a leading axis and scanned over, so that compile time does not grow with depth.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxrm.data.packing import PackedBatch
from jaxrm.models import attention, heads
from jaxrm.models.attention import Form
from jaxrm.models.config import ModelConfig
from jaxrm.models.layers import ACTIVATIONS, gated, project, rms_norm
from jaxrm.models.lora import LoraConfig, apply_update, declare_update, merge_update
from jaxrm.models.parameters import Parameter, Tree, constant, initialise, normal, shapes
from jaxrm.models.rotary import Angles, turn
from jaxrm.parallel import ShardingRules, constrain_rows, shardings

Remat = Literal["none", "dots", "full"]

# Wider than any row: a layer without a window among layers that have one.
_NO_WINDOW = 2**30


@dataclasses.dataclass(frozen=True)
class Compute:
    """How to compute, which changes speed and memory but not what is meant.

    Attributes:
      dtype: of activations and of weights at their use. Norms, softmax, reward heads and log-probs
        are float32 whatever this says. Matrix products in the trunk follow JAX's
        `jax_default_matmul_precision`, which on TPU and GPU rounds float32 inputs unless raised.
      remat: what a layer keeps for its backward pass: everything but the insides of norms and
        activations, the results of its weight products, or its input alone.
      logp_chunk: language-model targets per row whose logits exist at the same time.
      attention: its form, in place of the one that suits the machine.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Remat = "none"
    logp_chunk: int = 256
    attention: Form | None = None


def declare(
    config: ModelConfig, head: heads.HeadConfig | None, lora: LoraConfig | None = None
) -> Tree:
    """Every parameter of a model, as nested dicts of `Parameter`."""
    layers, embed, hidden = config.num_layers, config.hidden_size, config.intermediate_size
    queries, keys = (config.num_heads, config.head_dim), (config.num_kv_heads, config.head_dim)
    matrix = normal(config.initializer_range)
    identity = constant(1.0 - config.norm_offset)
    query_axes, key_axes = ("heads", "head_dim"), ("kv_heads", "head_dim")

    def stacked(shape: tuple[int, ...], axes: tuple[str, ...], init: Any = matrix) -> Parameter:
        return Parameter((layers, *shape), ("layers", *axes), init)

    declared: Tree = {
        "embedding": Parameter((config.vocab_size, embed), ("vocab", "embed"), matrix),
        "layers": {
            "attention_norm": stacked((embed,), ("embed",), identity),
            "query": stacked((embed, *queries), ("embed", *query_axes)),
            "key": stacked((embed, *keys), ("embed", *key_axes)),
            "value": stacked((embed, *keys), ("embed", *key_axes)),
            "output": stacked((*queries, embed), (*query_axes, "embed")),
            "mlp_norm": stacked((embed,), ("embed",), identity),
            "gate": stacked((embed, hidden), ("embed", "mlp")),
            "up": stacked((embed, hidden), ("embed", "mlp")),
            "down": stacked((hidden, embed), ("mlp", "embed")),
        },
        "final_norm": Parameter((embed,), ("embed",), identity),
    }
    if config.post_norms:
        for name in ("attention_post_norm", "mlp_post_norm"):
            declared["layers"][name] = stacked((embed,), ("embed",), identity)
    if config.qkv_bias:
        zero = constant(0.0)
        declared["layers"]["query_bias"] = stacked(queries, query_axes, zero)
        declared["layers"]["key_bias"] = stacked(keys, key_axes, zero)
        declared["layers"]["value_bias"] = stacked(keys, key_axes, zero)
    if config.qk_norms:
        for name in ("query_norm", "key_norm"):
            declared["layers"][name] = stacked((config.head_dim,), ("head_dim",), identity)
    if config.language_head and not config.tie_embeddings:
        declared["lm_head"] = Parameter((config.vocab_size, embed), ("vocab", "embed"), matrix)
    if head is not None:
        declared["reward_head"] = heads.declare(head, embed)
    if lora is not None:
        declared["lora"] = declare_update(lora, declared["layers"])
    return declared


class Group(nnx.Module):
    """Named parameters that belong together, as attributes."""

    def __init__(self, members: dict[str, nnx.Param]):
        for name, member in members.items():
            setattr(self, name, member)

    def arrays(self) -> dict[str, jax.Array]:
        """The parameters' values by name."""
        return nnx.to_pure_dict(nnx.state(self))


class RewardModel(nnx.Module):
    """A decoder with a reward head and a language-model head over the same hidden states.

    Attributes:
      embedding: [vocab, embed].
      layers: a `Group`; every parameter is stacked along a leading layer axis.
      final_norm: [embed].
      lm_head: [vocab, embed], or None where the embedding serves or there is none.
      reward_head: a `Group` as `jaxrm.models.heads` declares it, or None for a language model.
      lora: a `Group` as `jaxrm.models.lora` declares it, or None.
    """

    def __init__(
        self,
        config: ModelConfig,
        head: heads.HeadConfig | None,
        lora: LoraConfig | None = None,
        *,
        compute: Compute = Compute(),
        seed: int = 0,
        params: Tree | None = None,
    ):
        """Holds `params`, or float32 values drawn from `seed` on the default device.

        Raises:
          ValueError: `params` is not what the configuration declares.
        """
        declared = declare(config, head, lora)
        if params is None:
            params = jax.jit(functools.partial(initialise, declared))(seed)
        if shapes(params) != shapes(declared):
            raise ValueError("params are not those that the configuration declares")
        held = jax.tree.map(lambda p, value: nnx.Param(value, axes=p.axes), declared, params)
        self.config, self.compute = config, compute
        self.head_config, self.lora_config = head, lora
        self.embedding = held["embedding"]
        self.layers = Group(held["layers"])
        self.final_norm = held["final_norm"]
        self.lm_head = held.get("lm_head")
        self.reward_head = None if head is None else Group(held["reward_head"])
        self.lora = None if lora is None else Group(held["lora"])

    def hidden(
        self, batch: PackedBatch, rng: jax.Array | None = None
    ) -> Float[Array, "rows length d"]:
        """Hidden states after the final norm, in the compute dtype; padding's are meaningless.

        Args:
          rng: key for LoRA's dropout, in training; without it nothing is dropped.
        """
        config, dtype = self.config, jnp.dtype(self.compute.dtype)
        # jnp.take answers an id beyond the vocabulary with NaN, where indexing would clamp it.
        x = jnp.take(self.embedding[...], batch.tokens, axis=0).astype(dtype)
        x = constrain_rows(x * jnp.asarray(config.embedding_scale, dtype))
        attend_to = attention.over(batch, self.compute.attention)
        lengths = _lengths(batch)
        everywhere, in_windows = (
            rope.angles(batch.positions, lengths, config.head_dim)
            for rope in (config.rope, config.local_rope or config.rope)
        )

        def layer(x: jax.Array, scanned: tuple[Any, ...]) -> tuple[jax.Array, None]:
            weights, updates, window, key = scanned

            def projected(name: str, x: jax.Array) -> jax.Array:
                result = project(x, weights[name].astype(x.dtype))
                if f"{name}_bias" in weights:
                    result = result + weights[f"{name}_bias"].astype(x.dtype)
                if self.lora is None:
                    return result
                return result + apply_update(self.lora_config, updates, name, x, key)

            attend = functools.partial(
                attend_to,
                scale=config.query_scale,
                window=window,
                softcap=config.attention_softcap,
            )
            angles = everywhere
            if config.local_rope is not None and window is not None:
                local = window < _NO_WINDOW
                angles = jax.tree.map(functools.partial(jnp.where, local), in_windows, everywhere)
            return constrain_rows(_layer(config, weights, projected, x, angles, attend)), None

        updates = None if self.lora is None else self.lora.arrays()
        keys = None if rng is None else jax.random.split(rng, config.num_layers)
        scanned = (self.layers.arrays(), updates, _windows(config), keys)
        x, _ = jax.lax.scan(_remat(layer, self.compute.remat), x, scanned)
        flat = _norm(config, x.reshape(-1, config.hidden_size), self.final_norm[...])
        return flat.reshape(x.shape)

    def language_model(self) -> RewardModel:
        """The same arrays without the reward head."""
        params = split(self)[1]
        params.pop("reward_head", None)
        return RewardModel(self.config, None, self.lora_config, compute=self.compute, params=params)

    def without_lora(self) -> RewardModel:
        """The same arrays with LoRA off: the model that training began from, but for its head."""
        params = split(self)[1]
        params.pop("lora", None)
        return RewardModel(self.config, self.head_config, compute=self.compute, params=params)

    def with_head(self, head: heads.HeadConfig, arrays: Tree) -> RewardModel:
        """The same trunk under another head, whose parameters are given."""
        params = split(self)[1] | {"reward_head": jax.tree.map(jnp.asarray, arrays)}
        return RewardModel(self.config, head, self.lora_config, compute=self.compute, params=params)

    def merged(self) -> RewardModel:
        """A model without LoRA that computes the same, up to rounding."""
        if self.lora is None:
            return self
        params = split(self)[1]
        merge_layers = jax.jit(functools.partial(merge_update, self.lora_config))
        layers = params["layers"]
        # Only what changes goes through jit, which copies all that it returns.
        updated = {name: layers[name] for name in self.lora_config.targets}
        params["layers"] = layers | merge_layers(params.pop("lora"), updated)
        return RewardModel(self.config, self.head_config, compute=self.compute, params=params)


def _layer(
    config: ModelConfig,
    weights: dict[str, jax.Array],
    projected: Callable[[str, jax.Array], jax.Array],
    x: Float[Array, "rows length d"],
    angles: Angles,
    attend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> Float[Array, "rows length d"]:
    """One decoder layer.

    Args:
      weights: the layer's own; products with them go through `projected`.
      projected: (name, input) -> the product with that weight of the layer.
      attend: (query, key, value) -> attention's result.
    """
    rows, length, embed = x.shape
    flat = x.reshape(rows * length, embed)

    def in_rows(flat: jax.Array) -> jax.Array:
        return flat.reshape(rows, length, *flat.shape[1:])

    normed = _norm(config, flat, weights["attention_norm"])
    query, key, value = (projected(name, normed) for name in ("query", "key", "value"))
    if config.qk_norms:
        query = _norm(config, query, weights["query_norm"])
        key = _norm(config, key, weights["key_norm"])
    mixed = attend(turn(in_rows(query), angles), turn(in_rows(key), angles), in_rows(value))
    change = projected("output", mixed.reshape(rows * length, *mixed.shape[2:]))
    if config.post_norms:
        change = _norm(config, change, weights["attention_post_norm"])
    flat = flat + change

    normed = _norm(config, flat, weights["mlp_norm"])
    activation = ACTIVATIONS[config.activation]
    inside = gated(activation, projected("gate", normed), projected("up", normed))
    change = projected("down", inside)
    if config.post_norms:
        change = _norm(config, change, weights["mlp_post_norm"])
    return (flat + change).reshape(x.shape)


def _norm(
    config: ModelConfig, x: Float[Array, "*shape d"], weight: Float[Array, " d"]
) -> Float[Array, "*shape d"]:
    return rms_norm(x, weight, eps=config.rms_norm_eps, offset=config.norm_offset)


def _lengths(batch: PackedBatch) -> Int[Array, "rows length"]:
    """How long the longest branch of each token's comparison is, with its prompt."""
    comparison, positions = jnp.asarray(batch.comparison), jnp.asarray(batch.positions)
    together = comparison[:, :, None] == comparison[:, None, :]
    return 1 + jnp.max(jnp.where(together, positions[:, None, :], 0), axis=-1)


def _windows(config: ModelConfig) -> Int[Array, " layers"] | None:
    """Each layer's window, to be scanned beside its weights; None where no layer has one."""
    if all(window is None for window in config.windows):
        return None
    return jnp.array([_NO_WINDOW if window is None else window for window in config.windows])


def _remat(layer: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    if remat == "none":
        return layer
    policies = jax.checkpoint_policies
    keep = policies.nothing_saveable
    if remat == "dots":
        keep = policies.dots_with_no_batch_dims_saveable
    # Inside a scan the compiler cannot undo the recomputation, so it need not be kept from trying.
    return jax.checkpoint(layer, policy=keep, prevent_cse=False)


def create(
    config: ModelConfig,
    head: heads.HeadConfig | None,
    lora: LoraConfig | None = None,
    *,
    compute: Compute = Compute(),
    seed: int = 0,
    mesh: Mesh | None = None,
    rules: ShardingRules | None = None,
) -> RewardModel:
    """A fresh model whose values are drawn on the devices that will hold them.

    The values are those of `RewardModel(config, head, lora, seed=seed)`, up to rounding, on any
    mesh. No device, and not the host, ever holds more than its own share.
    """
    declared = declare(config, head, lora)
    placement = placements(declared, mesh, rules or ShardingRules())
    params = jax.jit(functools.partial(initialise, declared), out_shardings=placement)(seed)
    return RewardModel(config, head, lora, compute=compute, params=params)


def placements(declared: Tree, mesh: Mesh | None, rules: ShardingRules) -> Tree | None:
    """The sharding of every declared parameter on a mesh; None without one."""
    if mesh is None:
        return None
    return shardings(jax.tree.map(lambda p: p.axes, declared), declared, mesh, rules)


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Tree]:
    """(structure, params): a hashable description, and a plain nested dict of arrays."""
    structure, state = nnx.split(model)
    return structure, nnx.to_pure_dict(state)


def merge(structure: nnx.GraphDef, params: Tree) -> Any:
    """The model again, holding `params`: arrays or tracers, so that a loss may call this in jit."""
    return nnx.merge(structure, params)


def axes(model: nnx.Module) -> Tree:
    """The logical axes of every parameter, in the structure of `split`'s params."""
    named: Tree = {}
    for path, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Param):
            group = named
            for name in path[:-1]:
                group = group.setdefault(name, {})
            group[path[-1]] = node.axes
    return named
