"""Grades on several attributes of a response: SMORM, URM, QRM and ArmoRM.

The grades of all responses are in the order in which the data have them, NaN where there is none.
ArmoRM takes the last one for verbosity, as HelpSteer2 has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxrm.data.comparison import Comparison, fault
from jaxrm.data.ordering import ordered_pairs
from jaxrm.data.packing import PackedBatch
from jaxrm.evaluate.probe import final_states
from jaxrm.losses import attributes, preference
from jaxrm.methods.method import (
    Method,
    bradley_terry,
    head_alone,
    hidden_states,
    pair_weights,
)
from jaxrm.methods.task import Model, Part, Task, Trained
from jaxrm.models import armo, heads
from jaxrm.models.gate import Gated, PromptGate, prompt_states
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import RewardModel
from jaxrm.read.packed import Packed
from jaxrm.train.terms import LossFn, Term, Terms

GATE = PromptGate(layers=0, temperature=10.0, scale=10.0)
"""Linear in the prompt's state: with a few hundred noisy pairs hidden layers did worse."""
GATE_STEPS, GATE_BATCH = 300, 256


def smorm(strength: float | None) -> LossFn:
    """Bradley-Terry on the first output, `strength` times MSE on the others."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        outputs = heads.outputs(model, hidden_states(model, batch, rng), batch, rng)
        pairs = preference.bradley_terry(*batch.pairs(outputs[..., 0]))
        errors = attributes.regression(outputs[..., 1:], batch.attributes, batch.attributes_mask)
        return {
            "reward": Term(1.0, pairs, pair_weights(batch)),
            "attributes": Term(strength, errors, batch.attributes_mask),
        }

    return loss_fn


def gaussian(strength: float | None) -> LossFn:
    """The likelihood of grades: a mean and a log-deviation of each attribute."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        outputs = heads.outputs(model, hidden_states(model, batch, rng), batch, rng)
        mean, log_deviation = jnp.split(outputs, 2, axis=-1)
        grades = batch.attributes, batch.attributes_mask
        values = attributes.gaussian_nll(mean, log_deviation, *grades)
        return {"attributes": Term(1.0, values, batch.attributes_mask)}

    return loss_fn


