"""The training loop: `fit` keeps a run in a directory and resumes it, `points` runs in memory.

Both take the same steps of the same `Trainer`, whose learning rate is an input: hundreds of short
runs that differ in rates, length, data or seed share a compilation.

    trainer = Trainer(structure, axes, params, loss_fn, optimizer, mesh=mesh, rules=rules)
    for point in points(trainer, params, loader.batches(0), rates, count=3, seed=0):
        ...  # look at point.params
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float
from tqdm import tqdm

from jaxrm.errors import RunDirError
from jaxrm.models.transformer import axes, merge, split
from jaxrm.parallel import ShardingRules
from jaxrm.train.best import Best
from jaxrm.train.checkpoint import Checkpoints, Progress
from jaxrm.train.metrics import Logger, MetricsLog
from jaxrm.train.optimizer import AtRate
from jaxrm.train.state import (
    Params,
    Trainable,
    TrainState,
    abstract_state,
    create_state,
    join,
    partition,
    place,
    shardings_of,
)
from jaxrm.train.step import Metrics, make_train_step
from jaxrm.train.stopping import GO_ON, caught
from jaxrm.train.terms import LossFn

log = logging.getLogger(__name__)


class Loader(Protocol):
    """An endless sequence of batches; number n is the same whenever it is asked for."""

    def batches(self, start: int) -> Iterator[Any]:
        """Batches `start`, `start + 1`, ... on the device, leaves [micro-batches, rows, ...]."""
        ...


class Trainer:
    """What runs share that differ in parameters, data, seed, length and learning rates alone.

    The step is compiled when the first batch is there, so that a finished run compiles nothing, and
    a batch of another shape is an error rather than a second compilation.

    Args:
      structure, axes, params: of the model, as `transformer.split` and `axes` give them; of the
        parameters only shapes and dtypes matter.
      optimizer: at a learning rate that is given with each step.
      trainable: chooses the parameters that train by their "/"-joined path.
      mesh: must be in context (`jax.set_mesh`) whenever steps are taken.
    """

    def __init__(
        self,
        structure: nnx.GraphDef,
        axes: Params,
        params: Params,
        loss_fn: LossFn,
        optimizer: AtRate,
        *,
        mesh: Mesh,
        rules: ShardingRules,
        trainable: Trainable = lambda path: True,
    ):
        self.structure, self.optimizer = structure, optimizer
        self.abstract = abstract_state(
            params, axes, optimizer, trainable=trainable, mesh=mesh, rules=rules
        )
        self._step = make_train_step(loss_fn, structure, optimizer, shardings_of(self.abstract))
        self._compiled: jax.stages.Compiled | None = None

    def start(self, params: Params, seed: int) -> TrainState:
        """The state before the first step; see `create_state`."""
        return create_state(params, self.optimizer, self.abstract, seed=seed)

    def model(self, state: TrainState) -> nnx.Module:
        """The model at a state."""
        return merge(self.structure, join(state.trainable, state.frozen))

    def compiled(self, batch: Any) -> jax.stages.Compiled:
        """The step, compiled once for batches as this one, of which only the shapes matter."""
        if self._compiled is None:
            self._compiled = self._step.lower(self.abstract, batch, np.float32(0)).compile()
        return self._compiled

    def steps(
        self,
        state: TrainState,
        batches: Iterator[Any],
        rates: Float[np.ndarray, " steps"],
        done: int = 0,
    ) -> Iterator[tuple[int, TrainState, Metrics]]:
        """(number of the step, the state after it, its metrics) for all steps but those `done`.

        The step is compiled before this returns. A state is gone with the step after it, whose
        memory is its own: copy what is to stay.

        Args:
          batches: on the devices, leaves [micro-batches, rows, ...]; one a step.
          rates: float32, the learning rate of each step, of those done too.
        """
        first = next(batches)
        self.compiled(first)
        return self._take(state, itertools.chain([first], batches), rates, done)

    def _take(self, state, batches, rates, done) -> Iterator[tuple[int, TrainState, Metrics]]:
        for step in range(done + 1, len(rates) + 1):
            state, metrics = self._compiled(state, next(batches), rates[step - 1])
            yield step, state, metrics


@dataclasses.dataclass(frozen=True)
class Point:
    """A model in the course of its training, and what it has cost so far.

    Attributes:
      step, steps: how many are done, and how many there are in all.
      params: all of the model's. They are gone with the next step: copy what is to stay.
      seconds: of training, without the looking at points.
      tokens: trained on, without padding.
    """

    step: int
    steps: int
    params: Params
    seconds: float
    tokens: int


def points(
    trainer: Trainer,
    params: Params,
    batches: Iterator[Any],
    rates: Float[np.ndarray, " steps"],
    *,
    count: int,
    seed: int,
) -> Iterator[Point]:
    """Trains in memory from `params`, and stops to be looked at after each of `count` equal parts.

    Args:
      params: in the host's memory, where they stay as they are.
      batches, rates: as for `Trainer.steps`.
      count: as many as steps at most; the last point is the end.
      seed: of the key that the loss function gets.
    """
    stops = {round(part * len(rates) / count) for part in range(1, count + 1)}
    taken = trainer.steps(trainer.start(params, seed), batches, rates)
    seconds, tokens, since = 0.0, [], time.perf_counter()
    for step, state, metrics in taken:
        tokens.append(metrics["tokens"])
        if step in stops:
            jax.block_until_ready(state)
            seconds += time.perf_counter() - since
            at_point = join(state.trainable, state.frozen)
            yield Point(step, len(rates), at_point, seconds, sum(map(int, jax.device_get(tokens))))
            since = time.perf_counter()


def fit(
    model: nnx.Module,
    loss_fn: LossFn,
    loader: Loader,
    optimizer: AtRate,
    rates: Float[np.ndarray, " steps"],
    *,
    run_dir: Path,
    mesh: Mesh,
    rules: ShardingRules,
    trainable: Trainable = lambda path: True,
    seed: int = 0,
    log_every: int = 10,
    checkpoint_every: int = 500,
    evaluate: Callable[[nnx.Module], Mapping[str, float]] | None = None,
    eval_every: int = 0,
    keep: int = 3,
    best: Best | None = None,
    loggers: Sequence[Logger] = (),
) -> nnx.Module:
    """Train `model` for as many steps as there are `rates`, and return it; what it was given is
    consumed (donated).

    With `best`, the model of the best evaluated step is returned in place of the last step's.

    Leaves `run_dir/metrics.jsonl` (see MetricsLog) and `run_dir/checkpoints/`. Called again with
    the same arguments it resumes from the newest intact checkpoint, and ends with the same
    parameters and metrics, bit for bit, as a run that nothing interrupted. A finished run returns
    at once.

    A line of metrics holds those of the train step, `learning_rate`, `tokens_per_second` where the
    batches have tokens, and what `evaluate` returned. `tokens_per_second` counts the real tokens of
    all steps since the last line, over the time since then: it includes waiting for data and for
    checkpoints, and leaves out compilation, restoring and evaluation.

    Args:
      trainable: chooses the parameters that train by their "/"-joined path.
      seed: of the keys that the loss function gets.
      log_every: steps between lines of metrics; the last step is always logged.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      evaluate: called with the model every `eval_every` steps and after the last (0: never).
      keep: the newest checkpoints that are kept; older ones are deleted.
      best: which of the steps that `evaluate` was called at is best. It is saved when it is found,
        and kept beside the newest.
      loggers: get the lines of metrics.jsonl, too.

    Raises:
      OptionError: a logger cannot be opened.
      ValueError: `best` is given, but no evaluation to tell it by.
      RunDirError: the run was begun with another `best`.
      MetricError: an evaluation does not return the metric of `best`, or not as a finite number.
      SystemExit: 143 after SIGTERM, 130 after Ctrl-C. The running step is finished and saved first.
        (Before the first step there is nothing to save: then the process ends there and then.)
      FloatingPointError: when the loss or the gradient of a logged or saved step is not finite.
      CheckpointError: when checkpoints exist and none is intact, or the best step's is not.
    """
    if best is not None and (evaluate is None or not eval_every):
        raise ValueError("the best step is told by evaluations: give evaluate and eval_every")
    structure, params = split(model)
    trainer = Trainer(
        structure,
        axes(model),
        params,
        loss_fn,
        optimizer,
        mesh=mesh,
        rules=rules,
        trainable=trainable,
    )
    abstract, steps = trainer.abstract, len(rates)
    run_dir.mkdir(parents=True, exist_ok=True)

    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(caught())
        checkpoints = stack.enter_context(Checkpoints(run_dir / "checkpoints", keep))
        stack.enter_context(jax.set_mesh(mesh))

        def restore(step: int, frozen: Params) -> TrainState:
            return TrainState(**checkpoints.restore(step, abstract.saved()), frozen=frozen)

        # Start-up order: this run's newest intact checkpoint; without one, step 0 and the weights
        # that the model came with, pretrained or fresh. Frozen weights come with it in any case.
        progress = checkpoints.latest() or Progress(0, best)
        if progress.best != best:
            raise RunDirError(
                f"{run_dir} was begun with {progress.best} and cannot go on with {best}: repeat "
                "that command to resume it, or choose another directory"
            )
        done, leader = progress.step, progress.leader
        if not done:
            state = trainer.start(params, seed)
        else:
            wanted = leader.step if leader is not None and done >= steps else done
            frozen = place(params, abstract.frozen)
            # Consumed here too, whoever still holds them: the saved ones come in their place.
            jax.tree.map(lambda leaf: leaf.delete(), partition(params, trainable)[0])
            state = restore(wanted, frozen)
            log.info("%s: resumed at step %d of %d", run_dir, done, steps)
        if done >= steps:
            return trainer.model(state)
        # Nothing here may hold the given weights while the step updates them in place.
        del model, params

        primary = jax.process_index() == 0
        logs = [
            stack.enter_context(opened(run_dir, done))
            for opened in (MetricsLog, *loggers)
            if primary
        ]
        bar = stack.enter_context(
            tqdm(total=steps, initial=done, desc=run_dir.name, unit="step", disable=not primary)
        )
        throughput = _Throughput()
        taken = trainer.steps(state, loader.batches(done), rates, done)
        # Nothing here may hold a state while the step after it updates it in place.
        del state
        stop.steps_begin()
        for step, state, metrics in taken:
            throughput.add(metrics)
            bar.update()

            last = step == steps
            evaluating = evaluate is not None and eval_every and (last or step % eval_every == 0)
            logging_ = evaluating or last or step % log_every == 0
            stopping = stop.agreed(meeting=logging_)
            saving = stopping or last or step % checkpoint_every == 0
            if logging_ or saving:
                values = _finite(step, metrics)
            if logging_:
                line = {"step": step, **values, "learning_rate": float(rates[step - 1])}
                line.update(throughput.measure())
                bar.set_postfix({name: f"{line[name]:.4g}" for name in _SHOWN if name in line})
                if evaluating:
                    figures = evaluate(trainer.model(state))
                    line.update(figures)
                    if best is not None:
                        leader = best.leader(leader, step, figures)
                        saving = saving or leader.step == step
                    throughput.restart()
                for each in logs:
                    each.write(line)
            # After the line: a checkpoint must not be newer than the metrics beside it, or a run
            # killed between the two would resume without ever writing that line.
            if saving:
                checkpoints.save(state.saved(), Progress(step, best, leader))
            if stopping:
                break
        if leader is not None and leader.step != step and not stopping:
            # The last state goes before the best one comes: there may be no room for both.
            jax.tree.map(lambda leaf: leaf.delete(), state.saved())
            state = restore(leader.step, state.frozen)
    if number := stopping or stop.number:
        said = "%s: stopped by %s after step %d of %d, which is saved: %s"
        log.warning(said, run_dir, signal.Signals(number).name, step, steps, GO_ON)
        # Not 0, which would tell a scheduler that the job is done.
        raise SystemExit(128 + number)
    return trainer.model(state)


_SHOWN = ("loss", "accuracy")
"""Metrics beside the progress bar."""


class _Throughput:
    """Real tokens per second since the last measurement."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self._tokens: list[jax.Array] = []
        self._since = time.perf_counter()

    def add(self, metrics: Mapping[str, jax.Array]) -> None:
        """Count a step. Its tokens stay on the device, so that no step waits to be counted."""
        if "tokens" in metrics:
            self._tokens.append(metrics["tokens"])

    def measure(self) -> dict[str, float]:
        """The rate, {} for batches without tokens. Call it when the last step has finished."""
        tokens, since = sum(map(int, jax.device_get(self._tokens))), self._since
        self.restart()
        return {"tokens_per_second": tokens / (self._since - since)} if tokens else {}


def _finite(step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
    """A step's metrics on the host, which waits for the step, if they are worth going on from."""
    values = {name: value.item() for name, value in jax.device_get(dict(metrics)).items()}
    if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
        raise FloatingPointError(
            f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}. Not saved; "
            "lower the learning rate, clip gradients, or look for the batch that causes it"
        )
    return values
