"""What is read off the hidden states: rewards, and log-probabilities of response tokens.

Everything here is float32, whatever the trunk computes in. The vocabulary is seen nowhere else, and
only at the positions that predict a target.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrm.data.packing import PackedBatch
from jaxrm.errors import ModelFileError, require
from jaxrm.models.layers import dropout, soft_cap, wide_einsum
from jaxrm.models.parameters import Parameter, Tree, constant, normal

if TYPE_CHECKING:
    from jaxrm.models.transformer import RewardModel

_EXACT = jax.lax.Precision.HIGHEST
_exact_einsum = functools.partial(wide_einsum, precision=_EXACT)


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """A reward head on the hidden state of a response's last token.

    Attributes:
      kind: "linear" is one matrix without bias, which is all that other servers of reward models
        can read. "mlp" is the head of GRM (arXiv 2406.10216): `layers` times (linear, ReLU), then
        linear, with biases; with 0 layers it is GRM's linear head.
      hidden, layers: of the MLP.
      dropout: on the head's input, in training.
      outputs: scores per response: 1 for a reward, several for attributes.

    Raises OptionError for a value out of range.
    """

    kind: Literal["linear", "mlp"] = "linear"
    hidden: int = 1024
    layers: int = 1
    dropout: float = 0.0
    outputs: int = 1

    def __post_init__(self):
        require(self.hidden >= 1, "a head's hidden", "at least 1", self.hidden)
        require(self.layers >= 0, "a head's layers", "at least 0", self.layers)
        require(0 <= self.dropout < 1, "a head's dropout", "in [0, 1)", self.dropout)
        require(self.outputs >= 1, "a head's outputs", "at least 1", self.outputs)

    def __str__(self) -> str:
        layers = f" with {self.layers} hidden layers of {self.hidden}" if self.kind == "mlp" else ""
        return f"kind {self.kind}{layers} and {self.outputs} outputs"


def declare(head: HeadConfig, embed: int) -> Tree:
    """The head's parameters on hidden states of size `embed`.

    Matrices are normal(0, 1/sqrt(inputs + 1)), so that fresh rewards have a variance near 1.
    """

    def matrix(inputs: int, outputs: int, axes: tuple[str, str]) -> Parameter:
        return Parameter((inputs, outputs), axes, normal((inputs + 1) ** -0.5))

    if head.kind == "linear":
        return {"weight": matrix(embed, head.outputs, ("embed", "outputs"))}
    sizes = [embed] + [head.hidden] * head.layers + [head.outputs]
    axes = ["embed"] + ["head_hidden"] * head.layers + ["outputs"]
    declared: Tree = {}
    for i in range(head.layers + 1):
        declared[f"weight_{i}"] = matrix(sizes[i], sizes[i + 1], (axes[i], axes[i + 1]))
        declared[f"bias_{i}"] = Parameter((sizes[i + 1],), (axes[i + 1],), constant(0.0))
    return declared


def combined(
    head: HeadConfig, arrays: Tree, combine: Callable[[jax.Array], jax.Array], outputs: int = 1
) -> tuple[HeadConfig, Tree]:
    """A head whose outputs are what a linear function of the last axis makes of this one's.

    Args:
      combine: gives one number, or `outputs` of them on the last axis.
    """
    last = {
        name: combine(value).reshape(*value.shape[:-1], outputs)
        for name, value in arrays.items()
        if name in ("weight", f"weight_{head.layers}", f"bias_{head.layers}")
    }
    return dataclasses.replace(head, outputs=outputs), arrays | last


def last_weight(model: RewardModel) -> Float[Array, "inputs outputs"]:
    """The matrix whose columns are the head's outputs."""
    head, arrays = model.head_config, model.reward_head.arrays()
    return arrays["weight" if head.kind == "linear" else f"weight_{head.layers}"]


def rewards(
    model: RewardModel,
    hidden: Float[Array, "rows length d"],
    batch: PackedBatch,
    rng: jax.Array | None = None,
) -> Float[Array, "rows slots"]:
    """Float32 reward of each response; 0 in empty slots.

    Args:
      hidden: `model.hidden(batch)`.
      rng: key for the head's dropout, in training; without it nothing is dropped.

    Raises:
      ModelFileError: the head has several outputs, which are no reward until they are combined.
      ValueError: the model has no head.
    """
    _check_single(model)
    return outputs(model, hidden, batch, rng)[..., 0]


