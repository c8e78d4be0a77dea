"""One optimizer step over a window of micro-batches, as one jitted function.

Two passes. The first asks the loss function for its weights only, and sums them over the window:
the denominators. The second accumulates the gradient of sum(values * weights) / denominator, one
micro-batch after another. Dividing before differentiating is what makes four small batches equal
to one large one when examples fall unevenly; the mean of four means is another loss.

The first pass costs next to nothing: weights depend on the batch alone, so the forward pass that
the loss function traces beside them has no consumer, and the compiler removes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxrm.errors import AccumulationError
from jaxrm.models.transformer import merge
from jaxrm.train.optimizer import AtRate
from jaxrm.train.state import Params, TrainState, join
from jaxrm.train.terms import BatchTerm, LossFn, Monitor, Term, Terms, total_weight, weighted_sum

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Any, jax.typing.ArrayLike], tuple[TrainState, Metrics]]
"""(state, window of micro-batches, learning rate) -> the next state, and what it was like."""
MicroBatch = tuple[jax.Array, Any]
"""Its index in the window and its arrays."""


def make_train_step(
    loss_fn: LossFn,
    structure: nnx.GraphDef,
    optimizer: AtRate,
    shardings: TrainState,
) -> TrainStep:
    """A jitted `step(state, batches, rate) -> (state, metrics)`; the state is donated.

    `batches` is a window: every leaf is [micro-batches, rows, ...]. The loss function gets a key of
    its own for every step and micro-batch. The new state keeps `shardings` (see shardings_of), so
    that the step compiles once: an output laid out otherwise would be a new kind of input.

    Metrics are scalars of the window: "loss"; "loss/<term>", each with its coefficient, so that
    they add up to "loss"; every monitor; "grad_norm" before clipping; "param_norm" (before the
    update) and "update_norm" of the trainable parameters; "tokens", those that are not padding,
    where the batch has a `comparison` array.

    Raises AccumulationError, when traced, for a BatchTerm in a window of several micro-batches.
    """

    def step(state: TrainState, batches: Any, rate: jax.Array) -> tuple[TrainState, Metrics]:
        window = jax.tree.leaves(batches)[0].shape[0]
        micro_batches = (jnp.arange(window), batches)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)

        def evaluate(trainable: Params, micro_batch: MicroBatch) -> Terms:
            index, batch = micro_batch
            model = merge(structure, join(trainable, state.frozen))
            terms = loss_fn(model, batch, jax.random.fold_in(key, index))
            _check_additive(terms, window)
            return terms

        def weigh(_: None, micro_batch: MicroBatch) -> tuple[None, Metrics]:
            return None, denominators(evaluate(state.trainable, micro_batch))

        weights = jax.tree.map(jnp.sum, jax.lax.scan(weigh, None, micro_batches)[1])

        def objective(trainable: Params, micro_batch: MicroBatch) -> tuple[jax.Array, Any]:
            terms = evaluate(trainable, micro_batch)
            losses = _shares(terms, weights)
            monitors = {n: t.summary() for n, t in terms.items() if isinstance(t, Monitor)}
            return sum(losses.values()), (losses, monitors)

        def accumulate(gradient: Params, micro_batch: MicroBatch) -> tuple[Params, Any]:
            part, seen = jax.grad(objective, has_aux=True)(state.trainable, micro_batch)
            return jax.tree.map(jnp.add, gradient, part), seen

        zeros = jax.tree.map(jnp.zeros_like, state.trainable)
        zeros = jax.lax.with_sharding_constraint(zeros, shardings.trainable)
        gradient, (losses, monitors) = jax.lax.scan(accumulate, zeros, micro_batches)
        updates, optimizer_state = optimizer(rate).update(
            gradient, state.optimizer, state.trainable
        )

        losses = jax.tree.map(jnp.sum, losses)
        metrics = {
            "loss": sum(losses.values()),
            **{f"loss/{name}": value for name, value in losses.items()},
            **{name: monitor.summary().values for name, monitor in monitors.items()},
            "grad_norm": _norm(gradient),
            "param_norm": _norm(state.trainable),
            "update_norm": _norm(updates),
        }
        if hasattr(batches, "comparison"):
            metrics["tokens"] = jnp.sum(batches.comparison >= 0)
        state = TrainState(
            step=state.step + 1,
            trainable=optax.apply_updates(state.trainable, updates),
            frozen=state.frozen,
            optimizer=optimizer_state,
            rng=state.rng,
        )
        return state, metrics

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def denominators(terms: Terms) -> Metrics:
    """What each term divides by, as far as one micro-batch contributes to it."""
    return {name: total_weight(t.weights) for name, t in terms.items() if isinstance(t, Term)}


def _norm(tree: Params) -> jax.Array:
    """The Euclidean norm of all arrays of a tree as one vector, in float32."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares))


def _shares(terms: Terms, weights: Metrics) -> Metrics:
    """Each loss term of the window, as far as one micro-batch contributes to it."""
    shares = {}
    for name, term in terms.items():
        if isinstance(term, Term):
            # Without any weight the sum is 0 as well: 0 / 1 is the right loss and gradient.
            total = jnp.where(weights[name] > 0, weights[name], 1.0)
            shares[name] = term.coefficient * weighted_sum(term.values, term.weights) / total
        elif isinstance(term, BatchTerm):
            shares[name] = term.coefficient * term.value
    return shares


def _check_additive(terms: Terms, window: int) -> None:
    for name, term in terms.items():
        if window > 1 and isinstance(term, BatchTerm):
            raise AccumulationError(
                f'the loss term "{name}" is a statistic of one whole batch, which {window} '
                "micro-batches do not add up to: accumulate 1 and use more rows, or drop the term"
            )
