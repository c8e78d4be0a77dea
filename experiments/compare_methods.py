"""The methods that `experiments.compare` compares. A new one is an entry of `METHODS`.

An entry says how a method trains (`jaxrm.study.method`) and which strengths it chooses from; what
its strength is, says its line. Where a method needs more than pairs, the function beside it makes
that of the task's comparisons; where it has an experiment of its own, its loss stands there.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.haf import dpo, haf, implicit_rewards
from experiments.rrm import rrm_loss
from experiments.study_grm_methods import grm
from jaxrm.data.carried import REFERENCE, Column
from jaxrm.data.comparison import Comparison, plain_text
from jaxrm.data.packing import PackedBatch
from jaxrm.evaluate import similar
from jaxrm.losses import preference, ranking, regularizers
from jaxrm.methods import augmentation as rrm
from jaxrm.models import average, heads, uncertainty
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import RewardModel
from jaxrm.read.packed import Packed
from jaxrm.study.method import Method, Task, Trained, one
from jaxrm.study.recipe import PairLoss, Recipe, Regularize, beside, pairwise
from jaxrm.train.terms import BatchTerm, LossFn, Term, Terms, reward_monitors


def pairs(loss: PairLoss, *columns: Column) -> Recipe:
    """The recipe of a loss on pairs of rewards, which may read columns of the batch."""
    return Recipe(pairwise(loss), columns=columns)


def with_term(regularize: Regularize) -> Recipe:
    """The recipe of Bradley-Terry and one term more."""
    return Recipe(beside(regularize))


def pair_weights(batch: PackedBatch) -> jax.Array:
    """What a pair counts in a mean over pairs."""
    return batch.pair_weight * batch.pair_mask


def positive(strength: float) -> LossFn:
    """Bradley-Terry whose chosen rewards are to be positive on average."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        rewards = heads.rewards(model, model.hidden(batch), batch, rng)
        chosen, rejected = batch.pairs(rewards)
        value = preference.positive_regularized(chosen, rejected, pair_weights(batch), strength)
        return {"reward": BatchTerm(1.0, value), **reward_monitors(rewards, batch)}

    return loss_fn


# Heads of several outputs


def odin(strength: float) -> LossFn:
    """ODIN (arXiv 2402.07319): quality and length rewards, of which quality is used afterwards."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        both = heads.outputs(model, model.hidden(batch), batch, rng)
        quality, length = both[..., 0], both[..., 1]
        plain = preference.bradley_terry(*batch.pairs(quality + length))
        lengths, mask = batch.response_length, batch.response_mask
        apart = 1 - regularizers.length_correlation(length, lengths, mask)
        apart += jnp.abs(regularizers.length_correlation(quality, lengths, mask))
        weight = model.reward_head.arrays()["weight"]
        return {
            "reward": Term(1.0, plain, pair_weights(batch)),
            "length": BatchTerm(strength, apart),
            "orthogonal": Term(strength, regularizers.orthogonality(weight), jnp.ones(())),
            **reward_monitors(quality, batch),
        }

    return loss_fn


def quality_alone(model: RewardModel, hidden: jax.Array, batch: PackedBatch) -> jax.Array:
    """ODIN's first output, for each response."""
    return heads.outputs(model, hidden, batch)[..., 0]


CODE = 16
"""Dimensions of InfoRM's code."""


def bottleneck(strength: float) -> LossFn:
    """InfoRM (arXiv 2402.09345): the reward is read from a noisy code that costs information.

    Mean and log-variance of the code are outputs of one linear head, and the reward is the mean of
    the code's dimensions: what else a linear decoder could learn, the encoder does.
    """

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        outputs = heads.outputs(model, model.hidden(batch), batch)
        mean, log_variance = jnp.split(outputs, 2, axis=-1)
        noise = jax.random.normal(rng, mean.shape)
        rewards = jnp.mean(mean + jnp.exp(log_variance / 2) * noise, axis=-1) * CODE**0.5
        information = regularizers.information_bottleneck(mean, log_variance)
        plain = preference.bradley_terry(*batch.pairs(rewards))
        return {
            "reward": Term(1.0, plain, pair_weights(batch)),
            "information": Term(strength, information, batch.response_mask),
            **reward_monitors(rewards, batch),
        }

    return loss_fn


def decoded(model: RewardModel, hidden: jax.Array, batch: PackedBatch) -> jax.Array:
    """InfoRM's reward from the code's mean, without noise, for each response."""
    outputs = heads.outputs(model, hidden, batch)
    return jnp.mean(outputs[..., :CODE], axis=-1) * CODE**0.5


# Data that is more than pairs

MAGNITUDE, TARGET = Column("magnitude", "pair"), Column("target", "pair")


