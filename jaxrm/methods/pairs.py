"""Losses on pairs of rewards: the Bradley-Terry family, and what is added to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from jaxrm.data.comparison import Comparison, fault, plain_text
from jaxrm.data.packing import PackedBatch
from jaxrm.evaluate import similar
from jaxrm.losses import preference, regularizers
from jaxrm.methods.method import (
    Method,
    beside,
    bradley_terry,
    hidden_states,
    pair_weights,
    pairwise,
)
from jaxrm.methods.task import Task
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import BatchTerm, LossFn, Term, Terms, reward_monitors


def positive(strength: float) -> LossFn:
    """Bradley-Terry whose chosen rewards are to be positive on average."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        rewards = heads.rewards(model, hidden_states(model, batch, rng), batch, rng)
        chosen, rejected = batch.pairs(rewards)
        value = preference.positive_regularized(chosen, rejected, pair_weights(batch), strength)
        return {"reward": BatchTerm(1.0, value), **reward_monitors(rewards, batch)}

    return loss_fn


def with_magnitudes(task: Task) -> list[Comparison]:
    """Each pair with how much better its annotator finds the chosen one, in a column "magnitude".

    That is the data's margin where there is one; else 1, 2 or 3, by the third that the difference
    of the two grades falls into, whose sign is not told.

    Raises:
      DataError: a pair has neither a margin nor grades.
    """
    pairs = task.data.comparisons
    if all(pair.margin is not None for pair in pairs):
        magnitudes = [pair.margin for pair in pairs]
    else:
        for pair in pairs:
            if pair.scores is None:
                raise fault(pair.where or pair.id, "margin", "there is none, and no scores either")
        gaps = np.array([abs(pair.scores[0] - pair.scores[1]) for pair in pairs])
        magnitudes = 1 + np.searchsorted(np.quantile(gaps, [1 / 3, 2 / 3]), gaps)
    return _with_column(pairs, "magnitude", magnitudes)


def with_targets(task: Task) -> list[Comparison]:
    """Each pair with PCRM's (arXiv 2404.00978) target in a column: the larger, the less alike.

    Likeness is that of the words (TF-IDF), where the paper takes BERT's states.
    """
    pairs = task.data.comparisons
    words = similar.tf_idf([plain_text(text) for c in pairs for text in c.responses]).toarray()
    targets = preference.cosine_prior(words[::2], words[1::2], task.strength, beta3=0.0)
    return _with_column(pairs, "target", targets)


def _with_column(
    pairs: Sequence[Comparison], name: str, values: Sequence[float]
) -> list[Comparison]:
    return [
        dataclasses.replace(pair, columns={**pair.columns, name: float(value)})
        for pair, value in zip(pairs, values, strict=True)
    ]


def _length_target(batch: PackedBatch, strength: float) -> jax.Array:
    return preference.length_prior(*batch.pairs(batch.response_length), strength, 0.1)


COEFFICIENT = "the coefficient of the term"
GRADED = "pairs with margins or scores"

PAIRS: dict[str, Method] = {
    "bt": Method("Bradley-Terry on pairs, the baseline", bradley_terry),
    "label_smoothed": Method(
        "Bradley-Terry with smoothed labels (conservative DPO's, as in GRM's tables)",
        pairwise(lambda c, r, b, s: preference.label_smoothed(c, r, s)),
        (0.05, 0.1, 0.2),
        "the share of labels believed to be wrong",
    ),
    "margin": Method(
        "Bradley-Terry whose rewards are to differ by a margin (Llama 2, arXiv 2307.09288)",
        pairwise(lambda c, r, b, s: preference.bradley_terry(c, r, s * b.column("magnitude"))),
        (0.1, 0.3, 1.0),
        "reward units to each unit of magnitude",
        columns=("magnitude",),
        prepare=with_magnitudes,
        needs=GRADED,
    ),
    "scaled": Method(
        "Bradley-Terry weighed by magnitude (HelpSteer2-Preference, arXiv 2410.01257)",
        pairwise(lambda c, r, b, s: preference.scaled(c, r, b.column("magnitude"))),
        columns=("magnitude",),
        prepare=with_magnitudes,
        needs=GRADED,
    ),
    "hinge": Method(
        "hinge on the difference of rewards",
        pairwise(lambda c, r, b, s: preference.hinge(c, r, s)),
        (0.5, 1.0, 2.0),
        "the margin",
    ),
    "margin_mse": Method(
        "squared error of the difference of rewards from a margin",
        pairwise(lambda c, r, b, s: preference.margin_mse(c, r, s)),
        (0.5, 1.0, 2.0),
        "the margin",
    ),
    "focal": Method(
        "focal Bradley-Terry (arXiv 1708.02002)",
        pairwise(lambda c, r, b, s: preference.focal(c, r, s)),
        (0.5, 1.0, 2.0),
        "gamma",
    ),
    "focal_penalty": Method(
        "Bradley-Terry with a penalty on easy pairs (InternLM2, arXiv 2403.17297)",
        pairwise(lambda c, r, b, s: preference.focal_penalty(c, r, s)),
        (0.5, 1.0, 2.0),
        "gamma",
    ),
    "tempered": Method(
        "Bradley-Terry at a temperature",
        pairwise(lambda c, r, b, s: preference.tempered(c, r, s)),
        (0.5, 2.0, 4.0),
        "the temperature",
    ),
    "normalized": Method(
        "Bradley-Terry on rewards normalised over the batch",
        pairwise(lambda c, r, b, s: preference.normalized(c, r)),
    ),
    "eurus": Method(
        "Bradley-Terry and the rewards' own signs (Eurus, arXiv 2404.02078)",
        pairwise(lambda c, r, b, s: preference.eurus(c, r)),
    ),
    "cross_entropy": Method(
        "each response by itself: is it good?",
        pairwise(lambda c, r, b, s: preference.cross_entropy(c, r)),
    ),
    "pcrm_length": Method(
        "PCRM with a prior on lengths (arXiv 2404.00978)",
        pairwise(lambda c, r, b, s: preference.prior_constrained(c, r, _length_target(b, s))),
        (1.0, 2.0, 4.0),
        "the target of equal lengths",
    ),
    "pcrm_cosine": Method(
        "PCRM with a prior on likeness (arXiv 2404.00978)",
        pairwise(lambda c, r, b, s: preference.prior_constrained(c, r, b.column("target"))),
        (1.0, 2.0, 4.0),
        "the target of equal responses, half of that of responses without a word in common",
        columns=("target",),
        prepare=with_targets,
    ),
    "positive": Method(
        "Bradley-Terry whose chosen rewards are to be positive on average",
        positive,
        (0.01, 0.1, 1.0),
        COEFFICIENT,
    ),
    "bsr": Method(
        "Bradley-Terry with batch sum-to-zero regularisation (arXiv 2505.07271)",
        beside(lambda r, b, s: BatchTerm(s, regularizers.sum_to_zero(r, b.response_mask))),
        (0.01, 0.1, 1.0),
        COEFFICIENT,
    ),
    "centering": Method(
        "Bradley-Terry with rewards centred on 0 (TRL's, arXiv 2312.09244)",
        beside(lambda r, b, s: Term(s, regularizers.centering(*b.pairs(r)), pair_weights(b))),
        (0.001, 0.01, 0.1),
        COEFFICIENT,
    ),
    "score_l2": Method(
        "Bradley-Terry with a penalty on squared rewards",
        beside(lambda r, b, s: Term(s, regularizers.score_l2(r), b.response_mask)),
        (0.001, 0.01, 0.1),
        COEFFICIENT,
    ),
}
