"""Losses on response log-probabilities: the text-generation regularisers of GRM and their kin.

Every log-prob is a SUM over the response's tokens, in nats; every loss is per example, float32, and
without a mean. The sum (not the mean) is what the papers use, so these losses grow with length.
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
    reference = _log_ratio(ref_chosen_logps, ref_rejected_logps)
    return jax.nn.softplus(-beta * (_log_ratio(chosen_logps, rejected_logps) - reference))


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


def _log_ratio(chosen: Float[Array, "*n"], rejected: Float[Array, "*n"]) -> Float[Array, "*n"]:
    if jnp.shape(chosen) != jnp.shape(rejected):
        raise ValueError(f"chosen {jnp.shape(chosen)} and rejected {jnp.shape(rejected)} differ")
    return jnp.asarray(chosen, jnp.float32) - jnp.asarray(rejected, jnp.float32)