def quantiles(strength: float | None) -> LossFn:
    """The pinball loss of grades: 19 quantiles of each attribute."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        outputs = heads.outputs(model, hidden_states(model, batch, rng), batch, rng)
        outputs = outputs.reshape(*outputs.shape[:-1], -1, len(attributes.LEVELS))
        values = attributes.quantile(outputs, batch.attributes, batch.attributes_mask)
        return {"attributes": Term(1.0, values, batch.attributes_mask)}

    return loss_fn


GRADES = ("attributes",)


def names_of(comparisons: Sequence[Comparison]) -> list[str]:
    """Names for the attributes of all responses, for errors. Raises DataError without any."""
    first = comparisons[0]
    if first.attributes is None:
        raise fault(first.where or first.id, "attributes", "missing")
    return [f"attribute {a}" for a in range(len(first.attributes[0]))]


def count(task: Task) -> int:
    """How many attributes a response has. Raises DataError where the data have none."""
    return len(names_of(task.data.comparisons))


def with_grades(task: Task, method: Method) -> Trained:
    """SMORM: one output for the reward and one for each attribute."""
    model = task.fit(dataclasses.replace(method, outputs=1 + count(task)))
    return Trained(model.scores, [model], [Part(model.reward_model)])


def uncertain(task: Task, method: Method) -> Trained:
    """URM: a trunk of grades, whose means a gate weighs afterwards."""
    graded_by = count(task)
    model = task.fit(dataclasses.replace(method, outputs=2 * graded_by))
    means = np.asarray(heads.last_weight(model.whole()))[:, :graded_by]
    return gated(task, model, [model], means)


def of_quantiles(task: Task, method: Method) -> Trained:
    """QRM: quantiles on the frozen states of Bradley-Terry, whose means a gate weighs."""
    trunk = task.fit(dataclasses.replace(method, loss=bradley_terry, columns=()), name="trunk")
    shape = count(task), len(attributes.LEVELS)
    head = dataclasses.replace(method, outputs=shape[0] * shape[1], trains=head_alone)
    groups = {n: p for n, p in trunk.fitted.params.items() if n != "reward_head"}
    model = task.fit(head, name="quantiles", params=groups)
    weight = np.asarray(heads.last_weight(model.whole()))
    return gated(task, trunk, [trunk, model], weight.reshape(-1, *shape).mean(axis=-1))


def ridge(task: Task, method: Method) -> Trained:
    """ArmoRM: ridge regressions on the frozen states of Bradley-Terry, debiased, and gated."""
    trunk = task.fit(dataclasses.replace(method, columns=()), name="trunk")
    train = task.bench.pack(task.data.comparisons)
    train_states, train_labels = graded(trunk, train)
    held_out, names = graded(trunk, task.validation), names_of(train.comparisons)
    weights = armo.fit_heads(train_states, train_labels, *held_out, names).weights
    verbosity = weights.shape[1] - 1
    penalties = armo.verbosity_penalties(train_states @ weights, verbosity)
    return gated(task, trunk, [trunk], armo.debiased(weights, penalties, verbosity))


def graded(
    model: Model, data: Packed
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n attributes"]]:
    """The states of all responses, and their grades."""
    states = model.read(data, {"states": final_states})["states"]
    return states.reshape(-1, states.shape[-1]), armo.labels_of(
        data.comparisons, names_of(data.comparisons)
    )


def gated(
    task: Task, model: Model, models: list[Model], weights: Float[np.ndarray, "d attributes"]
) -> Trained:
    """Attributes on the states of a model, weighed by a gate that is fitted to the pairs.

    The gate's learning rate is the method's strength.
    """
    readings = {"states": final_states, "prompts": prompt_states}
    comparisons = task.data.comparisons
    train = model.read(task.bench.pack(comparisons), readings)
    pairs, rewards = ordered_pairs(comparisons), train["states"] @ weights
    rewards = rewards.reshape(-1, rewards.shape[-1])
    params = armo.fit_gate(
        GATE,
        train["prompts"][pairs.owner, 0],
        rewards[pairs.better],
        rewards[pairs.worse],
        steps=GATE_STEPS,
        batch=GATE_BATCH,
        learning_rate=task.strength,
        seed=task.seed,
    )
    finished = Gated(GATE, params)

    def scores(data: Packed) -> np.ndarray:
        states = model.read(data, readings)
        return np.asarray(finished.rewards(states["states"] @ weights, states["prompts"]))

    def with_heads() -> RewardModel:
        head = HeadConfig(outputs=weights.shape[1])
        return model.whole().with_head(head, {"weight": jnp.asarray(weights, jnp.float32)})

    return Trained(scores, models, [Part(with_heads)], gate=finished)


GRADED = "pairs with attributes"

ATTRIBUTES: dict[str, Method] = {
    "smorm": Method(
        "SMORM: Bradley-Terry and the grades of attributes on one trunk (arXiv 2507.07375)",
        smorm,
        (0.1, 0.3, 1.0),
        "the coefficient of the grades' MSE",
        columns=GRADES,
        train=with_grades,
        needs=GRADED,
    ),
    "urm": Method(
        "URM: the Gaussian likelihood of grades, their means gated (arXiv 2410.00847)",
        gaussian,
        (1e-3, 3e-3, 1e-2),
        "the gate's learning rate",
        columns=GRADES,
        train=uncertain,
        needs=GRADED,
    ),
    "qrm": Method(
        "QRM: quantiles of grades on Bradley-Terry's states, gated (arXiv 2409.10164)",
        quantiles,
        (1e-3, 3e-3, 1e-2),
        "the gate's learning rate",
        columns=GRADES,
        train=of_quantiles,
        needs=GRADED,
    ),
    "armo": Method(
        "ArmoRM: grades regressed on Bradley-Terry's states, debiased, gated (arXiv 2406.12845)",
        bradley_terry,
        (1e-3, 3e-3, 1e-2),
        "the gate's learning rate",
        columns=GRADES,
        train=ridge,
        needs=f"{GRADED}, the last of them verbosity",
    ),
}
