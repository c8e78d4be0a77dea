"""Trains the toy problem in a process that tests can kill: python -m tests.train.toy_run DIR"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import jax

from jaxrm.parallel import MeshShape, ShardingRules, make_mesh
from jaxrm.train.best import Best
from jaxrm.train.loop import fit
from jaxrm.train.optimizer import OptimizerConfig, learning_rates, make_optimizer
from tests.train.toy_problem import Toy, ToyLoader, loss_fn

STEPS, CONFIG = 60, OptimizerConfig(learning_rate=1e-2)
BEST = Best("eval/bias", "max")
"""Falls, then rises, and falls again after about step 45."""


class PacedLoader(ToyLoader):
    """Slow enough for a signal to arrive in the middle."""

    def batches(self, start):
        for batch in super().batches(start):
            time.sleep(0.02)
            yield batch


def train(run_dir: Path, loader_type: type[ToyLoader] = ToyLoader, model: Toy | None = None) -> Toy:
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
    )


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    train(Path(sys.argv[1]), PacedLoader)
