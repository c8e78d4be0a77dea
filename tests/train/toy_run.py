"""Trains the toy problem in a process that tests can stop.

python -m tests.train.toy_run DIR [TROUBLE]
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxrm.parallel import MeshShape, ShardingRules, make_mesh
from jaxrm.train.best import Best
from jaxrm.train.checkpoint import Checkpoints, Progress
from jaxrm.train.loop import fit
from jaxrm.train.metrics import Logger
from jaxrm.train.optimizer import OptimizerConfig, learning_rates, make_optimizer
from jaxrm.train.terms import LossFn, Monitor, Terms
from tests.train.toy_problem import Toy, ToyBatch, ToyLoader, loss_fn

STEPS, CONFIG = 60, OptimizerConfig(learning_rate=1e-2)
BEST = Best("eval/bias", "max")
"""Falls, then rises, and falls again after about step 45."""


class PacedLoader(ToyLoader):
    """Slow enough for a signal to arrive in the middle."""

    def batches(self, start):
        for batch in super().batches(start):
            time.sleep(0.02)
            yield batch


def train(
    run_dir: Path,
    loader_type: type[ToyLoader] = ToyLoader,
    model: Toy | None = None,
    loss_fn: LossFn = loss_fn,
    loggers: Sequence[Logger] = (),
) -> Toy:
    mesh = make_mesh(MeshShape(2, 2, 2))
    return fit(
        model or Toy(),
        loss_fn,
        loader_type(mesh),
        make_optimizer(CONFIG),
        learning_rates(CONFIG, STEPS),
        run_dir=run_dir,
        mesh=mesh,
        rules=ShardingRules(),
        trainable=lambda path: path != "norm",
        log_every=1,
        checkpoint_every=3,
        evaluate=lambda model: {"eval/bias": float(model.reward_head.bias[...])},
        eval_every=4,
        best=BEST,
        loggers=loggers,
    )


def slow_to_compile(model: Toy, batch: ToyBatch, rng: jax.Array) -> Terms:
    """`loss_fn`, and what takes XLA half a minute or more."""
    x = batch.x
    for power in range(600):
        x = jnp.sort(jnp.sin(x * power))
    return {**loss_fn(model, batch, rng), "slow": Monitor(x[..., 0], batch.pairs)}


def stalled_seal(checkpoints: Checkpoints, progress: Progress) -> None:
    """A disk that hangs from step 12 on."""
    if progress.step >= 12:
        time.sleep(120)
    SEAL(checkpoints, progress)


SEAL = Checkpoints._seal


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    run_dir, trouble = Path(sys.argv[1]), " ".join(sys.argv[2:])
    # A shell ignores Ctrl-C for what it runs in the background, as it may run the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if trouble == "slow disk":
        Checkpoints._seal = stalled_seal
    train(
        run_dir,
        PacedLoader,
        loss_fn=slow_to_compile if trouble == "slow compilation" else loss_fn,
    )
