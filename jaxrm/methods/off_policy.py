"""OCRM (arXiv 2507.15507): preference pairs weighted by how likely the policy of today writes them.

A reward model is trained on responses of the SFT policy, and asked about those of the policy that
was trained against it. Importance weights make the old pairs, without new labels, count as pairs of
the new policy would:

    L = mean of w * -log sigmoid(r_c - r_r),    w = exp(kappa (log w_c + log w_r))
    log w(y) = log pi(y|x) - log pi_SFT(y|x)                                    `log_ratios`
             = log pi - log(a pi + (1 - a) pi_SFT)                     `relative_log_ratios`

Both policies' log-probs are sums over a response's tokens, from any source: `jaxrm.read.reference`
computes and caches them, `heads.response_logps` gives them in a batch. The published code
exponentiates them and adds 1e-36, which is 0 / 0 for all but the shortest responses; here nothing
leaves the logarithm until the weight.

How weights enter training. The log-ratios, for any K, are a column of their own, `log_ratios`, and
kappa stays with the loss, where it can be tuned:

    policy = reference.reference_logps(policy_model, trees, ...)
    sft = reference.reference_logps(sft_model, trees, ...)
    ratios = [relative_log_ratios(p, s) for p, s in zip(policy, sft)]
    trees = with_log_ratios(trees, ratios)

A Term divides by its weights. As a factor of the values, as above, w gives the paper's mean of
w * loss; as a factor of the Term's weights it gives sum(w loss) / sum(w), which is the paper's
normalisation by batch with its stray 1 / batch size left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrm.data.packing import PackedBatch, TokenTree
from jaxrm.data.store import with_columns
from jaxrm.errors import require
from jaxrm.losses import preference
from jaxrm.methods import method
from jaxrm.methods.method import Method, hidden_states
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import LossFn, Term, Terms, reward_monitors

ALPHA = 0.1
"""The paper's share of the new policy in the mixture of a relative ratio."""


