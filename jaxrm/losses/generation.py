"""Losses on response log-probabilities: the text-generation regularisers of GRM and their kin.

Every log-prob is a SUM over the response's tokens, in nats; every loss is per example, float32, and
without a mean. The sum (not the mean) is what the papers use, so these losses grow with length; the
one that divides by it is given the lengths.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sft(chosen_logps: Float[Array, "*n"], beta: float) -> Float[Array, "*n"]:
    """-log sigmoid(beta * log pi(chosen)): GRM's SFT regulariser (arXiv 2406.10216, eq. 7).

    For the log-probs of real responses it is nearly linear, beta times `nll`; the sigmoid only
    matters when a response is almost certain.

    Args:
      chosen_logps: summed log-probs of the preferred responses.
      beta: inverse temperature, 0.1 in the paper.
    """
    return jax.nn.softplus(-beta * jnp.asarray(chosen_logps, jnp.float32))


def nll(chosen_logps: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """-log pi(chosen): plain supervised fine-tuning, summed over tokens.

    About ten times as strong as `sft` at beta 0.1: scale its coefficient accordingly.

    Args:
      chosen_logps: summed log-probs of the preferred responses.
    """
    return -jnp.asarray(chosen_logps, jnp.float32)


def dpo(
    chosen_logps: Float[Array, "*n"],
    rejected_logps: Float[Array, "*n"],
    ref_chosen_logps: Float[Array, "*n"],
    ref_rejected_logps: Float[Array, "*n"],
    beta: float,
) -> Float[Array, "*n"]:
    """-log sigmoid of beta times the log-ratio difference: DPO (arXiv 2305.18290, eq. 7).

    Args:
      chosen_logps: summed log-probs of the preferred responses under the policy.
      rejected_logps: the same of the rejected ones.
      ref_chosen_logps: under the frozen reference, usually the initial model.
      ref_rejected_logps: likewise.
      beta: strength of the tie to the reference, 0.1 by custom.

    Returns:
      Per-pair loss; exactly log 2 while policy and reference are the same.
    """
    gain = _gain(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return jax.nn.softplus(-beta * gain)


def ipo(
    chosen_logps: Float[Array, "*n"],
    rejected_logps: Float[Array, "*n"],
    ref_chosen_logps: Float[Array, "*n"],
    ref_rejected_logps: Float[Array, "*n"],
    beta: float,
) -> Float[Array, "*n"]:
    """(z - 1 / (2 beta))^2 of the log-ratio difference z: IPO (arXiv 2310.12036, eq. 17).

    It aims at a difference where `dpo` wants ever more of it. With log-probs summed over long
    responses z is large and so is the loss; a caller who wants means divides by the lengths first.

    Args:
      chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps: as for `dpo`.
      beta: strength of the tie to the reference (the paper's tau).

    Returns:
      Per-pair loss; 1 / (4 beta^2) while policy and reference are the same.
    """
    gain = _gain(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return jnp.square(gain - 1 / (2 * beta))


def hinge(
    chosen_logps: Float[Array, "*n"],
    rejected_logps: Float[Array, "*n"],
    ref_chosen_logps: Float[Array, "*n"],
    ref_rejected_logps: Float[Array, "*n"],
    beta: float,
) -> Float[Array, "*n"]:
    """max(0, 1 - beta z) of the log-ratio difference z: HaF-RM's hinge form of `dpo` (arXiv
    2407.04185), after SLiC (arXiv 2305.10425), which has no reference.

    Args:
      chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta: as for `dpo`.

    Returns:
      Per-pair loss; exactly 1 while policy and reference are the same, and 0, without a gradient,
      from z = 1 / beta on.
    """
    gain = _gain(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return jax.nn.relu(1 - beta * gain)


def dpo_reference_free(
    chosen_logps: Float[Array, "*n"], rejected_logps: Float[Array, "*n"], beta: float
) -> Float[Array, "*n"]:
    """-log sigmoid(beta * (log pi(chosen) - log pi(rejected))): GRM's DPO without a reference.

    Args:
      chosen_logps: summed log-probs of the preferred responses.
      rejected_logps: the same of the rejected ones.
      beta: inverse temperature, 0.1 in the paper.
    """
    return jax.nn.softplus(-beta * _log_ratio(chosen_logps, rejected_logps))


def mean_logp(
    chosen_logps: Float[Array, "*n"],
    rejected_logps: Float[Array, "*n"],
    chosen_lengths: Float[Array, "*n"],
    rejected_lengths: Float[Array, "*n"],
    beta: float,
) -> Float[Array, "*n"]:
    """-log sigmoid(beta * difference of the log-probs per token): SimPO's loss (arXiv 2405.14734)
    without its margin gamma, as HaF-RM has it. It needs no reference.

    Args:
      chosen_logps: summed log-probs of the preferred responses.
      rejected_logps: the same of the rejected ones.
      chosen_lengths: tokens that the sum is over; an empty response counts as one of log-prob 0.
      rejected_lengths: likewise.
      beta: inverse temperature; 2 and more in SimPO, because means are small.
    """
    chosen = _per_token(chosen_logps, chosen_lengths)
    return jax.nn.softplus(-beta * _log_ratio(chosen, _per_token(rejected_logps, rejected_lengths)))


def implicit_rewards(
    logps: Float[Array, "*n"], ref_logps: Float[Array, "*n"], beta: float
) -> Float[Array, "*n"]:
    """beta * (log pi - log pi_ref): the rewards by which a DPO policy is optimal (arXiv 2305.18290,
    eq. 5), up to a number for each prompt, so they compare responses to one prompt alone.

    Args:
      logps: summed log-probs of any responses under the policy.
      ref_logps: the same under the reference that it was trained with.
      beta: as in training; it changes the scale alone.
    """
    return beta * _log_ratio(logps, ref_logps)


def _gain(
    chosen: Float[Array, "*n"],
    rejected: Float[Array, "*n"],
    ref_chosen: Float[Array, "*n"],
    ref_rejected: Float[Array, "*n"],
) -> Float[Array, "*n"]:
    """z: by how much more the policy prefers the chosen response than the reference does."""
    return _log_ratio(chosen, rejected) - _log_ratio(ref_chosen, ref_rejected)


def _per_token(logps: Float[Array, "*n"], lengths: Float[Array, "*n"]) -> Float[Array, "*n"]:
    if jnp.shape(logps) != jnp.shape(lengths):
        raise ValueError(f"logps {jnp.shape(logps)} and lengths {jnp.shape(lengths)} differ")
    return jnp.asarray(logps, jnp.float32) / jnp.maximum(jnp.asarray(lengths, jnp.float32), 1.0)


def _log_ratio(logps: Float[Array, "*n"], others: Float[Array, "*n"]) -> Float[Array, "*n"]:
    if jnp.shape(logps) != jnp.shape(others):
        raise ValueError(f"log-probs of shapes {jnp.shape(logps)} and {jnp.shape(others)} differ")
    return jnp.asarray(logps, jnp.float32) - jnp.asarray(others, jnp.float32)
