"""Grades on several attributes of a response: SMORM, URM, QRM and ArmoRM.

The grades of all responses are in the order in which the data have them, NaN where there is none.
ArmoRM takes the last one for verbosity, as HelpSteer2 has it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrm.data.comparison import Comparison, fault
from jaxrm.data.ordering import ordered_pairs
from jaxrm.data.packing import PackedBatch
from jaxrm.evaluate.probe import final_states
from jaxrm.losses import attributes, preference
from jaxrm.methods.method import Method, head_alone, hidden_states, pair_weights
from jaxrm.methods.task import Model, Part, Task, Trained
from jaxrm.models import armo, heads
from jaxrm.models.gate import Gate, Gated, PromptGate, prompt_states
from jaxrm.models.heads import HeadConfig
from jaxrm.models.parameters import Tree
from jaxrm.models.transformer import RewardModel
from jaxrm.read.packed import Packed
from jaxrm.train.terms import LossFn, Term, Terms

GATE = PromptGate(layers=0, temperature=10.0, scale=10.0)
"""Linear in the prompt's state: hidden layers soon know a few hundred noisy pairs by heart. The
scale brings margins of grades from 0 to 1 to the order of 1."""
GATE_STEPS, GATE_BATCH, GATE_RATE = 300, 256, 3e-3

STATES = {"states": final_states, "prompts": prompt_states}
"""What is read off a model: a state for each response, and one for its prompt."""


# The losses


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
    """The pinball loss of grades, on frozen states: 19 quantiles of each attribute."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        outputs = heads.outputs(model, model.hidden(batch), batch, rng)
        outputs = outputs.reshape(*outputs.shape[:-1], -1, len(attributes.LEVELS))
        values = attributes.quantile(outputs, batch.attributes, batch.attributes_mask)
        return {"attributes": Term(1.0, values, batch.attributes_mask)}

    return loss_fn


# What is made of them

Trunk = Callable[[Task], Model]
"""The model on whose states attributes are read."""


def of_pairs(task: Task) -> Model:
    """Bradley-Terry, at the task's learning rate."""
    return untuned(task).fit(Method("Bradley-Terry"), name="trunk")


def untuned(task: Task) -> Task:
    """The task without a strength, where that is no loss's: its runs share a compilation."""
    return dataclasses.replace(task, strength=None)


def with_grades(task: Task, method: Method) -> Trained:
    """SMORM: one output for the reward and one for each attribute."""
    model = task.fit(dataclasses.replace(method, outputs=1 + len(names_of(task))))
    return Trained(model.scores, [model], [Part(model.reward_model)])


def of_grades(task: Task, method: Method) -> Trained:
    """URM: a trunk of grades, whose means a gate weighs."""
    count = len(names_of(task))
    model = task.fit(dataclasses.replace(method, outputs=2 * count))
    means = model.head(lambda outputs: outputs[..., :count], count)
    return gated(task, [model], means, learning_rate=GATE_RATE)


def of_quantiles(task: Task, method: Method, *, trunk: Trunk = of_pairs) -> Trained:
    """QRM: quantiles on frozen states, whose means a gate weighs."""
    shape, states = (len(names_of(task)), len(attributes.LEVELS)), trunk(task)
    model = untuned(task).fit(
        dataclasses.replace(method, outputs=math.prod(shape)),
        name="quantiles",
        rate=task.strength,
        params={name: p for name, p in states.fitted.params.items() if name != "reward_head"},
    )

    def means(outputs: Float[Array, "... quantiles"]) -> Float[Array, "... attributes"]:
        return outputs.reshape(*outputs.shape[:-1], *shape).mean(-1)

    return gated(task, [states, model], model.head(means, shape[0]), learning_rate=GATE_RATE)


def of_ridge(
    task: Task,
    method: Method,
    *,
    trunk: Trunk = of_pairs,
    gate: Gate = GATE,
    debias: bool = True,
) -> Trained:
    """ArmoRM: ridge regressions on frozen states, debiased of verbosity, which a gate weighs."""
    model, names = trunk(task), names_of(task)

    def graded(data: Packed) -> tuple[np.ndarray, np.ndarray]:
        states = model.read(data, STATES)["states"]
        return states.reshape(-1, states.shape[-1]), armo.labels_of(data.comparisons, names)

    states, labels = graded(task.packed)
    weights = armo.fit_heads(states, labels, *graded(task.validation), names).weights
    if debias:
        verbosity = len(names) - 1
        penalties = armo.verbosity_penalties(states @ weights, verbosity)
        weights = armo.debiased(weights, penalties, verbosity)
    head = HeadConfig(outputs=len(names)), {"weight": weights.astype(np.float32)}
    return gated(task, [model], head, gate, learning_rate=task.strength)


def names_of(task: Task) -> list[str]:
    """Names for the attributes of its responses, for errors. Raises DataError without any."""
    first: Comparison = task.data.comparisons[0]
    if first.attributes is None:
        raise fault(first.where or first.id, "attributes", "missing")
    return [f"attribute {a}" for a in range(len(first.attributes[0]))]


def gated(
    task: Task,
    models: Sequence[Model],
    head: tuple[HeadConfig, Tree],
    gate: Gate = GATE,
    *,
    learning_rate: float,
) -> Trained:
    """The attributes of a head on the states of the last model, weighed by a gate that is fitted to
    the task's pairs."""
    *_, last = models
    model = last.whole().with_head(*jax.device_get(head))

    def read(data: Packed) -> tuple[Float[Array, "n K attributes"], Float[np.ndarray, "n K d"]]:
        values = last.read(data, STATES)
        return heads.of_states(model, values["states"]), values["prompts"]

    (values, prompts), pairs = read(task.packed), ordered_pairs(task.data.comparisons)
    flat = values.reshape(-1, values.shape[-1])
    params = armo.fit_gate(
        gate,
        prompts[pairs.owner, 0],
        flat[pairs.better],
        flat[pairs.worse],
        steps=GATE_STEPS,
        batch=GATE_BATCH,
        learning_rate=learning_rate,
        seed=task.seed,
    )
    weighed = Gated(gate, params)

    def scores(data: Packed) -> np.ndarray:
        return np.asarray(weighed.rewards(*read(data)))

    return Trained(scores, models, [Part(lambda: model)], gate=weighed)


GRADES, GRADED = ("attributes",), "pairs with attributes"

ATTRIBUTES: dict[str, Method] = {
    "smorm": Method(
        "SMORM: Bradley-Terry and the grades of attributes on one trunk (arXiv 2507.07375)",
        smorm,
        (0.03, 0.1, 0.3),
        "the coefficient of the grades' MSE",
        columns=GRADES,
        train=with_grades,
        needs=GRADED,
    ),
    "urm": Method(
        "URM: the Gaussian likelihood of grades, their means gated (arXiv 2410.00847)",
        gaussian,
        columns=GRADES,
        train=of_grades,
        needs=GRADED,
    ),
    "qrm": Method(
        "QRM: quantiles of grades on Bradley-Terry's states, gated (arXiv 2409.10164)",
        quantiles,
        (3e-3, 1e-2, 3e-2),
        "the learning rate of the quantiles",
        columns=GRADES,
        trains=head_alone,
        train=of_quantiles,
        needs=GRADED,
    ),
    "armo": Method(
        "ArmoRM: grades regressed on Bradley-Terry's states, debiased, gated (arXiv 2406.12845)",
        strengths=(1e-3, 3e-3, 1e-2),
        strength="the learning rate of the gate",
        columns=GRADES,
        train=of_ridge,
        needs=f"{GRADED}, the last of them verbosity",
    ),
}
