"""The methods that the study of GRM compares, and how each is tuned.

All train the same model on the same pairs in the same batches. A method is a recipe
(`jaxrm.study.recipe`), and what is done around its steps.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import optax
from jaxrm.study.recipe import Recipe, WithText, adam, bradley_terry, head_alone

from experiments import grm_gemma
from jaxrm.data.carried import REFERENCE
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.study.records import Trial
from jaxrm.train.terms import LossFn, Term, Terms


def grm(strength: float, *, regularizer: str) -> LossFn:
    """(1 - strength) Bradley-Terry + strength text generation."""
    cfg = grm_gemma.Config(regularizer=regularizer, alpha=strength)
    return functools.partial(grm_gemma.loss_fn, name="grm", cfg=cfg)


def replay(strength: float) -> LossFn:
    """(1 - strength) Bradley-Terry + strength the mean loss of a token of pretraining text."""

    def loss_fn(model: RewardModel, batch: WithText, rng: jax.Array) -> Terms:
        terms = dict(bradley_terry(None)(model, batch.pairs, rng))
        terms["reward"] = dataclasses.replace(terms["reward"], coefficient=1 - strength)
        logps = heads.target_logps(model, model.hidden(batch.text), batch.text)
        return terms | {"text": Term(strength, -logps, batch.text.target_mask)}

    return loss_fn


def pulled_adam(learning_rate: float, strength: float) -> optax.GradientTransformation:
    """The same with `strength` of a decay like AdamW's, to the initial weights instead of to 0."""
    return adam(learning_rate, strength, pull_to_start(strength))


def pull_to_start(strength: float) -> optax.GradientTransformation:
    """Adds strength x (what the weights are - what they were) to the updates (L2-SP, arXiv
    1802.01483, decoupled from the gradient's moments as in arXiv 1711.05101)."""

    def init(params: optax.Params) -> optax.Params:
        return jax.tree.map(jnp.copy, params)

    def update(updates: optax.Updates, start: optax.Params, params: optax.Params):
        pulled = jax.tree.map(
            lambda u, now, then: u + strength * (now - then), updates, params, start
        )
        return pulled, start

    return optax.GradientTransformation(init, update)


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train a reward model.

    Attributes:
      recipe: of its steps.
      fits_head: the head starts from a fit to the training pairs on the base's states.
      knows_reference: pairs bring the base's log-probs.
      stops_early: the parameters that count are those that were best on `val`.
    """

    recipe: Recipe = Recipe()
    fits_head: bool = False
    knows_reference: bool = False
    stops_early: bool = False


METHODS = {
    "bt": Method(),
    "bt_early": Method(stops_early=True),
    "lp_ft": Method(fits_head=True),
    "l2": Method(Recipe(optimizer=pulled_adam)),
    "replay": Method(Recipe(replay, text=True)),
    "grm_sft": Method(Recipe(functools.partial(grm, regularizer="sft"), ask="best")),
    "grm_dpo": Method(
        Recipe(functools.partial(grm, regularizer="dpo"), ask="all", columns=(REFERENCE,)),
        knows_reference=True,
    ),
    "grm_dpo_reference_free": Method(
        Recipe(functools.partial(grm, regularizer="dpo_reference_free"), ask="all")
    ),
    "frozen": Method(Recipe(trains=head_alone)),
}


# How a method is tuned: its trials, and the choice among them

RATES = (3e-5, 1e-4, 3e-4, 1e-3)
"""What Bradley-Terry's learning rate is chosen from."""

HEAD_RATES = (3e-3, 1e-2, 3e-2, 1e-1)
"""The same where the head alone trains."""

STRENGTHS = {
    "l2": (10.0, 30.0, 100.0, 300.0),
    "replay": (0.03, 0.1, 0.3, 0.6),
    "grm_sft": (0.01, 0.03, 0.1, 0.3),
    "grm_dpo": (0.1, 0.3),
    "grm_dpo_reference_free": (0.1, 0.3),
}
"""What a method's strength is chosen from: at Bradley-Terry's learning rate, and where there are
two strengths, at the next lower one too. A pull of L2 acts for `learning_rate x steps`, so that it
has to be large."""


def trials(method: str, rate: float) -> tuple[Trial, ...]:
    """The four settings that a method may choose from, given Bradley-Terry's learning rate."""
    if method not in STRENGTHS:
        rates = HEAD_RATES if method == "frozen" else RATES
        return tuple(Trial(rate, None) for rate in rates)
    strengths = STRENGTHS[method]
    rates = [rate] if len(strengths) == 4 else [_lower(rate), rate]
    return tuple(Trial(*setting) for setting in itertools.product(rates, strengths))


def _lower(rate: float) -> float:
    """The next lower of `RATES`; the next higher one of the lowest, so that there are always
    two."""
    place = RATES.index(rate)
    return RATES[place - 1] if place else RATES[1]