def with_magnitudes(task: Task) -> list[Comparison]:
    """Each pair with how much better its annotator finds the chosen one: 1, 2 or 3, by the third
    that its difference of grades falls into; the sign of that difference is not told."""
    gaps = np.array([abs(c.scores[0] - c.scores[1]) for c in task.data.comparisons])
    magnitudes = 1 + np.searchsorted(np.quantile(gaps, [1 / 3, 2 / 3]), gaps)
    return [
        dataclasses.replace(c, columns={MAGNITUDE.name: float(m)})
        for c, m in zip(task.data.comparisons, magnitudes, strict=True)
    ]


def with_targets(task: Task) -> list[Comparison]:
    """Each pair with PCRM's (arXiv 2404.00978) target as a column: the less alike, the larger.

    Likeness is that of the words (TF-IDF), where the paper takes BERT's states.
    """
    pairs = task.data.comparisons
    words = similar.tf_idf([plain_text(text) for c in pairs for text in c.responses]).toarray()
    targets = preference.cosine_prior(words[::2], words[1::2], task.strength, beta3=0.0)
    return [
        dataclasses.replace(c, columns={TARGET.name: float(t)})
        for c, t in zip(pairs, targets, strict=True)
    ]


def augmented(task: Task) -> list[Comparison]:
    """RRM's (arXiv 2409.13156) pool: every pair, and fourteen made of it and of two others."""
    return [*task.data.comparisons, *rrm.augment(task.data.comparisons, task.seed)]


RANKED = 4
"""Responses of a ranking."""


def of_groups(loss) -> Recipe:
    """The recipe of a loss on rankings, loss(rewards, ranks, mask), one value for each prompt."""

    def at(strength: float | None) -> LossFn:
        def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
            rewards = heads.rewards(model, model.hidden(batch), batch, rng)
            ranks = batch.groups(batch.response_rank)
            values = loss(batch.groups(rewards), ranks, batch.group_mask)
            reward = Term(1.0, values, batch.group_mask[..., 0])
            return {"reward": reward, **reward_monitors(rewards, batch)}

        return loss_fn

    return Recipe(at, responses=RANKED)


def apart(task: Task) -> list[Comparison]:
    """Every ordered pair of every ranking as a comparison of its own."""
    return [
        dataclasses.replace(
            ranking,
            responses=(ranking.responses[better], ranking.responses[worse]),
            ranks=(0, 1),
            scores=None,
            id=f"{ranking.id}-{better}-{worse}",
        )
        for ranking in task.data.comparisons
        for better, worse in itertools.permutations(range(len(ranking.responses)), 2)
        if ranking.ranks[better] < ranking.ranks[worse]
    ]


# Several models

MEMBERS = 4


def ensemble(task: Task) -> Trained:
    """The mean of models that differ in their head's draw and their order of data.

    Members are standardised on `val` first: Bradley-Terry leaves every one's offset and scale free.
    """
    seeds = [task.seed + 1000 * m for m in range(MEMBERS)]
    models = [task.fit(Recipe(), share=1 / MEMBERS, seed=seed) for seed in seeds]
    scores = [model.scores() for model in models]
    scales = [uncertainty.scale_of(score(task.validation), "val") for score in scores]

    def mean(data: Packed) -> np.ndarray:
        members = np.stack([score(data) for score in scores])
        return np.asarray(uncertainty.mean(uncertainty.standardise(members, scales)))

    return Trained(mean, models)


def warm(task: Task) -> Trained:
    """WARM (arXiv 2401.12187): the mean of the weights of models that start from one head and
    differ in learning rate and order of data."""
    start = task.lab.start(task.seed).params
    models = [
        task.fit(
            Recipe(),
            share=1 / MEMBERS,
            params=start,
            rate=task.rate * factor,
            seed=task.seed + 1000 * m,
        )
        for m, factor in enumerate((1.0, 0.7, 1.4, 1.0))
    ]
    params = jax.device_get(average.average([model.fitted.params for model in models]))
    fitted = dataclasses.replace(models[0].fitted, params=params)
    return Trained(dataclasses.replace(models[0], fitted=fitted).scores(), models)


# The methods

_bt = preference.bradley_terry


def _length_target(batch: PackedBatch, strength: float) -> jax.Array:
    return preference.length_prior(*batch.pairs(batch.response_length), strength, 0.1)


def _pairs_of(batch: PackedBatch, values: jax.Array, strength: float) -> Term:
    return Term(strength, values, pair_weights(batch))


