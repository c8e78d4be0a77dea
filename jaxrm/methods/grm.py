"""GRM (arXiv 2406.10216): a reward head regularised by keeping the model able to write."""

from __future__ import annotations

import functools
from typing import Literal

import jax
from jaxtyping import Array, Float

from jaxrm.data.packing import PackedBatch
from jaxrm.losses import generation, preference
from jaxrm.methods.method import REFERENCE_LOGPS, Method, hidden_states, pair_weights
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import LossFn, Term, Terms, reward_monitors

Regularizer = Literal["sft", "nll", "dpo", "dpo_reference_free"]
"""What the language-model head is trained for: the best response written, by the paper's SFT loss
or by its log-likelihood, or both contrasted, against a reference or without one."""


def grm(alpha: float, *, regularizer: Regularizer = "sft", beta: float = 0.1) -> LossFn:
    """(1 - alpha) Bradley-Terry + alpha text generation.

    Equal to the official recipe's losses (tests/test_grm_losses.py), but for choices of our own:
    the white space that a template writes after a turn is read for the reward and is no language-
    model target; in a response of several turns only the assistant's are targets; and a text has
    one BOS, where the recipe's Gemma runs have two. The head's dropout acts in training alone; the
    recipe's scorer leaves it on.

    Args:
      alpha: the regulariser's share of the loss, in [0, 1].
      beta: its inverse temperature.
    """

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        hidden = hidden_states(model, batch, rng)
        rewards = heads.rewards(model, hidden, batch, rng)
        values = preference.bradley_terry(*batch.pairs(rewards))
        terms = {
            "reward": Term(1 - alpha, values, pair_weights(batch)),
            **reward_monitors(rewards, batch),
        }
        if alpha == 0:
            return terms
        logps = heads.response_logps(model, hidden, batch)
        return terms | {"text": _text(logps, batch, alpha, regularizer, beta)}

    return loss_fn


def _text(
    logps: Float[Array, "rows slots"],
    batch: PackedBatch,
    alpha: float,
    regularizer: Regularizer,
    beta: float,
) -> Term:
    """The regulariser, with the reference's log-probs that the batch brings, or without any."""
    if regularizer == "dpo":
        reference = batch.pairs(batch.column("reference_logps"))
        values = generation.dpo(*batch.pairs(logps), *reference, beta)
        return Term(alpha, values, pair_weights(batch))
    if regularizer == "dpo_reference_free":
        values = generation.dpo_reference_free(*batch.pairs(logps), beta)
        return Term(alpha, values, pair_weights(batch))
    # The best response counts once per comparison, not once per pair that it wins.
    best = batch.best(logps)
    values = generation.sft(best, beta) if regularizer == "sft" else generation.nll(best)
    return Term(alpha, values, batch.best_mask)


@functools.cache
def method(regularizer: Regularizer, beta: float = 0.1) -> Method:
    """GRM with one of its regularisers; its strength is alpha."""
    contrasts = regularizer in ("dpo", "dpo_reference_free")
    return Method(
        f"GRM ({regularizer}): Bradley-Terry and a text-generation loss (arXiv 2406.10216)",
        functools.partial(grm, regularizer=regularizer, beta=beta),
        (0.03, 0.1, 0.3) if contrasts else (0.01, 0.1, 0.3),
        "text's share of the loss",
        ask="all" if contrasts else "best",
        fills=(REFERENCE_LOGPS,) if regularizer == "dpo" else (),
    )


GRM: dict[str, Method] = {
    "grm_sft": method("sft"),
    "grm_dpo": method("dpo"),
    "grm_dpo_reference_free": method("dpo_reference_free"),
}
