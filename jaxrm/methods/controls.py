"""What else keeps a base's states: controls that GRM has to beat."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrm.errors import require
from jaxrm.evaluate.probe import final_states, fit_head
from jaxrm.methods.bench import WithText
from jaxrm.methods.method import Method, bradley_terry, head_alone
from jaxrm.methods.task import Part, Task, Trained
from jaxrm.models.transformer import RewardModel
from jaxrm.train.pretrain import language_loss
from jaxrm.train.terms import LossFn, Terms


def replay(strength: float) -> LossFn:
    """(1 - strength) Bradley-Terry + strength the mean loss of a token of the text beside it."""

    def loss_fn(model: RewardModel, batch: WithText, rng: jax.Array) -> Terms:
        terms = dict(bradley_terry(None)(model, batch.pairs, rng))
        terms["reward"] = dataclasses.replace(terms["reward"], coefficient=1 - strength)
        text = language_loss(model, batch.text, rng)["text"]
        return terms | {"text": dataclasses.replace(text, coefficient=strength)}

    return loss_fn


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


def fitted_first(task: Task, method: Method) -> Trained:
    """LP-FT: the head is fitted to the base's states before all else trains."""
    bench, comparisons = task.bench, task.data.comparisons
    require(bench.head.kind == "linear", "the head of lp_ft", "linear", bench.head.kind)
    start = bench.start(task.seed)
    # A response's tokens as targets change no state, and share what DPO's reference compiles.
    states = bench.read(start, bench.pack(comparisons, "all"), {"states": final_states})["states"]
    weight = fit_head(list(states), comparisons)[:, None].astype(np.float32)
    model = task.fit(method, head_seed=task.seed, params={"reward_head": {"weight": weight}})
    return Trained(model.scores, [model], [Part(model.reward_model)])


CONTROLS: dict[str, Method] = {
    "lp_ft": Method(
        "LP-FT: the head fitted to the frozen base, then everything (arXiv 2202.10054)",
        train=fitted_first,
        needs="pairs; a linear head",
    ),
    "l2": Method(
        "Bradley-Terry with a pull to the initial weights (L2-SP, arXiv 1802.01483)",
        strengths=(10.0, 30.0, 100.0, 300.0),
        strength="of the pull, times the learning rate",
        pulls=lambda strength: (pull_to_start(strength),),
    ),
    "replay": Method(
        "Bradley-Terry and the language-model loss of other text",
        replay,
        (0.03, 0.1, 0.3, 0.6),
        "text's share of the loss",
        text=True,
        needs="pairs; text (--text)",
    ),
    "frozen": Method("Bradley-Terry on a head alone, its trunk frozen", trains=head_alone),
}