METHODS: dict[str, Method] = {
    "bt": Method(one(Recipe())),
    # the share of labels believed to be wrong
    "label_smoothed": Method(
        one(pairs(lambda c, r, b, s: preference.label_smoothed(c, r, s))), (0.05, 0.1, 0.2)
    ),
    # reward units to each unit of magnitude
    "margin": Method(
        one(
            pairs(lambda c, r, b, s: _bt(c, r, s * b.column("magnitude")), MAGNITUDE),
            with_magnitudes,
        ),
        (0.1, 0.3, 1.0),
    ),
    "scaled": Method(
        one(
            pairs(lambda c, r, b, s: preference.scaled(c, r, b.column("magnitude")), MAGNITUDE),
            with_magnitudes,
        )
    ),
    # the margin
    "hinge": Method(one(pairs(lambda c, r, b, s: preference.hinge(c, r, s))), (0.5, 1.0, 2.0)),
    "margin_mse": Method(
        one(pairs(lambda c, r, b, s: preference.margin_mse(c, r, s))), (0.5, 1.0, 2.0)
    ),
    # gamma
    "focal": Method(one(pairs(lambda c, r, b, s: preference.focal(c, r, s))), (0.5, 1.0, 2.0)),
    "focal_penalty": Method(
        one(pairs(lambda c, r, b, s: preference.focal_penalty(c, r, s))), (0.5, 1.0, 2.0)
    ),
    # the temperature
    "tempered": Method(
        one(pairs(lambda c, r, b, s: preference.tempered(c, r, s))), (0.5, 2.0, 4.0)
    ),
    "normalized": Method(one(pairs(lambda c, r, b, s: preference.normalized(c, r)))),
    "eurus": Method(one(pairs(lambda c, r, b, s: preference.eurus(c, r)))),
    "cross_entropy": Method(one(pairs(lambda c, r, b, s: preference.cross_entropy(c, r)))),
    # the target of equal lengths
    "pcrm_length": Method(
        one(pairs(lambda c, r, b, s: preference.prior_constrained(c, r, _length_target(b, s)))),
        (1.0, 2.0, 4.0),
    ),
    # the target of equal responses, which is half of that of responses without a word in common
    "pcrm_cosine": Method(
        one(
            pairs(
                lambda c, r, b, s: preference.prior_constrained(c, r, b.column("target")), TARGET
            ),
            with_targets,
        ),
        (1.0, 2.0, 4.0),
    ),
    # the coefficient, here and in the next four
    "positive": Method(one(Recipe(positive)), (0.01, 0.1, 1.0)),
    "bsr": Method(
        one(with_term(lambda r, b, s: BatchTerm(s, regularizers.sum_to_zero(r, b.response_mask)))),
        (0.01, 0.1, 1.0),
    ),
    "centering": Method(
        one(with_term(lambda r, b, s: _pairs_of(b, regularizers.centering(*b.pairs(r)), s))),
        (0.001, 0.01, 0.1),
    ),
    "score_l2": Method(
        one(with_term(lambda r, b, s: Term(s, regularizers.score_l2(r), b.response_mask))),
        (0.001, 0.01, 0.1),
    ),
    "odin": Method(
        one(Recipe(odin), head=HeadConfig(outputs=2), reading=quality_alone), (0.1, 0.3, 1.0)
    ),
    "inform": Method(
        one(Recipe(bottleneck), head=HeadConfig(outputs=2 * CODE), reading=decoded),
        (0.001, 0.01, 0.1),
    ),
    # text's share of the loss
    "grm_sft": Method(
        one(Recipe(functools.partial(grm, regularizer="sft"), ask="best")), (0.01, 0.1, 0.3)
    ),
    "grm_dpo": Method(
        one(
            Recipe(functools.partial(grm, regularizer="dpo"), ask="all", columns=(REFERENCE,)),
            references=True,
        ),
        (0.03, 0.1, 0.3),
    ),
    "grm_dpo_reference_free": Method(
        one(Recipe(functools.partial(grm, regularizer="dpo_reference_free"), ask="all")),
        (0.03, 0.1, 0.3),
    ),
    # DPO's coefficient
    "haf": Method(
        one(Recipe(haf, ask="all", columns=(REFERENCE,)), references=True), (0.1, 0.2, 0.4)
    ),
    # beta
    "dpo": Method(
        one(
            Recipe(dpo, ask="all", columns=(REFERENCE,)), references=True, reading=implicit_rewards
        ),
        (0.03, 0.1, 0.3),
    ),
    "rrm": Method(one(Recipe(rrm_loss), augmented)),
    "ensemble": Method(ensemble),
    "warm": Method(warm),
}

RANKINGS: dict[str, Method] = {
    "shuffled": Method(one(Recipe(), apart)),
    "kwise": Method(one(of_groups(ranking.kwise))),
    "plackett_luce": Method(one(of_groups(ranking.plackett_luce))),
}
"""Those on rankings; the first, which tears them into pairs, is the baseline."""
