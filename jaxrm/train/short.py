"""Short runs in memory: one compiled step for every learning rate, length, data set and seed.

`jaxrm.train.loop` is for a run that is worth keeping: it logs, evaluates, saves and resumes. A
study trains hundreds of small models for a minute each, and compiling a step takes as long. So
here the learning rate is an input of the step, nothing is written, and a run that was interrupted
starts again:

    start = load(base, HeadConfig(), seed)
    step = trainer(start, loss_fn, optimizer, batch, trainable=lambda path: True, mesh=mesh)
    for point in train(step, start.params, loader.batches(0), rates, points=3, seed=seed):
        ...  # look at point.params
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from jaxrm import parallel
from jaxrm.huggingface import hub
from jaxrm.models import transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.parallel import ShardingRules
from jaxrm.train.state import (
    Params,
    Trainable,
    TrainState,
    abstract_state,
    create_state,
    join,
    shardings_of,
)
from jaxrm.train.step import TrainStep, make_train_step
from jaxrm.train.terms import LossFn

AtRate = Callable[[Any], optax.GradientTransformation]
"""An optimizer at a constant learning rate, which may be a tracer."""


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """A model before training: its structure, and its parameters in the host's memory, so that
    training leaves them as they are."""

    structure: nnx.GraphDef
    axes: Params
    params: Params


def load(base: Path, head: HeadConfig | None, seed: int) -> Start:
    """The model in a directory of Hugging Face layout, in float32, on one device.

    Args:
      head: drawn from `seed`; None takes the directory's own.

    Raises: as `jaxrm.huggingface.hub.load`.
    """
    model = hub.load(base, head, seed=seed)
    structure, params = transformer.split(model)
    return Start(structure, transformer.axes(model), jax.tree.map(np.array, params))


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """A compiled step, and the state that it takes."""

    step: TrainStep
    optimizer: optax.GradientTransformation
    abstract: TrainState


def trainer(
    start: Start,
    loss_fn: LossFn,
    optimizer: AtRate,
    batch: Any,
    *,
    trainable: Trainable,
    mesh: Mesh,
    rules: ShardingRules = ShardingRules(),
) -> Trainer:
    """Compiles the step that all runs share which differ in no argument here.

    Args:
      start: any start of the model's structure; its values do not matter.
      optimizer: its learning rate is a part of the state, set before each step.
      batch: a micro-batch in the shape of all to come, numpy leaves [rows, ...], whose values do
        not matter; with an array `comparison`, by which tokens are counted.
      trainable: which parameters train.
      mesh: must be in context too (`jax.set_mesh`).
    """

    def at(learning_rate: Any) -> optax.GradientTransformation:
        return optimizer(learning_rate)  # inject_hyperparams goes by the argument's name

    injected = optax.inject_hyperparams(at)(learning_rate=0.0)
    abstract = abstract_state(
        start.params, start.axes, injected, trainable=trainable, mesh=mesh, rules=rules
    )
    step = make_train_step(loss_fn, start.structure, injected, shardings_of(abstract))
    window = jax.tree.map(lambda leaf: leaf[None], batch)
    placed = parallel.shard_rows(window, mesh, leading=1)
    return Trainer(step.lower(abstract, placed).compile(), injected, abstract)


@dataclasses.dataclass(frozen=True)
class Point:
    """A model in the course of its training, and what it has cost so far.

    Attributes:
      step, steps: how many are done, and how many there are in all.
      params: all of the model's. They are gone with the next step: copy what is to stay.
      seconds: of training, without the looking at points and without the compilation.
      tokens: trained on, without padding.
    """

    step: int
    steps: int
    params: Params
    seconds: float
    tokens: int


def train(
    trainer: Trainer,
    params: Params,
    batches: Iterator[Any],
    rates: Float[np.ndarray, " steps"],
    *,
    points: int,
    seed: int,
) -> Iterator[Point]:
    """Trains from `params`, and stops to be looked at after each of `points` equal parts.

    Args:
      params: in the host's memory, where they stay as they are.
      batches: on the devices, leaves [1, rows, ...] in the shape that was compiled; one a step.
      rates: float32, the learning rate of each step.
      points: as many as steps at most; the last is the end.
      seed: of the key that the loss function gets.
    """
    steps = len(rates)
    stops = {round(part * steps / points) for part in range(1, points + 1)}
    state = create_state(params, trainer.optimizer, trainer.abstract, seed=seed)
    seconds, tokens, since = 0.0, [], time.perf_counter()
    for step, rate in enumerate(rates, 1):
        state, metrics = trainer.step(at_rate(state, rate), next(batches))
        tokens.append(metrics["tokens"])
        if step in stops:
            jax.block_until_ready(state)
            seconds += time.perf_counter() - since
            model = join(state.trainable, state.frozen)
            yield Point(step, steps, model, seconds, sum(map(int, jax.device_get(tokens))))
            since = time.perf_counter()


def at_rate(state: TrainState, rate: np.float32) -> TrainState:
    """The state whose next step has this learning rate."""
    held = state.optimizer.hyperparams | {"learning_rate": rate}
    return dataclasses.replace(state, optimizer=state.optimizer._replace(hyperparams=held))