def log_ratios(
    policy_logps: Float[Array, "*n"], sft_logps: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """log pi(y|x) - log pi_SFT(y|x), the plain density ratio's logarithm.

    Args:
      policy_logps: log-probs of responses under today's policy, in nats, summed over tokens.
      sft_logps: under the policy that wrote them, over the same tokens.

    Returns:
      Float32, constants: no gradient goes through them.
    """
    policy, sft = _both(policy_logps, sft_logps)
    return policy - sft


def relative_log_ratios(
    policy_logps: Float[Array, "*n"], sft_logps: Float[Array, "*n"], alpha: float = ALPHA
) -> Float[Array, "*n"]:
    """log pi - log(alpha pi + (1 - alpha) pi_SFT), at most -log alpha.

    The relative density ratio (Yamada et al., 2011): what the policy writes and SFT never would
    weighs 1 / alpha at most, 10 by default.

    Args:
      policy_logps, sft_logps: as for `log_ratios`.
      alpha: 0 is the plain ratio.

    Returns:
      Float32, constants.

    Raises:
      OptionError: alpha not in [0, 1).
    """
    require(0 <= alpha < 1, "alpha", "in [0, 1)", alpha)
    policy, sft = _both(policy_logps, sft_logps)
    if alpha == 0:
        return policy - sft
    # Less pi in numerator and denominator, so that no difference of large numbers is left.
    return -jnp.logaddexp(jnp.log(alpha), jnp.log1p(-alpha) + (sft - policy))


def pair_weights(
    chosen_log_ratios: Float[Array, "*n"], rejected_log_ratios: Float[Array, "*n"], kappa: float
) -> Float[Array, "*n"]:
    """exp(kappa (chosen + rejected)): how much a pair counts, 1 where nothing is known.

    Args:
      chosen_log_ratios, rejected_log_ratios: of the pair's responses, by either function above.
      kappa: between 0, Bradley-Terry, and 1, importance sampling, whose variance is beyond use for
        sequences; .001 in the paper, which is nearly 0 for the short answers of a toy. Tune it.

    Returns:
      Float32, constants. Plain ratios may overflow to inf (at kappa times a sum of 88 nats);
      relative ones of the default alpha weigh at most 100 ** kappa.
    """
    return jnp.exp(_exponents(chosen_log_ratios, rejected_log_ratios, kappa))


def normalized_pair_weights(
    chosen_log_ratios: Float[Array, " n"], rejected_log_ratios: Float[Array, " n"], kappa: float
) -> Float[Array, " n"]:
    """`pair_weights` over their mean: those of a whole data set at once, with a mean of 1.

    Never inf, whatever the ratios.
    """
    exponents = _exponents(chosen_log_ratios, rejected_log_ratios, kappa)
    return exponents.size * jax.nn.softmax(exponents)


def with_log_ratios(
    trees: Sequence[TokenTree], log_ratios: Sequence[Float[np.ndarray, " K"]]
) -> Sequence[TokenTree]:
    """The trees with log-ratios as the column `log_ratios`.

    Args:
      log_ratios: [K] for each tree, in the order of its branches.

    Raises:
      ValueError: the numbers of trees or of branches differ, or a ratio is not finite.
    """
    for i, ratios in enumerate(log_ratios):
        if not np.isfinite(ratios).all():
            raise ValueError(f"tree {i}: log-ratios {ratios}")
    return with_columns(trees, {"log_ratios": log_ratios})


def first_tokens(trees: Sequence[TokenTree], count: int) -> list[TokenTree]:
    """The trees with only the first `count` tokens of each response as targets.

    What reads log-probs from them sums over those alone: the truncated importance weights of the
    paper, and verdicts or notes of one token. (A reward is still read at a response's end; single
    tokens' log-probs are `heads.target_logps`.)

    Raises:
      OptionError: a count below 1.
    """
    require(count >= 1, "count", "at least 1", count)
    return [
        dataclasses.replace(
            tree,
            branches=tuple(
                dataclasses.replace(
                    branch, targets=branch.targets & (np.cumsum(branch.targets) <= count)
                )
                for branch in tree.branches
            ),
        )
        for tree in trees
    ]


def _both(
    policy_logps: Float[Array, "*n"], sft_logps: Float[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    if jnp.shape(policy_logps) != jnp.shape(sft_logps):
        shapes = f"{jnp.shape(policy_logps)} and {jnp.shape(sft_logps)}"
        raise ValueError(f"log-probs of the two policies differ in shape: {shapes}")
    return _constant(policy_logps), _constant(sft_logps)


def _exponents(
    chosen: Float[Array, "*n"], rejected: Float[Array, "*n"], kappa: float
) -> Float[Array, "*n"]:
    if jnp.shape(chosen) != jnp.shape(rejected):
        raise ValueError(f"chosen {jnp.shape(chosen)} and rejected {jnp.shape(rejected)} differ")
    return kappa * (_constant(chosen) + _constant(rejected))


def _constant(values: Float[Array, "*n"]) -> Float[Array, "*n"]:
    return jax.lax.stop_gradient(jnp.asarray(values, jnp.float32))


def reweighted(kappa: float) -> LossFn:
    """Bradley-Terry whose pairs weigh what the column "log_ratios" makes of them."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        rewards = heads.rewards(model, hidden_states(model, batch, rng), batch, rng)
        losses = preference.bradley_terry(*batch.pairs(rewards))
        weights = pair_weights(*batch.pairs(batch.column("log_ratios")), kappa)
        reward = Term(1.0, weights * losses, method.pair_weights(batch))
        return {"reward": reward, **reward_monitors(rewards, batch)}

    return loss_fn


OCRM = Method(
    "OCRM: pairs weighed by how likely today's policy writes them (arXiv 2507.15507)",
    reweighted,
    (0.001, 0.01, 0.1),
    "kappa, the power of the importance weights",
    columns=("log_ratios",),
    needs="pairs with a column log_ratios (?columns=log_ratios), log pi - log pi_SFT of each",
)