def outputs(
    model: RewardModel,
    hidden: Float[Array, "rows length d"],
    batch: PackedBatch,
    rng: jax.Array | None = None,
) -> Float[Array, "rows slots outputs"]:
    """All of the head's outputs for each response, as `rewards` gives the only one."""
    values = of_states(model, _at(hidden, batch.response_end), rng)
    return jnp.where(batch.response_mask[..., None], values, 0.0)


def step_outputs(
    model: RewardModel,
    hidden: Float[Array, "rows length d"],
    batch: PackedBatch,
    rng: jax.Array | None = None,
) -> Float[Array, "rows steps outputs"]:
    """Float32 outputs of the head at the last token of each step, labelled or not; 0 where there is
    none. A step sees the prompt, the steps before it and itself.

    Args:
      hidden, rng: as for `rewards`.

    Raises:
      ValueError: the batch carries no steps, or the model has no head.
    """
    if batch.step_end is None:
        raise ValueError("this batch carries no steps: give its shape some")
    values = of_states(model, _at(hidden, batch.step_end), rng)
    return jnp.where(batch.step_present[..., None], values, 0.0)


def steps_by_response(
    model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch
) -> Float[Array, "rows slots steps"]:
    """The scores of each response's steps, first in its row and in order, 0 after them: what
    `jaxrm.read.reading` takes.

    Raises:
      ModelFileError: the head has several outputs.
      ValueError: as `step_outputs`.
    """
    _check_single(model)
    return batch.by_response(step_outputs(model, hidden, batch)[..., 0])


def _check_single(model: RewardModel) -> None:
    if model.head_config is not None and model.head_config.outputs != 1:
        count = model.head_config.outputs
        raise ModelFileError(f"a reward is one number, and the model's head has {count} outputs")


def of_states(
    model: RewardModel, states: Float[Array, "*n d"], rng: jax.Array | None = None
) -> Float[Array, "*n outputs"]:
    """The head's float32 outputs for any states; `rng` as for `rewards`.

    Raises ValueError where the model has no head.
    """
    if model.reward_head is None:
        raise ValueError("this model has no reward head")
    x = states.astype(jnp.float32)
    if rng is not None:
        x = dropout(x, model.head_config.dropout, rng)
    weights = model.reward_head.arrays()
    if model.head_config.kind == "linear":
        x = jnp.matmul(x, weights["weight"], precision=_EXACT)
    else:
        for i in range(model.head_config.layers + 1):
            x = jax.nn.relu(x) if i else x
            x = jnp.matmul(x, weights[f"weight_{i}"], precision=_EXACT) + weights[f"bias_{i}"]
    return x


def response_logps(
    model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch
) -> Float[Array, "rows slots"]:
    """Float32 log-probability of each response: the sum over its target tokens.

    0 for slots whose targets are not in the batch (`logp_mask`).
    """

    def per_row(logps: jax.Array, slot: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(logps, slot, num_segments=batch.logp_mask.shape[1])

    summed = jax.vmap(per_row)(target_logps(model, hidden, batch), jnp.asarray(batch.target_slot))
    return jnp.where(batch.logp_mask, summed, 0.0)


def target_logps(
    model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch
) -> Float[Array, "rows targets"]:
    """Float32 log-probability of each target token; 0 behind a false mask.

    Logits exist for `compute.logp_chunk` targets of each row at a time, and are computed again in
    the backward pass instead of being kept. Chunks are cut along the targets of a row: flattening
    rows first would make every chunk cross the devices that hold them. Targets fill a row from its
    start, and a chunk that holds none of any row is passed over: spare capacity costs no logits.

    Raises:
      ModelFileError: the model's files left its language-model head out.
    """
    rows, targets = batch.target.shape
    if targets == 0:
        return jnp.zeros((rows, 0), jnp.float32)
    chunk = min(model.compute.logp_chunk, targets)
    chunks = -(-targets // chunk)

    def cut(x: jax.Array) -> jax.Array:
        padding = [(0, 0), (0, chunks * chunk - targets)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, padding).reshape(rows, chunks, chunk, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)

    head = model.embedding if model.config.tie_embeddings else model.lm_head
    if head is None:
        raise ModelFileError(
            "this model has no language-model head, so no log-probs: it comes from the files of a "
            "sequence classifier, which leave lm_head.weight out; its ...ForCausalLM has one"
        )
    weight, cap = head[...], model.config.logit_softcap
    cuts = [cut(_at(hidden, batch.predictor)), cut(jnp.asarray(batch.target))]
    if chunks == 1:  # which is hardly ever empty
        logps_of = functools.partial(_logps, cap)
    else:
        cuts.append(cut(jnp.asarray(batch.target_mask)).any(axis=(1, 2)))
        logps_of = functools.partial(_logps_where_any, cap)
    body = jax.checkpoint(logps_of, prevent_cse=False)
    _, logps = jax.lax.scan(lambda _, xs: (None, body(weight, *xs)), None, tuple(cuts))
    logps = jnp.moveaxis(logps, 0, 1).reshape(rows, chunks * chunk)[:, :targets]
    return jnp.where(batch.target_mask, logps, 0.0)


def _logps(
    cap: float | None,
    weight: Float[Array, "vocab d"],
    states: Float[Array, "rows chunk d"],
    target: Int[Array, "rows chunk"],
) -> Float[Array, "rows chunk"]:
    """Float32 log-probability of each target after its state."""
    logits = _logits(states, weight)
    logits = logits if cap is None else soft_cap(logits, cap)
    # A masked sum where a gather would do: it needs no communication of a split vocabulary.
    is_target = jnp.arange(logits.shape[-1]) == target[..., None]
    chosen = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    return chosen - jax.nn.logsumexp(logits, axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _logps_where_any(
    cap: float | None,
    weight: Float[Array, "vocab d"],
    states: Float[Array, "rows chunk d"],
    target: Int[Array, "rows chunk"],
    any_target: Bool[Array, ""],
) -> Float[Array, "rows chunk"]:
    """`_logps`, or 0 at no cost, of the backward pass neither.

    JAX's own gradient of the two branches would keep a copy of `weight` for every chunk.
    """
    empty = jnp.zeros(target.shape, jnp.float32)
    logps_of = functools.partial(_logps, cap)
    return jax.lax.cond(any_target, logps_of, lambda *_: empty, weight, states, target)


def _where_any_forward(cap: float | None, *kept: jax.Array):
    return _logps_where_any(cap, *kept), kept


def _where_any_backward(cap: float | None, kept: tuple[jax.Array, ...], gradient: jax.Array):
    weight, states, target, any_target = kept

    def pull(*factors: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vjp(lambda *factors: _logps(cap, *factors, target), *factors)[1](gradient)

    def nothing(*factors: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(map(jnp.zeros_like, factors))

    return *jax.lax.cond(any_target, pull, nothing, weight, states), None, None


_logps_where_any.defvjp(_where_any_forward, _where_any_backward)


@jax.custom_vjp
def _logits(
    states: Float[Array, "rows chunk d"], weight: Float[Array, "vocab d"]
) -> Float[Array, "rows chunk vocab"]:
    """Float32 logits from factors in the dtype of `states`.

    The gradient's factors are rounded to that dtype too: by default they would be float32, and in
    a bfloat16 model the backward products many times slower than the forward one. Sums stay
    float32, and so does the weight's gradient.
    """
    return _exact_einsum("rcd,vd->rcv", states, weight.astype(states.dtype))


def _logits_forward(states: jax.Array, weight: jax.Array):
    return _logits(states, weight), (states, weight)


def _logits_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array):
    states, weight = kept
    gradient = gradient.astype(states.dtype)
    to_states = _exact_einsum("rcv,vd->rcd", gradient, weight.astype(states.dtype))
    to_weight = _exact_einsum("rcv,rcd->vd", gradient, states)
    return to_states.astype(states.dtype), to_weight.astype(weight.dtype)


_logits.defvjp(_logits_forward, _logits_backward)


def _at(
    hidden: Float[Array, "rows length d"], index: Int[Array, "rows n"]
) -> Float[Array, "rows n d"]:
    """The states at `index`, which counts within each row."""
    return jnp.take_along_axis(hidden, jnp.asarray(index)[..., None], axis=1)
